"""Linear item-item models: ease (EASE, EDLAE), sparse_ease, elsa (low rank), bspm (graph filter), item_knn."""
