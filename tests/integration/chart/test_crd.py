"""The API server accepts valid AccountSecrets and rejects others with the CRD's messages."""

import json
import re
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
class Invalid:
    """An AccountSecret that the API server rejects, and its message."""

    about: str
    spec: dict[str, Any]
    message: str


VALID: dict[str, dict[str, Any]] = {
    "only required fields": {},
    "all fields": {"description": "for CI", "rotateAfter": "90d"},
    "the largest value": {"sealed": LARGEST},
    "the shortest name": {"name": "_"},
    "the longest name": {"name": "A" * 253},
    "lowercase letters": {"name": "http_proxy"},
    "twelve hours": {"rotateAfter": "12h"},
    "thirty minutes": {"rotateAfter": "30m"},
}
INVALID = [
    Invalid("plain text", {"sealed": CANARY}, SEAL_IT),
    Invalid("an empty value", {"sealed": ""}, SEAL_IT),
    Invalid("plain text after a valid prefix", {"sealed": f"dbs1.{KEY.id}.{CANARY}"}, SEAL_IT),
    Invalid("another version", {"sealed": SEALED.replace("dbs1", "dbs2")}, SEAL_IT),
    Invalid("an extra line", {"sealed": f"{SEALED}\n{CANARY}"}, ONE_LINE),
    Invalid("a line break at the end", {"sealed": f"{SEALED}\n"}, ONE_LINE),
    Invalid("wrapped", {"sealed": f"{SEALED[:80]}\r\n  {SEALED[80:]}"}, ONE_LINE),
    Invalid("a space before it", {"sealed": f" {SEALED}"}, ONE_LINE),
    Invalid("plain text with a space", {"sealed": f"{CANARY} {CANARY}"}, SEAL_IT),
    Invalid("padding", {"sealed": f"{SEALED}="}, SEAL_IT),
    Invalid("cut short", {"sealed": SEALED[:1500]}, SEAL_IT),
    Invalid("too long", {"sealed": SEALED + CANARY * 10_000}, f"may not be more than {SEALED_MAX_LENGTH} bytes"),
    Invalid("no sealed value", {"sealed": None}, "spec.sealed: Required value"),
    Invalid("a number", {"sealed": 4711}, "spec.sealed: Invalid value"),
    Invalid("no name", {"name": None}, "spec.name: Required value"),
    Invalid("an empty name", {"name": ""}, RENAME),
    Invalid("a name with a dash", {"name": "GITHUB-TOKEN"}, RENAME),
    Invalid("a name that starts with a digit", {"name": "1TOKEN"}, RENAME),
    Invalid("a non-ASCII name", {"name": "TÖKEN"}, RENAME),
    Invalid("a name with a newline", {"name": "TOKEN\n"}, RENAME),
    Invalid("a name that is too long", {"name": "A" * 254}, "spec.name: Too long: may not be more than 253 bytes"),
    Invalid("a duration without a unit", {"rotateAfter": "90"}, DURATION),
    Invalid("a duration in weeks", {"rotateAfter": "2w"}, DURATION),
    Invalid("a duration of zero", {"rotateAfter": "0d"}, DURATION),
    Invalid("an unknown field for a plain value", {"value": CANARY}, 'unknown field "spec.value"'),
    Invalid("a long description", {"description": "x" * 1025}, "may not be more than 1024 bytes"),
]


pytestmark = pytest.mark.usefixtures("crds")


@pytest.mark.parametrize("spec", VALID.values(), ids=VALID)
def test_valid_account_secrets_are_accepted(spec: dict[str, Any], controlplane: ControlPlane, namespace: str) -> None:
    manifest = json.dumps(account_secret(**spec))
    done = controlplane.kubectl("apply", "--server-side", "-n", namespace, "-f", "-", input=manifest)
    assert "serverside-applied" in done.stdout


@pytest.mark.parametrize("invalid", INVALID, ids=lambda invalid: invalid.about)
def test_invalid_account_secrets_are_rejected_with_a_helpful_message(
    invalid: Invalid, controlplane: ControlPlane, namespace: str
) -> None:
    body = account_secret(**invalid.spec)
    body["spec"] = {name: value for name, value in body["spec"].items() if value is not None}
    done = controlplane.kubectl("create", "-n", namespace, "-f", "-", input=json.dumps(body), check=False)
    assert done.returncode == 1
    assert invalid.message in done.stderr
    # The API server repeats a field's value in some errors, but not in this one.
    assert CANARY not in done.stderr


