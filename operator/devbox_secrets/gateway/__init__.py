"""The REST gateway: Runloop's contract for account secrets, in front of the API server.

It can seal but not open. Every request to the API server carries the caller's token.
"""
