"""What the operator, the gateway and the webhook share: probes, TLS, logs and settings."""
