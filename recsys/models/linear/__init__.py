"""Linear autoencoders: ease (EASE, EDLAE), sparse_ease, elsa (low rank), bspm (graph filter)."""
