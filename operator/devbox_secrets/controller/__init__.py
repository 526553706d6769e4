"""The operator: reconciles AccountSecrets and namespaces into one account Secret per member namespace."""
