"""Trials as Ray runs them."""
