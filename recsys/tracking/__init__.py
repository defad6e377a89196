"""Runs kept: tracker (what a job may say, and the tracker that keeps nothing), mlflow_tracker."""
