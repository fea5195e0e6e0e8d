"""MLflow's model registry: register, pack, serve, fetch."""
