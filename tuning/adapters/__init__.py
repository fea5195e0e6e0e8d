"""An adapter carried away: exported, checked, described, packed for MLflow, put to work."""
