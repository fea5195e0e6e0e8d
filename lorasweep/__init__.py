"""Finds the LoRA adapter that classifies your texts best."""
