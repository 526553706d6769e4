"""The API server, asked with the caller's token."""
