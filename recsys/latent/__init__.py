"""What a learned code is good for: embeddings, nearest neighbors, maps, generated users."""
