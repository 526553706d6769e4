"""Requests to the API server with the caller's token."""
