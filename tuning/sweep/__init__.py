"""A sweep from plan to winner."""
