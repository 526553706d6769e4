"""What the API server takes as an AccountSecret, and the exact words when it doesn't."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.names import account_secrets_path
from devbox_secrets.api.validation import SEALED_MAX_LENGTH, VARIABLE_MAX_BYTES
from devbox_secrets.crypto.envelope import KeyPair
from harness.controlplane import ControlPlane

KEY = KeyPair.generate(datetime.now(UTC)).public
SEALED = KEY.seal(SecretBytes(b"value"), account="a", name="TOKEN")
LARGEST = KEY.seal(SecretBytes(b"x" * (VARIABLE_MAX_BYTES - 7)), account="a", name="TOKEN")
CANARY = "canary-plain-text-value"
SEAL_IT = "spec.sealed: Invalid value: is not a sealed value; seal it first: devbox-secrets seal TOKEN"
ONE_LINE = "spec.sealed: Invalid value: contains whitespace or a line break; write it on one line without whitespace"
RENAME = (
    "spec.name: Invalid value: must be the name of an environment variable: letters, digits and _,"
    " not starting with a digit, such as GITHUB_TOKEN"
)
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "Synced",
    "message": "why",
    "lastTransitionTime": "2026-01-01T00:00:00Z",
}
DURATION = "spec.rotateAfter: Invalid value: must be a number of days, hours or minutes, such as 90d or 12h"


def account_secret(**spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "devbox-secrets.dev/v1beta1",
        "kind": "AccountSecret",
        "metadata": {"name": "token"},
        "spec": {"name": "TOKEN", "sealed": SEALED, **spec},
    }


@dataclass(frozen=True)
class Bad:
    """An AccountSecret that is refused, and what its author reads."""

    about: str
    spec: dict[str, Any]
    says: str


GOOD: dict[str, dict[str, Any]] = {
    "the least": {},
    "all there is": {"description": "for CI", "rotateAfter": "90d"},
    "the largest value": {"sealed": LARGEST},
    "the shortest name": {"name": "_"},
    "the longest name": {"name": "A" * 253},
    "small letters": {"name": "http_proxy"},
    "twelve hours": {"rotateAfter": "12h"},
    "thirty minutes": {"rotateAfter": "30m"},
}
BAD = [
    Bad("plain text", {"sealed": CANARY}, SEAL_IT),
    Bad("nothing", {"sealed": ""}, SEAL_IT),
    Bad("plain text behind the right prefix", {"sealed": f"dbs1.{KEY.id}.{CANARY}"}, SEAL_IT),
    Bad("another version", {"sealed": SEALED.replace("dbs1", "dbs2")}, SEAL_IT),
    Bad("a line too many", {"sealed": f"{SEALED}\n{CANARY}"}, ONE_LINE),
    Bad("a line break at the end", {"sealed": f"{SEALED}\n"}, ONE_LINE),
    Bad("wrapped", {"sealed": f"{SEALED[:80]}\r\n  {SEALED[80:]}"}, ONE_LINE),
    Bad("a space before it", {"sealed": f" {SEALED}"}, ONE_LINE),
    Bad("plain text with a space", {"sealed": f"{CANARY} {CANARY}"}, SEAL_IT),
    Bad("padding", {"sealed": f"{SEALED}="}, SEAL_IT),
    Bad("cut short", {"sealed": SEALED[:1500]}, SEAL_IT),
    Bad("too long", {"sealed": SEALED + CANARY * 10_000}, f"may not be more than {SEALED_MAX_LENGTH} bytes"),
    Bad("no sealed value", {"sealed": None}, "spec.sealed: Required value"),
    Bad("a number", {"sealed": 4711}, "spec.sealed: Invalid value"),
    Bad("no name", {"name": None}, "spec.name: Required value"),
    Bad("an empty name", {"name": ""}, RENAME),
    Bad("a name with a dash", {"name": "GITHUB-TOKEN"}, RENAME),
    Bad("a name with a digit first", {"name": "1TOKEN"}, RENAME),
    Bad("a name beyond ASCII", {"name": "TÖKEN"}, RENAME),
    Bad("a name with a newline", {"name": "TOKEN\n"}, RENAME),
    Bad("a name too long", {"name": "A" * 254}, "spec.name: Too long: may not be more than 253 bytes"),
    Bad("a duration without a unit", {"rotateAfter": "90"}, DURATION),
    Bad("a duration in weeks", {"rotateAfter": "2w"}, DURATION),
    Bad("no time at all", {"rotateAfter": "0d"}, DURATION),
    Bad("a plain value's field", {"value": CANARY}, 'unknown field "spec.value"'),
    Bad("a long description", {"description": "x" * 1025}, "may not be more than 1024 bytes"),
]


pytestmark = pytest.mark.usefixtures("crds")


@pytest.mark.parametrize("spec", GOOD.values(), ids=GOOD)
def test_a_good_one_is_taken(spec: dict[str, Any], controlplane: ControlPlane, namespace: str) -> None:
    # Applied by kubectl, which keeps a copy of small objects in an annotation: the sealed text alone.
    manifest = json.dumps(account_secret(**spec))
    done = controlplane.kubectl("apply", "--server-side", "-n", namespace, "-f", "-", input=manifest)
    assert "serverside-applied" in done.stdout


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.about)
def test_a_bad_one_is_refused_with_what_to_do(bad: Bad, controlplane: ControlPlane, namespace: str) -> None:
    body = account_secret(**bad.spec)
    body["spec"] = {name: value for name, value in body["spec"].items() if value is not None}
    done = controlplane.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(body), check=False)
    assert done.returncode == 1
    assert bad.says in done.stderr
    # The API server repeats a field's value in some errors; never this one's.
    assert CANARY not in done.stderr


def test_the_name_cannot_be_changed_and_the_value_can(controlplane: ControlPlane, namespace: str) -> None:
    apply = ("apply", "-n", namespace, "-f", "-")
    controlplane.kubectl(*apply, input=json.dumps(account_secret()))
    renamed = controlplane.kubectl(*apply, input=json.dumps(account_secret(name="OTHER")), check=False)
    assert renamed.returncode == 1
    assert (
        "spec.name: Invalid value: is immutable; delete this AccountSecret and create one with the new name"
        in renamed.stderr
    )
    controlplane.kubectl(*apply, input=json.dumps(account_secret(sealed=LARGEST[:-1] + "A")))


def test_nobody_takes_a_new_one_for_ready(controlplane: ControlPlane, namespace: str) -> None:
    apply = ("apply", "-n", namespace, "--output=json", "-f", "-")
    created = json.loads(controlplane.kubectl(*apply, input=json.dumps(account_secret())).stdout)
    read = controlplane.read(account_secrets_path(namespace, "token"))
    assert read
    (ready,) = created["status"]["conditions"]
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "Unknown", "Pending")
    assert created["status"]["observedGeneration"] == -1
    assert created["status"] == read["status"]
    _, row = controlplane.kubectl("get", "acs", "-n", namespace).stdout.splitlines()
    assert row.split()[:4] == ["token", "TOKEN", "Unknown", "Pending"]
    waits = ("wait", "acs/token", "-n", namespace, "--for=condition=Ready", "--timeout=0.1s")
    assert controlplane.kubectl(*waits, check=False).returncode == 1
    # A default is nobody's, and no change for who applies the same again.
    assert not [entry for entry in read["metadata"].get("managedFields", ()) if "f:status" in entry["fieldsV1"]]
    controlplane.kubectl(*apply, input=json.dumps(account_secret()))
    assert controlplane.read(account_secrets_path(namespace, "token")) == read


BAD_STATUS: dict[str, tuple[dict[str, Any], str]] = {
    "an array in a time's place": (
        {"changedAt": []},
        'status.changedAt: Invalid value: "array": changedAt in body must be of type string: "array"',
    ),
    "a time of another zone": (
        {"changedAt": "9999-12-31T23:00:00-05:00"},
        "status.changedAt: Too long: may not be more than 20 bytes",
    ),
    "a fraction": (
        {"changedAt": "2026-01-01T00:00.0Z"},
        'status.changedAt: Invalid value: "2026-01-01T00:00.0Z": changedAt in body should match',
    ),
    "an array in a condition": (
        {"conditions": [{**READY, "lastTransitionTime": []}]},
        '"array": conditions[0].lastTransitionTime in body must be of type string',
    ),
    "a condition of no time": (
        {"conditions": [{**READY, "lastTransitionTime": "now"}]},
        '"now": conditions[0].lastTransitionTime in body should match',
    ),
}


@pytest.mark.parametrize("what", BAD_STATUS)
def test_a_status_that_nobody_could_read_is_refused(what: str, controlplane: ControlPlane, namespace: str) -> None:
    status, says = BAD_STATUS[what]
    controlplane.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(account_secret()))
    patch = ("patch", "acs", "token", "-n", namespace, "--subresource=status", "--type=merge", "-p")
    done = controlplane.kubectl(*patch, json.dumps({"status": status}), check=False)
    assert done.returncode == 1
    assert says in done.stderr


def test_it_is_found_by_its_variable(controlplane: ControlPlane, namespace: str) -> None:
    controlplane.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(account_secret()))
    find = ("get", "accountsecrets", "-n", namespace, "-o", "name", "--field-selector")
    assert controlplane.kubectl(*find, "spec.name=TOKEN").stdout.strip().endswith("/token")
    assert controlplane.kubectl(*find, "spec.name=OTHER").stdout == ""


def test_kubectl_get_is_readable_at_80_columns(controlplane: ControlPlane, namespace: str) -> None:
    body = account_secret(name="ANTHROPIC_API_KEY") | {"metadata": {"name": "anthropic-api-key"}}
    controlplane.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(body))
    status = {"keyId": KEY.id, "conditions": [READY]}
    patch = ("patch", "acs", "anthropic-api-key", "-n", namespace, "--subresource=status", "--type=merge", "-p")
    controlplane.kubectl(*patch, json.dumps({"status": status}))
    head, row = controlplane.kubectl("get", "acs", "-n", namespace).stdout.splitlines()
    assert head.split() == ["NAME", "VARIABLE", "READY", "REASON", "KEY", "AGE"]
    assert row.split()[:5] == ["anthropic-api-key", "ANTHROPIC_API_KEY", "True", "Synced", KEY.id]
    assert max(len(line) for line in (head, row)) <= 80


def test_kubectl_explain_says_what_a_field_is(controlplane: ControlPlane) -> None:
    for field, words in (
        ("spec.sealed", "devbox-secrets seal"),
        ("spec.name", "environment variable"),
        ("status.changedAt", "When the value last changed"),
    ):
        assert words in controlplane.kubectl("explain", f"accountsecrets.{field}").stdout
