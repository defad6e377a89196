"""Models that answer requests: pyfunc (MLflow), pyfunc_model (the program MLflow runs)."""
