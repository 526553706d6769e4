"""AccountSecrets that a real API server accepts: the operator reads them unchanged or reports what is damaged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.api.names import account_secrets_path
from fuzz.choices import Choices
from fuzz.targets.accountsecrets import Json, anything, check_read, generated, managed, schema
from harness.controlplane import ControlPlane
from integration.support.chart import install
from integration.support.odd import administrator

_PATH = account_secrets_path("default")
_NAME = "existing"
_VALID = {"name": "EXISTING", "sealed": "dbs1.0123456789abcdef." + "A" * 1515}


@contextmanager
def start() -> Iterator[Callable[[bytes], None]]:
    """Start a control plane."""
    with ControlPlane.start() as plane, checking(plane) as check:
        yield check


@contextmanager
def checking(plane: ControlPlane) -> Iterator[Callable[[bytes], None]]:
    """Return the function that checks one input on a control plane."""
    install(plane)
    with administrator(plane) as client:
        assert _write(client, "POST", _PATH, _object(_NAME, _VALID))
        yield lambda data: _check(client, data)
        assert client.delete(f"{_PATH}/{_NAME}").is_success


def _check(client: httpx.Client, data: bytes) -> None:
    """Check one object or one change; nothing is stored."""
    choices = Choices(data)
    odd = choices.chance(2)
    made = choices.of((_create, _write_status, _write_metadata))(client, choices, odd)
    if made is None:
        return
    check_read(made)
    assert AccountSecret.parse(made).invalid_spec is None, "the API server accepted a spec that can't be read"


def _create(client: httpx.Client, choices: Choices, odd: bool) -> Json | None:
    spec = generated(choices, schema()["spec"], odd=odd)
    if not choices.chance(4):  # a valid spec with one generated field
        name = choices.of(("name", "description", "rotateAfter", "sealed"))
        spec = _VALID | ({name: spec[name]} if isinstance(spec, dict) and name in spec else {})
    return _write(client, "POST", f"{_PATH}?dryRun=All", _object("created", spec) | {"status": anything(choices)})


def _write_status(client: httpx.Client, choices: Choices, odd: bool) -> Json | None:
    body = {"status": generated(choices, schema()["status"], odd=odd)}
    return _write(client, "PATCH", f"{_PATH}/{_NAME}/status?dryRun=All", body)


def _write_metadata(client: httpx.Client, choices: Choices, odd: bool) -> Json | None:
    body = {"metadata": managed(choices), "spec": anything(choices) if odd else {"description": choices.text()}}
    return _write(client, "PATCH", f"{_PATH}/{_NAME}?dryRun=All", body)


def _object(name: str, spec: object) -> Json:
    return {
        "apiVersion": "devbox-secrets.dev/v1beta1",
        "kind": "AccountSecret",
        "metadata": {"name": name},
        "spec": spec,
    }


def _write(client: httpx.Client, method: str, path: str, body: Json) -> Json | None:
    """Return the object as the API server would store it, or None if it rejects it."""
    media_type = "application/json" if method == "POST" else "application/merge-patch+json"
    answer = client.request(method, path, json=body, headers={"Content-Type": media_type})
    assert answer.status_code < httpx.codes.INTERNAL_SERVER_ERROR, answer.text
    found: Json = answer.json()
    if not answer.is_success:
        return None
    found["metadata"].setdefault("resourceVersion", "1")  # an object that isn't stored has none
    return found
