"""The REST gateway: Runloop's API for account secrets, in front of the API server.

It can seal values but not open them. Every request to the API server carries the caller's token.
"""
