"""Runloop's contract: requests, responses, errors, ids and the OpenAPI document. Pure."""
