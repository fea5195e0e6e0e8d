"""One trial: texts and settings in, an adapter and its scores out."""
