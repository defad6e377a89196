"""Models that answer requests: pyfunc (as an MLflow model), pyfunc_model (the program that MLflow runs)."""
