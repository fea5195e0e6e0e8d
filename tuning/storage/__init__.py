"""Where checkpoints lie: in the sweep's own folder, or on a storage that the nodes of a cluster share."""
