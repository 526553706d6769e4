"""What the commands do in the cluster, with the caller's own rights."""
