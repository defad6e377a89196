"""What commands share: main (the Click group), options, settings, steps, progress, output."""
