"""Account-level secrets for AI-agent devboxes on Kubernetes."""
