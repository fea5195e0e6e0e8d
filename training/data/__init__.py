"""Rows: read, split, encoded; columns and labels recognised."""
