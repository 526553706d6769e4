"""Values that the gateway took, after a rotation of the keys: sealed anew, and everything else as it was."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest
from pydantic import SecretBytes

from devbox_secrets.api.names import GATEWAY_FIELD_MANAGER
from devbox_secrets.controller.resealer import BATCH_SIZE
from devbox_secrets.crypto.envelope import key_id_of
from harness.controlplane import ControlPlane
from integration.support.account import SECRET, Account
from integration.support.chart import MANIFEST, NAMESPACE, Json, get, install, render, until
from integration.support.gateway import Gateway, gateway, new_account, token
from integration.support.processes import Operator, command, operator, seal
from integration.support.rights import EVERYWHERE_WITH_GATEWAY, IN_OPERATOR_NAMESPACE_WITH_GATEWAY, can_i, rights
from integration.support.sealing_keys import add, new_key, newest, rotate, stored

ENABLED = "--set=gateway.enabled=true"
SETTINGS = {"reseal_gateway_values": "true", "keys_refresh_seconds": "0.1", "rescan_seconds": "0.2"}
RESEALED = 'devbox_secrets_reseals_total{outcome="resealed"}'
FAILED = 'devbox_secrets_reseals_total{outcome="failed"}'
SECRET_WRITES = 'devbox_secrets_writes_total{resource="secret"}'  # noqa: S105 - a metric's name


@pytest.fixture(scope="module")
def controlplane() -> Iterator[ControlPlane]:
    """A control plane of our own: these tests rotate its keys, and none is ever taken away."""
    with ControlPlane.start() as it:
        install(it, ENABLED)
        yield it


@pytest.fixture(scope="module")
def running(controlplane: ControlPlane) -> Iterator[Operator]:
    with operator(controlplane, controlplane.folder, **SETTINGS) as it:
        yield it


@pytest.fixture(scope="module")
def rest(controlplane: ControlPlane) -> Iterator[Gateway]:
    with gateway(controlplane) as it:
        yield it


@pytest.fixture
def account(controlplane: ControlPlane, running: Operator) -> Account:
    """An account; what it seals itself has the key that is the newest now."""
    return Account.of(controlplane, new_account(controlplane))


@pytest.fixture
def start(
    controlplane: ControlPlane, running: Operator, tmp_path: Path
) -> Callable[[str], AbstractContextManager[Operator]]:
    """Run operators by name, for which the other one ends."""
    if running.component.is_running():
        running.component.stop()

    @contextmanager
    def run(name: str) -> Iterator[Operator]:
        (tmp_path / name).mkdir()
        with operator(controlplane, tmp_path / name, **SETTINGS) as it:
            yield it
            it.component.stop()  # so that it gives the Lease back, and the next needn't wait

    return run


@pytest.fixture
def api(controlplane: ControlPlane, rest: Gateway, account: Account) -> Iterator[httpx.Client]:
    with rest.client(token(controlplane, account.name)) as it:
        yield it


def put(api: httpx.Client, variable: str, value: str) -> Json:
    answer = api.post("/v1/secrets", json={"name": variable, "value": value})
    assert answer.is_success, answer.text
    found: Json = answer.json()
    return found


def take(account: Account, body: Json) -> str:
    """Create an AccountSecret as the gateway does, and give its name."""
    created = ("create", "-f", "-", f"--field-manager={GATEWAY_FIELD_MANAGER}")
    account.controlplane.kubectl(*created, input=json.dumps(body))
    name: str = body["metadata"]["name"]
    return name


def read(account: Account, name: str = "token") -> Json:
    return get(account.controlplane, "accountsecret", name, "-n", account.name)


def sealed(account: Account, name: str = "token") -> str:
    text: str = read(account, name)["spec"]["sealed"]
    return text


def moves(account: Account, key_id: str, name: str = "token") -> Json:
    """Wait until a value has this key, and its status says so; give the object."""

    def moved() -> Json:
        body = read(account, name)
        told = body["status"].get("observedGeneration") == body["metadata"]["generation"]
        return body if key_id_of(body["spec"]["sealed"]) == body["status"].get("keyId") == key_id and told else {}

    return until(f"{name} has the key {key_id}", moved)


def managers(body: Json) -> set[str]:
    """Name who holds the sealed value."""
    return {
        entry["manager"]
        for entry in body["metadata"]["managedFields"]
        if "f:sealed" in entry["fieldsV1"].get("f:spec", {})
    }


# --- What is sealed anew, and what stays


def test_after_a_rotation_a_value_has_the_newest_key_and_nothing_else_of_it_is_another(
    controlplane: ControlPlane, account: Account, api: httpx.Client, running: Operator
) -> None:
    secret = put(api, "TOKEN", "value")
    controlplane.kubectl(
        *("patch", "accountsecret", "token", "-n", account.name, "--type=merge"),
        *("-p", '{"metadata": {"labels": {"a": "b"}}, "spec": {"rotateAfter": "90d", "description": "for CI"}}'),
    )
    until("its status has the date", lambda: len(read(account)["status"].get("conditions", ())) == 2)
    account.is_ready("token")
    before, held = read(account), get(controlplane, "secret", SECRET, "-n", account.name)
    writes = running.metric(SECRET_WRITES)

    after = moves(account, rotate(controlplane))
    for field in ("uid", "creationTimestamp", "annotations", "labels"):
        assert after["metadata"][field] == before["metadata"][field]
    assert {**after["spec"], "sealed": ""} == {**before["spec"], "sealed": ""}
    follows = ("keyId", "observedGeneration", "conditions")
    assert {**after["status"], **dict.fromkeys(follows)} == {**before["status"], **dict.fromkeys(follows)}
    for was, now in zip(before["status"]["conditions"], after["status"]["conditions"], strict=True):
        assert {**now, "observedGeneration": 0} == {**was, "observedGeneration": 0}
    assert get(controlplane, "secret", SECRET, "-n", account.name) == held
    assert running.metric(SECRET_WRITES) == writes
    assert get(controlplane, "events", "-n", account.name)["items"] == []
    assert api.get("/v1/secrets/TOKEN").json() == secret
    assert managers(read_with_managers(account)) == {"devbox-secrets"}


def read_with_managers(account: Account) -> Json:
    return get(account.controlplane, "accountsecret", "token", "-n", account.name, "--show-managed-fields")


def test_it_moves_on_with_every_rotation_and_is_updated_as_before(
    controlplane: ControlPlane, account: Account, api: httpx.Client
) -> None:
    put(api, "TOKEN", "1")
    account.is_ready("token")
    moves(account, rotate(controlplane))
    moves(account, rotate(controlplane))
    account.holds({"TOKEN": b"1"})
    assert api.post("/v1/secrets/TOKEN", json={"value": "2"}).is_success
    account.holds({"TOKEN": b"2"})
    moves(account, rotate(controlplane))
    assert account.data() == {"TOKEN": b"2"}


def test_a_value_that_kubectl_made_and_the_gateway_replaced_is_sealed_anew(
    controlplane: ControlPlane, account: Account, api: httpx.Client
) -> None:
    account.put("TOKEN", b"from a file")
    assert api.post("/v1/secrets/TOKEN", json={"value": "from the gateway"}).is_success
    account.is_ready("token")
    moves(account, rotate(controlplane))


@pytest.mark.usefixtures("running")
def test_what_is_not_ready_for_another_reason_than_its_key_is_sealed_anew(
    controlplane: ControlPlane, account: Account
) -> None:
    made_twice = [take(account, account.manifest("TOKEN", b"1", name)) for name in ("one", "two")]
    # Of the same second, perhaps: then it's the uid that counts.
    metadata = {name: read(account, name)["metadata"] for name in made_twice}
    owner, other = sorted(metadata, key=lambda name: (metadata[name]["creationTimestamp"], metadata[name]["uid"]))
    reserved = take(account, account.manifest("LD_PRELOAD", b"3", "reserved"))
    reasons = {owner: "Synced", other: "NameConflict", reserved: "ReservedName"}
    for name, reason in reasons.items():
        account.is_ready(name, reason)
    events = ("events", "-n", account.name)
    until("the two Events are there", lambda: len(get(controlplane, *events)["items"]) == 2)
    key_id = rotate(controlplane)
    for name, reason in reasons.items():
        moves(account, key_id, name)
        account.is_ready(name, reason)
    assert len(get(controlplane, *events)["items"]) == 2


OTHERS = {
    "apply": ("apply",),
    "apply, server-side": ("apply", "--server-side"),
    "create": ("create",),
    "Flux": ("apply", "--server-side", "--field-manager=kustomize-controller"),
    "Argo CD": ("apply", "--server-side", "--field-manager=argocd-controller"),
}


@pytest.mark.parametrize("who", [*OTHERS, "the command", "someone who replaced it", "someone who applied a copy"])
def test_what_others_own_stays_as_it_is(
    who: str, controlplane: ControlPlane, account: Account, api: httpx.Client
) -> None:
    body = account.manifest("TOKEN", b"theirs")
    if who in OTHERS:
        controlplane.kubectl(*OTHERS[who], "-f", "-", input=json.dumps(body))
    elif who == "the command":
        assert seal(controlplane, "TOKEN", b"theirs", account.name, "--apply").returncode == 0
    else:
        put(api, "TOKEN", "the gateway's")
        if who == "someone who applied a copy":
            body["spec"]["sealed"] = sealed(account)
        controlplane.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", input=json.dumps(body))
    put(api, "NEIGHBOUR", "x")
    account.is_ready("token")
    account.is_ready("neighbour")
    text = sealed(account)
    moves(account, rotate(controlplane), "neighbour")
    assert sealed(account) == text
    account.is_ready("token")


def test_what_does_not_open_is_left_alone_with_its_reason(
    controlplane: ControlPlane, account: Account, api: httpx.Client
) -> None:
    copied = take(account, account.manifest("TOKEN", b"x", "copied", sealed_for="elsewhere"))
    strange = account.manifest("STRANGE", b"x", "strange")
    strange["spec"]["sealed"] = new_key().public.seal(SecretBytes(b"x"), account=account.name, name="STRANGE")
    take(account, strange)
    put(api, "NEIGHBOUR", "x")
    texts = sealed(account, "copied"), sealed(account, "strange")
    account.is_ready("neighbour")
    moves(account, rotate(controlplane), "neighbour")
    assert (sealed(account, "copied"), sealed(account, "strange")) == texts
    account.is_ready(copied, "CannotOpen")
    account.is_ready("strange", "UnknownKey")


# --- What goes wrong


def test_a_policy_that_refuses_one_account_holds_back_no_other_and_is_told(
    controlplane: ControlPlane, account: Account, api: httpx.Client, running: Operator
) -> None:
    put(api, "TOKEN", "x")
    account.is_ready("token")
    closed = account.member(closed="true")
    take(closed, closed.manifest("TOKEN", b"y"))
    closed.is_ready("token")
    with no_updates(controlplane):
        key_id = rotate(controlplane)
        moves(account, key_id)
        until("it's counted", lambda: running.metric(FAILED) >= 1)
        until("it's told", lambda: "failed to reseal values: 1; first error: PATCH" in running.log)
        assert "nothing changes here" in running.log
        closed.is_ready("token")
        closed.holds({"TOKEN": b"y"})
    moves(closed, key_id)


@contextmanager
def no_updates(controlplane: ControlPlane) -> Iterator[None]:
    """Have a policy refuse changes of AccountSecrets in namespaces with the label closed=true, statuses excepted."""
    rule = {"apiGroups": ["*"], "apiVersions": ["*"], "resources": ["accountsecrets"], "operations": ["UPDATE"]}
    policy = {
        "matchConstraints": {"namespaceSelector": {"matchLabels": {"closed": "true"}}, "resourceRules": [rule]},
        "validations": [{"expression": "false", "message": "nothing changes here"}],
    }
    binding = {"policyName": "no-updates", "validationActions": ["Deny"]}
    bodies = [
        {
            "apiVersion": "admissionregistration.k8s.io/v1",
            "kind": kind,
            "metadata": {"name": "no-updates"},
            "spec": spec,
        }
        for kind, spec in (("ValidatingAdmissionPolicy", policy), ("ValidatingAdmissionPolicyBinding", binding))
    ]
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": bodies})
    controlplane.kubectl("apply", "-f", "-", input=text)
    box = Account(controlplane, new_key().public, "default").member(closed="true")
    name = box.put("TOKEN", b"x")
    patch = ("patch", "accountsecret", name, "-n", box.name, "--type=merge", "-p", '{"spec": {"description": "b"}}')
    until("it refuses", lambda: controlplane.kubectl(*patch, "--dry-run=server", check=False).returncode != 0)
    try:
        yield
    finally:
        controlplane.kubectl("delete", "-f", "-", input=text)


def test_without_the_right_everything_else_goes_on(
    controlplane: ControlPlane, account: Account, api: httpx.Client, running: Operator
) -> None:
    put(api, "TOKEN", "1")
    account.is_ready("token")
    controlplane.kubectl("apply", f"--filename={MANIFEST}")
    may = ("auth", "can-i", "patch", "accountsecrets", "-A", f"--as=system:serviceaccount:{NAMESPACE}:devbox-secrets")
    try:
        until("the API server knows", lambda: controlplane.kubectl(*may, check=False).stdout.strip() == "no")
        text = sealed(account)  # not before: the gateway may have had the key before this one, too
        key_id = rotate(controlplane)
        until("it's told", lambda: 'cannot patch resource "accountsecrets"' in running.log)
        put(api, "OTHER", "2")
        account.holds({"TOKEN": b"1", "OTHER": b"2"})
        account.is_ready("token")
        assert sealed(account) == text
    finally:
        install(controlplane, ENABLED)
    moves(account, key_id)


def test_a_key_that_the_gateway_may_still_seal_with_is_not_pruned(
    controlplane: ControlPlane, account: Account, api: httpx.Client
) -> None:
    put(api, "TOKEN", "1")
    old = newest(controlplane)
    rotate(controlplane)
    pruned = command(controlplane.kubeconfig, "keys", "prune", "--yes")
    moves(account, newest(controlplane))
    named = command(controlplane.kubeconfig, "keys", "prune", old, "--yes")
    put(api, "OTHER", "2")
    account.is_ready("other")
    assert old not in pruned.stdout
    assert f"{old} was the newest key until just now" in named.stderr


# --- What begins and ends with an operator of its own


Start = Callable[[str], AbstractContextManager[Operator]]


def test_afterwards_the_older_key_can_go(controlplane: ControlPlane, start: Start) -> None:
    with start("first"):
        old, _ = rotate(controlplane), rotate(controlplane)
        account = Account.of(controlplane, new_account(controlplane))
        body = account.manifest("TOKEN", b"value")
        body["spec"]["sealed"] = stored(controlplane)[old].public.seal(
            SecretBytes(b"value"), account=account.name, name="TOKEN"
        )
        moves(account, newest(controlplane), take(account, body))
        prune = partial(command, controlplane.kubeconfig, "keys", "prune", old, "--yes")
        # Other tests' values need it, too, until they have moved on; and a gateway for half a minute.
        until("nothing needs it", lambda: prune().returncode == 0, seconds=60)
    with start("second") as it:
        until("every account was looked at", lambda: it.metric("devbox_secrets_opens_total"))
        until("nothing waits", lambda: not it.metric("devbox_secrets_workqueue_depth"))
        account.is_ready("token")
        account.holds({"TOKEN": b"value"})
        assert it.metric(SECRET_WRITES) == 0


def test_a_restart_beside_very_many_keys_writes_nothing(controlplane: ControlPlane, start: Start) -> None:
    with start("first"):
        account = Account.of(controlplane, new_account(controlplane))
        account.is_ready(take(account, account.manifest("TOKEN", b"1")))
        add(controlplane, *(new_key(days=100 + number) for number in range(200)))
        moves(account, rotate(controlplane))
        before = read(account)
    with start("second") as it:
        # Sealed with a key that isn't the newest any more.
        late = replace(account, name=new_account(controlplane))
        take(late, late.manifest("TOKEN", b"x"))
        moves(late, newest(controlplane))
        # So it has looked for such values, and found all others as they should be.
        assert it.metric(RESEALED) == 1
        assert read(account) == before


def test_a_writer_that_hangs_amid_it_undoes_nothing_of_what_comes_meanwhile(
    controlplane: ControlPlane, start: Start
) -> None:
    with start("one") as one, start("two") as two:
        account = Account.of(controlplane, new_account(controlplane))
        variables = [f"V{number}" for number in range(3 * BATCH_SIZE)]
        items = [account.manifest(variable, b"1") for variable in variables]
        take_all(account, "create", items)
        account.holds(dict.fromkeys(variables, b"1"))
        first, then = sorted((one, two), key=lambda it: it.metric("devbox_secrets_leader"), reverse=True)
        key_id = rotate(controlplane)
        until("it has begun", lambda: first.metric(RESEALED))
        os.kill(first.component.pid, signal.SIGSTOP)
        try:
            late = [account.manifest(variable, b"2") for variable in variables[::10]]
            take_all(account, "replace", late)
            until("the other writes", lambda: then.metric("devbox_secrets_leader"))
        finally:
            os.kill(first.component.pid, signal.SIGCONT)
        until("it knows that it's not the writer", lambda: "lost the lease" in first.log)
        until("all have moved on", lambda: keys_of(account) == {key_id})
        account.holds(dict.fromkeys(variables, b"1") | dict.fromkeys(variables[::10], b"2"))


def take_all(account: Account, how: str, items: list[Json]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    account.controlplane.kubectl(how, "-f", "-", f"--field-manager={GATEWAY_FIELD_MANAGER}", input=text)


def keys_of(account: Account) -> set[str]:
    items = get(account.controlplane, "accountsecrets", "-n", account.name)["items"]
    return {key_id_of(item["spec"]["sealed"]) for item in items}


# --- Rights


def test_with_the_gateway_the_operator_may_patch_accountsecrets_and_nothing_else_more(
    controlplane: ControlPlane,
) -> None:
    kubeconfig = controlplane.service_account_kubeconfig(NAMESPACE, "devbox-secrets")
    assert rights(can_i(controlplane, "default", kubeconfig=kubeconfig)) == EVERYWHERE_WITH_GATEWAY
    assert rights(can_i(controlplane, NAMESPACE, kubeconfig=kubeconfig)) == IN_OPERATOR_NAMESPACE_WITH_GATEWAY


def test_without_the_gateway_the_operator_is_not_told_to() -> None:
    assert "DEVBOX_SECRETS_RESEAL_GATEWAY_VALUES" not in render().stdout
    assert "DEVBOX_SECRETS_RESEAL_GATEWAY_VALUES" in render(ENABLED).stdout
