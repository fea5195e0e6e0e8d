"""Before the first trial: data, base models, space and resources checked, and what the sweep will cost."""
