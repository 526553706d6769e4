"""Runloop's API: requests, responses, errors, ids and the OpenAPI document. Pure."""
