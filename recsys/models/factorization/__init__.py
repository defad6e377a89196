"""Matrix factorization: ials, svd, and implicit_models (ALS, BPR, LMF and item neighbors of `implicit`)."""
