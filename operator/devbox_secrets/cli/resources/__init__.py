"""Operations of the commands in the cluster, with the caller's own permissions."""
