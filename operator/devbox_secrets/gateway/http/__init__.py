"""HTTP around the endpoints: the server, its limits, the audit log, the rate limit."""
