"""Records of runs: tracker (the protocol, and a tracker that keeps nothing), mlflow_tracker and mlflow_client."""
