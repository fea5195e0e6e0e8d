"""The copy of a sweep in MLflow."""
