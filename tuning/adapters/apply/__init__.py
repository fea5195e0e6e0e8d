"""An exported adapter at work: predict and evaluate."""
