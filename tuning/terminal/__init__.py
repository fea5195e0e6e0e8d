"""What a person sees in the terminal: plan, progress, result, status."""
