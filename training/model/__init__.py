"""The base model, its target modules and precision, and the adapter on it."""
