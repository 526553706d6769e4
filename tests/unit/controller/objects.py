"""Objects as the API server returns them, with values that are really sealed."""

import base64
from collections.abc import Iterable, Mapping
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
    """Seal a value; the same value always results in the same text."""
    return key.public.seal(SecretBytes(value.encode()), account=account, name=variable)


def account_secret(variable: str, sealed: str, namespace: str = "team", **spec: object) -> Body:
    """Return an AccountSecret without a resourceVersion; its name is the variable's in lowercase."""
    metadata = {
        "uid": f"uid-{namespace}-{variable}",
        "namespace": namespace,
        "name": variable.lower(),
        "creationTimestamp": CREATED,
        "generation": 1,
    }
    return {"metadata": metadata, "spec": {"name": variable, "sealed": sealed, **spec}}


def namespace(name: str, account: str | None = None, **metadata: str) -> Body:
    """Return a namespace without a resourceVersion."""
    labels = {ACCOUNT_LABEL: account} if account else {}
    fixed = {"name": name, "uid": f"uid-{name}", "creationTimestamp": CREATED, "labels": labels}
    return {"metadata": fixed | metadata}


def secret(where: str, values: Mapping[str, str], account: str = "team", **fields: object) -> Body:
    """Return our account Secret without a resourceVersion; keys that start with an underscore are someone else's."""
    data = {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}
    labels = {MANAGED_BY_LABEL: FIELD_MANAGER, ACCOUNT_LABEL: account}
    metadata = {
        "name": ACCOUNT_SECRET,
        "namespace": where,
        "uid": f"uid-{where}-secret",
        "creationTimestamp": CREATED,
        "labels": labels,
        "managedFields": [applied([name for name in values if not name.startswith("_")], labels)],
    }
    return {"metadata": metadata, "type": SECRET_TYPE, "data": data, **fields}


def applied(
    names: Iterable[str], labels: Iterable[str] = (), manager: str = FIELD_MANAGER, time: str = CREATED
) -> Body:
    """Return the managedFields entry of a manager that applied these keys of a Secret's data, and these labels."""
    fields = {
        "f:data": {f"f:{name}": {} for name in names},
        "f:metadata": {"f:labels": {f"f:{name}": {} for name in labels}},
    }
    return {"manager": manager, "operation": "Apply", "time": time, "fieldsV1": fields}


def edited(body: Body, *names: str, values: Mapping[str, str] | None = None) -> Body:
    """Return a Secret in which someone else changed values, with the managedFields that this causes."""
    changed = {name: base64.b64encode(value.encode()).decode() for name, value in (values or {}).items()}
    theirs: Body = {f"f:{name}": {} for name in (*names, *changed)}
    entries = [
        {
            **entry,
            "fieldsV1": {
                **entry["fieldsV1"],
                "f:data": {name: {} for name in entry["fieldsV1"].get("f:data", {}) if name not in theirs},
            },
        }
        for entry in body["metadata"]["managedFields"]
    ]
    entries.append({"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:data": theirs}})
    return {**body, "metadata": {**body["metadata"], "managedFields": entries}, "data": {**body["data"], **changed}}


def at(version: int, body: Body) -> Body:
    """Return an object at a resourceVersion."""
    return {**body, "metadata": {**body["metadata"], "resourceVersion": str(version)}}
