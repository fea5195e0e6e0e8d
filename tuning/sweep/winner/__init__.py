"""After the trials: the winner chosen, confirmed, scored on the test split, and compared."""
