"""Matrix factorization: ials, svd, and implicit_models (ALS, BPR and LMF of the package `implicit`)."""
