"""HTTP around the endpoints: the server and its limits, the audit log, the rate limit."""
