"""What operator, gateway and webhook share: probes, TLS, logs and settings."""
