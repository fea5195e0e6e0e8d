"""A sweep's folder."""
