"""Autoencoder recommender systems: arrays and tables in, recommendations out."""
