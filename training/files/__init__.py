"""File formats and compression."""
