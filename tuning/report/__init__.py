"""What a sweep found, as one HTML page with interactive plots and as tables."""
