"""An exported folder, loaded and used."""
