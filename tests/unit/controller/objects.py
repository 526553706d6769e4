"""Objects as the API server has them, with values that are really sealed."""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from pydantic import SecretBytes

from devbox_secrets.api.names import ACCOUNT_LABEL, ACCOUNT_SECRET, FIELD_MANAGER, MANAGED_BY_LABEL, SECRET_TYPE
from devbox_secrets.crypto.envelope import KeyPair

Body = dict[str, Any]
CREATED = "2026-01-01T00:00:00Z"
OLD_KEY, KEY = (KeyPair(SecretBytes(bytes([seed] * 32)), datetime(2026, 1, seed, tzinfo=UTC)) for seed in (1, 2))


@cache
def seal(value: str, variable: str, account: str = "team", key: KeyPair = KEY) -> str:
    """Seal a value; the same text each time, so that only another value is another text."""
    return key.public.seal(SecretBytes(value.encode()), account=account, name=variable)


def account_secret(variable: str, sealed: str, namespace: str = "team", **spec: object) -> Body:
    """Give an AccountSecret without a version; its name is the variable's in lowercase."""
    metadata = {
        "uid": f"uid-{namespace}-{variable}",
        "namespace": namespace,
        "name": variable.lower(),
        "creationTimestamp": CREATED,
        "generation": 1,
    }
    return {"metadata": metadata, "spec": {"name": variable, "sealed": sealed, **spec}}


def namespace(name: str, account: str | None = None, **metadata: str) -> Body:
    """Give a namespace without a version."""
    labels = {ACCOUNT_LABEL: account} if account else {}
    fixed = {"name": name, "uid": f"uid-{name}", "creationTimestamp": CREATED, "labels": labels}
    return {"metadata": fixed | metadata}


def secret(where: str, values: Mapping[str, str], **fields: object) -> Body:
    """Give an account Secret of ours without a version."""
    data = {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
    metadata = {
        "name": ACCOUNT_SECRET,
        "namespace": where,
        "creationTimestamp": CREATED,
        "labels": {MANAGED_BY_LABEL: FIELD_MANAGER},
    }
    return {"metadata": metadata, "type": SECRET_TYPE, "data": data, **fields}


def at(version: int, body: Body) -> Body:
    """Give an object at a resourceVersion."""
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
