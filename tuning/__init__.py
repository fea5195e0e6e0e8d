"""Many trials: the sweep, its record, the winner, the command line."""
