"""Runnable jobs that compose the library: one file, one job, one Click command."""
