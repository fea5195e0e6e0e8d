"""Faster forms of parts of a model, each equal to the plain one."""
