"""The REST gateway: Runloop's contract for account secrets, in front of the API server. `app` puts it together.

It can seal and not open. What it asks of the API server it asks in the caller's name, with the caller's token.
"""
