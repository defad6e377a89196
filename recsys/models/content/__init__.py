"""Models that know items by their features, so that an item without interactions can be recommended."""
