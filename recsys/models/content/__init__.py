"""Models that know items by their features, so that an item nobody has had yet can be recommended."""
