"""The interactive plots."""
