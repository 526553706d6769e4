"""The sealing keys of a control plane, read and written without the operator."""

import base64
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from pydantic import SecretBytes

from devbox_secrets.api.names import ALL_ACCOUNT_SECRETS_PATH, account_secrets_path
from devbox_secrets.crypto.envelope import KeyPair, PublicKey
from devbox_secrets.kube.client import APPLY, MERGE
from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import NAMESPACE, Json, until

SECRET = ("secret", "devbox-secrets-keys", f"--namespace={NAMESPACE}")
CONFIGMAP = ("configmap", "devbox-secrets-public-keys", f"--namespace={NAMESPACE}")
ANNOTATION = "devbox-secrets.dev/rotate"
PRUNED = "devbox-secrets.dev/pruned"
_SECRET_PATH = f"/api/v1/namespaces/{NAMESPACE}/secrets/{SECRET[1]}"
_CONFIGMAP_PATH = f"/api/v1/namespaces/{NAMESPACE}/configmaps/{CONFIGMAP[1]}"
#: The field manager of `kubectl patch`.
_BY_HAND = "fieldManager=kubectl-patch"


def new_key(**ago: float) -> KeyPair:
    """Return a new key of this age: new_key(days=1)."""
    return KeyPair.generate(datetime.now(UTC) - timedelta(**ago))


def create(controlplane: ControlPlane) -> None:
    """Create an empty Secret for the keys as the operator does; an existing one is kept."""
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": SECRET[1]}, "type": "Opaque"}
    controlplane.request("PATCH", f"{_SECRET_PATH}?fieldManager=devbox-secrets-create", body, APPLY)


def ensure_key(controlplane: ControlPlane) -> None:
    """Make sure that a key exists, because the operator creates no first key while there are AccountSecrets."""
    if not stored(controlplane):
        create(controlplane)
        add(controlplane, new_key(days=1))


def store(controlplane: ControlPlane, *keys: KeyPair) -> None:
    """Replace all keys of the cluster with these; nothing is sealed or published yet, and no rotation is requested."""
    # A running operator would write back used keys, and keys that disappeared without being pruned.
    for each in controlplane.request("GET", ALL_ACCOUNT_SECRETS_PATH)["items"]:
        of = each["metadata"]
        controlplane.request("DELETE", account_secrets_path(of["namespace"], of["name"]))
    controlplane.request("PATCH", f"{_CONFIGMAP_PATH}?{_BY_HAND}", {"data": None}, MERGE)
    create(controlplane)
    before = controlplane.request("GET", _SECRET_PATH).get("data") or {}
    data = dict.fromkeys(before) | {key.public.id: _text(key) for key in keys}
    pruned = ",".join(key_id for key_id, text in data.items() if text is None)
    _patch(controlplane, {"metadata": {"annotations": {ANNOTATION: None, PRUNED: pruned}}, "data": data})


def store_and_publish(controlplane: ControlPlane, *keys: KeyPair) -> None:
    """Replace the keys while an operator runs, and wait until exactly these keys are published."""
    wanted = {*(key.public.id for key in keys), "newest"}
    store(controlplane, *keys)

    def is_done() -> bool:
        # A key is written back until the operator has seen the deletion of the AccountSecret that needs it.
        if not stored(controlplane).keys() <= wanted:
            store(controlplane, *keys)
        return published(controlplane).keys() == wanted

    until(f"the keys {wanted} are published, and no others", is_done)


def add(controlplane: ControlPlane, *keys: KeyPair) -> None:
    _patch(controlplane, {"data": {key.public.id: _text(key) for key in keys}})


def remove(controlplane: ControlPlane, *keys: KeyPair) -> None:
    _patch(controlplane, {"data": dict.fromkeys(key.public.id for key in keys)})


def damage(controlplane: ControlPlane, key: KeyPair) -> None:
    """Replace a key's entry with invalid data."""
    _patch(controlplane, {"data": {key.public.id: "eA=="}})


def empty(controlplane: ControlPlane) -> None:
    _patch(controlplane, {"data": None})


def requested(controlplane: ControlPlane) -> bool:
    """Return whether a rotation is requested."""
    return ANNOTATION in controlplane.request("GET", _SECRET_PATH)["metadata"].get("annotations", {})


def annotate(controlplane: ControlPlane, since: str) -> None:
    _patch(controlplane, {"metadata": {"annotations": {ANNOTATION: since}}})


def _patch(controlplane: ControlPlane, body: Json) -> None:
    controlplane.request("PATCH", f"{_SECRET_PATH}?{_BY_HAND}", body, MERGE)


def _text(key: KeyPair) -> str:
    return base64.b64encode(key.dump()).decode()


def stored(controlplane: ControlPlane) -> dict[str, KeyPair]:
    secret = controlplane.read(_SECRET_PATH) or {}
    data = secret.get("data") or {}
    return {name: KeyPair.load(base64.b64decode(text)) for name, text in data.items()}


def published(controlplane: ControlPlane) -> dict[str, str]:
    found: dict[str, str] = controlplane.request("GET", _CONFIGMAP_PATH).get("data") or {}
    return found


def newest(controlplane: ControlPlane) -> str:
    """Return the id of the newest published key; empty if there is none yet."""
    text = published(controlplane).get("newest")
    return PublicKey.parse(text).id if text else ""


def rotate(controlplane: ControlPlane) -> str:
    """Let the operator create a new key, and return its id."""
    before = newest(controlplane)
    annotate(controlplane, datetime.now(UTC).isoformat())
    until("a new key is published", lambda: newest(controlplane) != before)
    return newest(controlplane)


def is_published(controlplane: ControlPlane, ids: Iterable[str]) -> None:
    """Wait until exactly these keys are published."""
    wanted = {*ids, "newest"}
    until(f"the keys {wanted} are published", lambda: published(controlplane).keys() == wanted)


def put_sealed(account: Account, key: KeyPair, variable: str, value: bytes) -> str:
    """Apply a value that is sealed with one of several keys, and return the AccountSecret's name."""
    body = account.manifest(variable, b"")
    body["spec"]["sealed"] = key.public.seal(SecretBytes(value), account=account.name, name=variable)
    return account.apply(body)


def seed_forms(key: KeyPair) -> list[str]:
    """Return all encodings that would reveal a key's seed."""
    dump = key.dump()
    seed = key.seed.get_secret_value()
    return [json.loads(dump)["seed"], seed.hex(), base64.b64encode(seed).decode(), base64.b64encode(dump).decode()]
