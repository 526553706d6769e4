"""Unusual objects, generated from a seed: what people, other tools and edited CRDs may store."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from random import Random

import httpx

from devbox_secrets.api.names import account_secrets_path
from harness.components import write_private
from harness.controlplane import ControlPlane
from integration.support.chart import Json

CANARY = "canary-in-an-odd-place"
#: Nesting levels of an object: more than Python parses by default.
_LEVELS = 1500
#: Timestamps that our CRD accepts, and timestamps that only an edited one does.
_TIMES = ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0000-01-01T00:00:00Z", "2026-99-99T99:99:99Z"]
_OTHER_TIMES = ["9999-12-31T23:00:00-05:00", "2026-01-01T00:00:00.123456789+14:00", "2016-12-31T23:59:60Z", []]
_TEXTS = [
    "",
    CANARY,
    "True",
    "Ready",
    "Synced",
    "🦄\u0000\u2028\ufeff",
    "x" * 70_000,
    "../..",
    "%s{}$(A)",
    "٣",
    *_TIMES,
]
_FIELDS = ["observedGeneration", "keyId", "changedAt", "conditions", "unknown"]


@contextmanager
def administrator(controlplane: ControlPlane) -> Iterator[httpx.Client]:
    """Return a client of the API server with all permissions; a request takes milliseconds."""
    pair = controlplane.authority.client("odd", "system:masters")
    both = write_private(controlplane.folder / "odd.pem", pair.certificate + pair.key)
    context = ssl.create_default_context(cadata=controlplane.authority.pem.decode())
    context.load_cert_chain(both)
    with httpx.Client(base_url=controlplane.url, verify=context, trust_env=False, timeout=30) as client:
        yield client


def anything(random: Random, depth: int = 0) -> object:
    """Return any JSON value."""
    scalars = [None, True, 0, -1, 2**53, -(2**63), 1.5, 1e300, random.choice(_TEXTS)]
    if depth > 2 or random.random() < 0.6:
        return random.choice(scalars)
    if random.random() < 0.5:
        return [anything(random, depth + 1) for _ in range(random.randrange(4))]
    return {random.choice(["a", "name", "type", "f:spec", ""]): anything(random, depth + 1) for _ in range(2)}


def status(random: Random) -> Json:
    """Return a status whose fields are valid, unusual, or arbitrary."""
    right = {
        "observedGeneration": random.choice([-1, 0, 1, 2**53, -(2**63)]),
        "keyId": random.choice(["0123456789abcdef", "", "🦄"]),
        "changedAt": _time(random),
        "conditions": [_condition(random, kind) for kind in random.sample(["Ready", "RotationDue", "", "x" * 300], 2)],
    }
    fields = random.sample(_FIELDS, random.randrange(1, 4))
    return {field: anything(random) if random.random() < 0.3 else right.get(field) for field in fields}


def _condition(random: Random, kind: str) -> Json:
    fields: Json = {
        "type": kind,
        "status": random.choice(["True", "False", "Unknown"]),
        "reason": random.choice(["", "Synced", "Pending", "x" * 1024, CANARY]),
        "message": random.choice(["", CANARY, "y" * 30_000]),
        "lastTransitionTime": _time(random),
        "observedGeneration": random.choice([None, -1, 1, 2**53]),
    }
    if random.random() < 0.1:
        fields[random.choice(list(fields))] = anything(random)
    return fields


def _time(random: Random) -> object:
    return random.choice(_TIMES if random.random() < 0.9 else _OTHER_TIMES)


def spec(random: Random, good: Json) -> object:
    """Return a spec with an unusual field, as an edited CRD may accept."""
    if random.random() < 0.1:
        return anything(random)
    return {**good, random.choice(["name", "sealed", "description", "rotateAfter"]): anything(random)}


def managed_fields(random: Random) -> list[Json]:
    """Return managedFields with arbitrary managers and times."""
    owned = [
        {"f:spec": {"f:sealed": {}}},
        {"f:spec": {"f:sealed": {"f:x": {}}, "f:name": {}}},
        {},
    ]
    return [
        {
            "manager": random.choice(["devbox-secrets", "devbox-secrets-gateway", "", CANARY, "🦄", "m" * 128]),
            "operation": random.choice(["Update", "Apply"]),
            "apiVersion": random.choice(["devbox-secrets.dev/v1beta1", "devbox-secrets.dev/v9"]),
            "time": random.choice([None, *_TIMES[:3]]),
            "fieldsType": "FieldsV1",
            "fieldsV1": random.choice(owned),
            "subresource": random.choice(["", "status", "other"]),
        }
        for _ in range(random.randrange(1, 4))
    ]


def annotations(random: Random) -> dict[str, str]:
    """Return the annotations that we and our libraries read, with arbitrary values."""
    keys = [
        *("gateway.devbox-secrets.dev/created-ms", "gateway.devbox-secrets.dev/updated-ms"),
        *("gateway.devbox-secrets.dev/requests", "kopf.zalando.org/last-handled-configuration"),
        *("kopf.zalando.org/upsert", "kubectl.kubernetes.io/last-applied-configuration", "devbox-secrets.dev/rotate"),
    ]
    return {key: random.choice([*_TEXTS, "9" * 14, "[]", "{"]) for key in random.sample(keys, 3)}


def write_deep(client: httpx.Client, account: str, name: str) -> None:
    """Give an AccountSecret a field manager with fields nested deeper than Python parses by default."""
    deep = '{"f:a":' * _LEVELS + "{}" + "}" * _LEVELS
    entry = {
        "manager": "m",
        "operation": "Update",
        "apiVersion": "devbox-secrets.dev/v1beta1",
        "fieldsType": "FieldsV1",
    }
    body = json.dumps({"metadata": {"managedFields": [{**entry, "fieldsV1": "<deep>"}]}}).replace('"<deep>"', deep)
    media_type = {"Content-Type": "application/merge-patch+json"}
    answer = client.patch(account_secrets_path(account, name), content=body, headers=media_type)
    assert answer.text.count("f:a") == _LEVELS


def write(client: httpx.Client, method: str, path: str, body: object, media_type: str = "application/json") -> bool:
    """Write an object, and return whether the API server accepted it."""
    answer = client.request(method, path, json=body, headers={"Content-Type": media_type})
    assert answer.status_code < HTTPStatus.INTERNAL_SERVER_ERROR, answer.text
    return answer.is_success


def merge(client: httpx.Client, account: str, name: str, body: Json, subresource: str = "") -> bool:
    """Change an AccountSecret with a merge patch, and return whether the API server accepted it."""
    path = account_secrets_path(account, name) + (f"/{subresource}" if subresource else "")
    return write(client, "PATCH", path, body, "application/merge-patch+json")
