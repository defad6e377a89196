"""Autoencoder recommender systems: the library. Who may import whom is in tests/test_architecture.py."""
