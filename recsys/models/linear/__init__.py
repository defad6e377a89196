"""Linear item-item models: ease (EASE, EDLAE), sparse_ease, elsa (low rank), item_knn; graph filters: bspm, chebycf."""
