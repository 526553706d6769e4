"""Reads the values in a Secret."""

import base64
from collections.abc import Mapping
from typing import Any

from pydantic import SecretBytes


def read_data(secret: Mapping[str, Any]) -> dict[str, SecretBytes]:
    """Return a Secret's values by name, from the API server's JSON.

    Raises:
        ValueError: a value isn't Base64, which the API server doesn't accept.
    """
    return {name: SecretBytes(base64.b64decode(value)) for name, value in (secret.get("data") or {}).items()}
