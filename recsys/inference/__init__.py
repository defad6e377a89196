"""From scores to answers: topn (lists), selection (the n best of a row), pairs (predicted values of given pairs)."""
