"""AccountSecrets, whether the CRD allows them or not: each field is read unchanged or reported as damaged."""

import json
import re
from collections.abc import Mapping
from functools import cache
from typing import Any

from devbox_secrets.api.crd import crd
from devbox_secrets.api.models import AccountSecret
from devbox_secrets.api.validation import ROTATE_AFTER_PATTERN, VARIABLE_PATTERN
from devbox_secrets.controller.cache import Cache
from fuzz.choices import Choices

Json = dict[str, Any]

_SEALED = "dbs1.0123456789abcdef." + "A" * 1515
#: Valid and invalid times.
_TIMES = (
    "2026-01-02T03:04:05Z",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59Z",
    "0000-01-01T00:00:00Z",
    "2026-13-01T00:00:00Z",
)
_TEXTS = (
    "",
    "TOKEN",
    _SEALED,
    "90d",
    "99999d",
    "Ready",
    "RotationDue",
    "Synced",
    "Pending",
    "True",
    "\0",
    "٣",
    "x" * 2000,
    *_TIMES,
)
_NUMBERS = (0, 1, -1, 2**53, 2**63 - 1, -(2**63), 2**64, 1.0, 1.5, 1e300)
_METADATA: Json = {
    "uid": "00000000-0000-0000-0000-000000000001",
    "namespace": "team-a",
    "name": "token",
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "generation": 1,
    "resourceVersion": "1",
}
_MANAGERS = ("devbox-secrets", "devbox-secrets-gateway", "kubectl", "", "🦄")
_FIELDS: tuple[Json, ...] = (
    {"f:spec": {"f:sealed": {}}},
    {"f:spec": {"f:sealed": {"f:x": {}}, "f:name": {}}},
    {"f:spec": None},
    {},
)


@cache
def schema() -> Json:
    """Return the schemas of spec and status."""
    (version,) = crd()["spec"]["versions"]
    properties: Json = version["schema"]["openAPIV3Schema"]["properties"]
    return {name: properties[name] for name in ("spec", "status")}


def check(data: bytes) -> None:
    """Check one object."""
    choices = Choices(data)
    odd = choices.chance(2)
    body: Json = {
        "metadata": _METADATA | managed(choices),
        "spec": generated(choices, schema()["spec"], odd=odd),
        "status": generated(choices, schema()["status"], odd=odd),
    }
    body = json.loads(json.dumps(body))
    found = check_read(body)
    if not odd:
        assert bool(found.invalid_spec) is not follows_rules(body["spec"])


def check_read(body: Json) -> AccountSecret:
    """Return the AccountSecret; check that each field that isn't reported as damaged is read unchanged."""
    found = AccountSecret.parse(body)
    read = {
        "spec": found.spec.model_dump(by_alias=True, exclude_none=True),
        "status": found.status.model_dump(by_alias=True, exclude_none=True),
    }
    for part, fields in read.items():
        given = body.get(part)
        if part in found.damaged or not isinstance(given, Mapping):
            continue
        if part == "status" and any(each.startswith("status") for each in found.damaged):
            continue  # a damaged status is ignored and rewritten
        for name, value in given.items():
            known = name in schema()[part]["properties"]
            if known and value is not None and f"{part}.{name}" not in found.damaged:
                assert _json(fields[name]) == _pruned(value, schema()[part]["properties"][name]), name
    assert (found.invalid_spec is None) is not any(each.startswith("spec") for each in found.damaged)
    cache_of_one = Cache()
    cache_of_one.upsert_account_secret(body)
    assert sum(cache_of_one.ready_reasons().values()) == 1
    cache_of_one.falling_due("2026-01-01T00:00:00Z")
    return found


def follows_rules(spec: Json) -> bool:
    """Return whether a spec that the schema allows follows the CRD's rules, except the one for `sealed`."""
    rotate_after = spec.get("rotateAfter")
    return bool(
        re.fullmatch(VARIABLE_PATTERN, spec["name"], re.ASCII)
        and (rotate_after is None or re.fullmatch(ROTATE_AFTER_PATTERN, rotate_after, re.ASCII))
    )


def generated(choices: Choices, wanted: Json, *, odd: bool) -> Any:  # noqa: ANN401 - JSON
    """Return a value that a schema allows; with `odd`, one that it may not allow."""
    if odd and choices.chance(8):
        return anything(choices)
    match wanted["type"]:
        case "object":
            required = wanted.get("required", ())
            return {
                name: generated(choices, field, odd=odd)
                for name, field in wanted["properties"].items()
                if (name in required and not (odd and choices.chance(16))) or choices.chance(2)
            }
        case "array":
            items = [generated(choices, wanted["items"], odd=odd) for _ in range(choices.below(4))]
            keys = wanted.get("x-kubernetes-list-map-keys")
            return items if odd or not keys else list({item[keys[0]]: item for item in items}.values())
        case "integer":
            return choices.of(_NUMBERS if odd else (0, 1, -1, 2**63 - 1, -(2**63)))
    return _text(choices, wanted, odd=odd)


def anything(choices: Choices, depth: int = 0) -> Any:  # noqa: ANN401 - JSON
    """Return any JSON value."""
    kind = choices.below(6 if depth < 3 else 4)
    if kind == 4:
        return [anything(choices, depth + 1) for _ in range(choices.below(3))]
    if kind == 5:
        return {
            choices.of((*_TEXTS[:4], "name", "type")): anything(choices, depth + 1) for _ in range(choices.below(3))
        }
    return (None, choices.chance(2), choices.of(_NUMBERS), choices.of((*_TEXTS, choices.text())))[kind]


def managed(choices: Choices) -> Json:
    """Return metadata: the field managers, and possibly a deletion timestamp."""
    entries = [
        {
            "manager": choices.of(_MANAGERS),
            "operation": choices.of(("Apply", "Update")),
            "fieldsV1": choices.of(_FIELDS),
        }
        for _ in range(choices.below(3))
    ]
    return {"managedFields": entries} | ({"deletionTimestamp": _TIMES[0]} if choices.chance(8) else {})


def _text(choices: Choices, wanted: Json, *, odd: bool) -> str:
    options: list[str] = [*wanted.get("enum", ()), *_TEXTS, choices.text()]
    text = choices.of(options)
    if odd or _allows(wanted, text):
        return text
    return next(each for each in options if _allows(wanted, each))


def _allows(wanted: Json, text: str) -> bool:
    return (
        text in wanted.get("enum", (text,))
        and len(text) <= wanted.get("maxLength", len(text))
        and re.search(wanted.get("pattern", "").replace("$", r"\Z"), text, re.ASCII) is not None
    )


def _pruned(value: Any, wanted: Json) -> Any:  # noqa: ANN401 - JSON
    """Remove unknown fields and nulls, as the API server does."""
    if isinstance(value, list):
        return [_pruned(each, wanted["items"]) for each in value]
    if isinstance(value, dict):
        fields = wanted["properties"]
        return {
            name: _pruned(each, fields[name]) for name, each in value.items() if name in fields and each is not None
        }
    return value


def _json(value: object) -> object:
    return json.loads(json.dumps(value))
