"""Matrix factorization: ials, svd, and implicit_models (ALS, BPR, LMF of `implicit`); scaled: defaults by the data."""
