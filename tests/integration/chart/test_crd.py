"""What the API server takes as an AccountSecret, and the exact words when it doesn't."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import SecretBytes

from devbox_secrets.api.validation import SEALED_MAX_LENGTH, VARIABLE_MAX_BYTES
from devbox_secrets.crypto.envelope import KeyPair
from harness.controlplane import ControlPlane

KEY = KeyPair.generate(datetime.now(UTC)).public
SEALED = KEY.seal(SecretBytes(b"value"), account="a", name="TOKEN")
LARGEST = KEY.seal(SecretBytes(b"x" * (VARIABLE_MAX_BYTES - 7)), account="a", name="TOKEN")
CANARY = "canary-plain-text-value"
SEAL_IT = "spec.sealed: Invalid value: is not a sealed value; seal it first: devbox-secrets seal TOKEN"
RENAME = (
    "spec.name: Invalid value: must be the name of an environment variable: letters, digits and _,"
    " not starting with a digit, such as GITHUB_TOKEN"
)
DURATION = "spec.rotateAfter: Invalid value: must be a number of days, hours or minutes, such as 90d or 12h"


def account_secret(**spec: object) -> dict[str, Any]:
    return {
        "apiVersion": "devbox-secrets.dev/v1alpha1",
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
    Bad("a line too many", {"sealed": f"{SEALED}\n{CANARY}"}, SEAL_IT),
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
        "spec.name: Invalid value: can't be changed: delete this AccountSecret and create another with the new name"
        in renamed.stderr
    )
    controlplane.kubectl(*apply, input=json.dumps(account_secret(sealed=LARGEST[:-1] + "A")))


def test_it_is_found_by_its_variable(controlplane: ControlPlane, namespace: str) -> None:
    controlplane.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(account_secret()))
    find = ("get", "accountsecrets", "-n", namespace, "-o", "name", "--field-selector")
    assert controlplane.kubectl(*find, "spec.name=TOKEN").stdout.strip().endswith("/token")
    assert controlplane.kubectl(*find, "spec.name=OTHER").stdout == ""


def test_kubectl_get_is_readable_at_80_columns(controlplane: ControlPlane, namespace: str) -> None:
    body = account_secret(name="ANTHROPIC_API_KEY") | {"metadata": {"name": "anthropic-api-key"}}
    controlplane.kubectl("apply", "-n", namespace, "-f", "-", input=json.dumps(body))
    status = {
        "keyId": KEY.id,
        "conditions": [
            {
                "type": "Ready",
                "status": "True",
                "reason": "Synced",
                "message": "why",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
        ],
    }
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