def test_the_variable_is_immutable_and_the_value_is_not(controlplane: ControlPlane, namespace: str) -> None:
    apply = ("apply", "-n", namespace, "-f", "-")
    controlplane.kubectl(*apply, input=json.dumps(account_secret()))
    renamed = controlplane.kubectl(*apply, input=json.dumps(account_secret(name="OTHER")), check=False)
    assert renamed.returncode == 1
    assert (
        "spec.name: Invalid value: is immutable; delete this AccountSecret and create one with the new name"
        in renamed.stderr
    )
    controlplane.kubectl(*apply, input=json.dumps(account_secret(sealed=LARGEST[:-1] + "A")))


def test_a_new_account_secret_is_not_reported_as_ready(controlplane: ControlPlane, namespace: str) -> None:
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
    # No field manager owns the default, and applying the same manifest again changes nothing.
    assert not [entry for entry in read["metadata"].get("managedFields", ()) if "f:status" in entry["fieldsV1"]]
    controlplane.kubectl(*apply, input=json.dumps(account_secret()))
    assert controlplane.read(account_secrets_path(namespace, "token")) == read


INVALID_STATUS: dict[str, tuple[dict[str, Any], str]] = {
    "an array instead of a time": (
        {"changedAt": []},
        'status.changedAt: Invalid value: "array": changedAt in body must be of type string: "array"',
    ),
    "a time in another time zone": (
        {"changedAt": "9999-12-31T23:00:00-05:00"},
        "status.changedAt: Too long: may not be more than 20 bytes",
    ),
    "a time without seconds": (
        {"changedAt": "2026-01-01T00:00.0Z"},
        'status.changedAt: Invalid value: "2026-01-01T00:00.0Z": changedAt in body should match',
    ),
    "an array as a condition's time": (
        {"conditions": [{**READY, "lastTransitionTime": []}]},
        '"array": conditions[0].lastTransitionTime in body must be of type string',
    ),
    "text as a condition's time": (
        {"conditions": [{**READY, "lastTransitionTime": "now"}]},
        '"now": conditions[0].lastTransitionTime in body should match',
    ),
}


@pytest.mark.parametrize("what", INVALID_STATUS)
def test_a_status_with_an_invalid_time_is_rejected(what: str, controlplane: ControlPlane, namespace: str) -> None:
    status, message = INVALID_STATUS[what]
    controlplane.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(account_secret()))
    patch = ("patch", "acs", "token", "-n", namespace, "--subresource=status", "--type=merge", "-p")
    done = controlplane.kubectl(*patch, json.dumps({"status": status}), check=False)
    assert done.returncode == 1
    assert message in done.stderr


def test_the_field_selector_finds_an_account_secret_by_its_variable(controlplane: ControlPlane, namespace: str) -> None:
    controlplane.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(account_secret()))
    find = ("get", "accountsecrets", "-n", namespace, "-o", "name", "--field-selector")
    assert controlplane.kubectl(*find, "spec.name=TOKEN").stdout.strip().endswith("/token")
    assert controlplane.kubectl(*find, "spec.name=OTHER").stdout == ""


def test_kubectl_get_fits_into_80_columns(controlplane: ControlPlane, namespace: str) -> None:
    body = account_secret(name="ANTHROPIC_API_KEY") | {"metadata": {"name": "anthropic-api-key"}}
    controlplane.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(body))
    status = {"changedAt": "2026-01-01T00:00:00Z", "conditions": [READY]}
    patch = ("patch", "acs", "anthropic-api-key", "-n", namespace, "--subresource=status", "--type=merge", "-p")
    controlplane.kubectl(*patch, json.dumps({"status": status}))
    head, row = controlplane.kubectl("get", "acs", "-n", namespace).stdout.splitlines()
    assert head.split() == ["NAME", "VARIABLE", "READY", "REASON", "CHANGED", "AGE"]
    assert re.fullmatch(r"anthropic-api-key +ANTHROPIC_API_KEY +True +Synced +\d+d +\d+s *", row)
    assert max(len(line) for line in (head, row)) <= 80


def test_kubectl_explain_describes_the_fields(controlplane: ControlPlane) -> None:
    for field, words in (
        ("spec.sealed", "devbox-secrets seal"),
        ("spec.name", "environment variable"),
        ("status.changedAt", "When the value last changed"),
    ):
        assert words in controlplane.kubectl("explain", f"accountsecrets.{field}").stdout
