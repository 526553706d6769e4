"""The sealing keys of a control plane, read and written past the operator. Imports account, chart."""

import base64
import json
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from pydantic import SecretBytes

from devbox_secrets.crypto.envelope import KeyPair, PublicKey
from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import NAMESPACE, Json, get, until

SECRET = ("secret", "devbox-secrets-keys", f"--namespace={NAMESPACE}")
CONFIGMAP = ("configmap", "devbox-secrets-public-keys", f"--namespace={NAMESPACE}")
ANNOTATION = "devbox-secrets.dev/rotate"


def made(**ago: float) -> KeyPair:
    """Make a key that is so old: made(days=1)."""
    return KeyPair.generate(datetime.now(UTC) - timedelta(**ago))


def store(controlplane: ControlPlane, *keys: KeyPair) -> None:
    """Make these the keys of the cluster, and no others: nothing is published yet, and no request stands."""
    controlplane.kubectl("patch", *CONFIGMAP, "--type=merge", "-p", '{"data": null}')
    # In one write: an operator that runs doesn't believe a Secret without any key.
    data: dict[str, str | None] = dict.fromkeys(get(controlplane, *SECRET).get("data") or {})
    data |= {key.public.id: _text(key) for key in keys}
    _patch(controlplane, {"metadata": {"annotations": {ANNOTATION: None}}, "data": data})


def add(controlplane: ControlPlane, *keys: KeyPair) -> None:
    _patch(controlplane, {"data": {key.public.id: _text(key) for key in keys}})


def remove(controlplane: ControlPlane, *keys: KeyPair) -> None:
    _patch(controlplane, {"data": dict.fromkeys(key.public.id for key in keys)})


def damage(controlplane: ControlPlane, key: KeyPair) -> None:
    """Put something else in a key's place."""
    _patch(controlplane, {"data": {key.public.id: "eA=="}})


def empty(controlplane: ControlPlane) -> None:
    _patch(controlplane, {"data": None})


def annotate(controlplane: ControlPlane, since: str) -> None:
    _patch(controlplane, {"metadata": {"annotations": {ANNOTATION: since}}})


def _patch(controlplane: ControlPlane, body: Json) -> None:
    controlplane.kubectl("patch", *SECRET, "--type=merge", "-p", json.dumps(body))


def _text(key: KeyPair) -> str:
    return base64.b64encode(key.dump()).decode()


def stored(controlplane: ControlPlane) -> dict[str, KeyPair]:
    data = get(controlplane, *SECRET).get("data") or {}
    return {name: KeyPair.load(base64.b64decode(text)) for name, text in data.items()}


def published(controlplane: ControlPlane) -> dict[str, str]:
    found: dict[str, str] = get(controlplane, *CONFIGMAP).get("data") or {}
    return found


def newest(controlplane: ControlPlane) -> str:
    """Give the id of the key that values are sealed with, nothing before there is one."""
    text = published(controlplane).get("newest")
    return PublicKey.parse(text).id if text else ""


def rotate(controlplane: ControlPlane) -> str:
    """Have the operator make a new key, and give its id."""
    before = newest(controlplane)
    annotate(controlplane, datetime.now(UTC).isoformat())
    until("a new key is published", lambda: newest(controlplane) != before)
    return newest(controlplane)


def is_published(controlplane: ControlPlane, ids: Iterable[str]) -> None:
    """Wait until these keys are published, and no others."""
    wanted = {*ids, "newest"}
    until(f"the keys {wanted} are published", lambda: published(controlplane).keys() == wanted)


def put_sealed(account: Account, key: KeyPair, variable: str, value: bytes) -> str:
    """Apply a value that is sealed with one key of several, and give the AccountSecret's name."""
    body = account.manifest(variable, b"")
    body["spec"]["sealed"] = key.public.seal(SecretBytes(value), account=account.name, name=variable)
    return account.apply(body)


def forms(key: KeyPair) -> list[str]:
    """Give every text by which a key's seed could be told."""
    dump = key.dump()
    seed = key.seed.get_secret_value()
    return [json.loads(dump)["seed"], seed.hex(), base64.b64encode(seed).decode(), base64.b64encode(dump).decode()]
