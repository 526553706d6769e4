"""After a key rotation, the operator reseals the gateway's values and changes nothing else."""

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
    """A separate control plane, because these tests rotate its keys; they never remove one."""
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
    """An account that seals values with the currently newest key."""
    return Account.of(controlplane, new_account(controlplane))


@pytest.fixture
def start(
    controlplane: ControlPlane, running: Operator, tmp_path: Path
) -> Callable[[str], AbstractContextManager[Operator]]:
    """Return a function that runs an operator with a named log folder; the shared operator is stopped."""
    if running.component.is_running():
        running.component.stop()

    @contextmanager
    def run(name: str) -> Iterator[Operator]:
        (tmp_path / name).mkdir()
        with operator(controlplane, tmp_path / name, **SETTINGS) as it:
            yield it
            it.component.stop()  # so that it releases the Lease, and the next one needn't wait

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


def create_as_gateway(account: Account, body: Json) -> str:
    """Create an AccountSecret as the gateway does, and return its name."""
    created = ("create", "-f", "-", f"--field-manager={GATEWAY_FIELD_MANAGER}")
    account.controlplane.kubectl(*created, input=json.dumps(body))
    name: str = body["metadata"]["name"]
    return name


def read(account: Account, name: str = "token") -> Json:
    return get(account.controlplane, "accountsecret", name, "-n", account.name)


def sealed(account: Account, name: str = "token") -> str:
    text: str = read(account, name)["spec"]["sealed"]
    return text


def wait_until_resealed(account: Account, key_id: str, name: str = "token") -> Json:
    """Wait until a value is sealed with this key and its status says so; return the object."""

    def resealed() -> Json:
        body = read(account, name)
        current = body["status"].get("observedGeneration") == body["metadata"]["generation"]
        return body if key_id_of(body["spec"]["sealed"]) == body["status"].get("keyId") == key_id and current else {}

    return until(f"{name} is sealed with the key {key_id}", resealed)


def managers(body: Json) -> set[str]:
    """Return the field managers of the sealed value."""
    return {
        entry["manager"]
        for entry in body["metadata"]["managedFields"]
        if "f:sealed" in entry["fieldsV1"].get("f:spec", {})
    }


# --- What is resealed, and what isn't


def test_after_a_rotation_a_value_is_resealed_and_otherwise_unchanged(
    controlplane: ControlPlane, account: Account, api: httpx.Client, running: Operator
) -> None:
    secret = put(api, "TOKEN", "value")
    controlplane.kubectl(
        *("patch", "accountsecret", "token", "-n", account.name, "--type=merge"),
        *("-p", '{"metadata": {"labels": {"a": "b"}}, "spec": {"rotateAfter": "90d", "description": "for CI"}}'),
    )
    until("its status has both conditions", lambda: len(read(account)["status"].get("conditions", ())) == 2)
    account.is_ready("token")
    before, held = read(account), get(controlplane, "secret", SECRET, "-n", account.name)
    writes = running.metric(SECRET_WRITES)

    after = wait_until_resealed(account, rotate(controlplane))
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


def test_a_value_is_resealed_after_every_rotation_and_can_still_be_updated(
    controlplane: ControlPlane, account: Account, api: httpx.Client
) -> None:
    put(api, "TOKEN", "1")
    account.is_ready("token")
    wait_until_resealed(account, rotate(controlplane))
    wait_until_resealed(account, rotate(controlplane))
    account.holds({"TOKEN": b"1"})
    assert api.post("/v1/secrets/TOKEN", json={"value": "2"}).is_success
    account.holds({"TOKEN": b"2"})
    wait_until_resealed(account, rotate(controlplane))
    assert account.data() == {"TOKEN": b"2"}


def test_a_value_that_kubectl_created_and_the_gateway_replaced_is_resealed(
    controlplane: ControlPlane, account: Account, api: httpx.Client
) -> None:
    account.put("TOKEN", b"from a file")
    assert api.post("/v1/secrets/TOKEN", json={"value": "from the gateway"}).is_success
    account.is_ready("token")
    wait_until_resealed(account, rotate(controlplane))


@pytest.mark.usefixtures("running")
def test_a_value_that_is_not_ready_for_another_reason_is_resealed(controlplane: ControlPlane, account: Account) -> None:
    both = [create_as_gateway(account, account.manifest("TOKEN", b"1", name)) for name in ("one", "two")]
    # If they were created in the same second, the uid decides.
    metadata = {name: read(account, name)["metadata"] for name in both}
    owner, other = sorted(metadata, key=lambda name: (metadata[name]["creationTimestamp"], metadata[name]["uid"]))
    reserved = create_as_gateway(account, account.manifest("LD_PRELOAD", b"3", "reserved"))
    reasons = {owner: "Synced", other: "NameConflict", reserved: "ReservedName"}
    for name, reason in reasons.items():
        account.is_ready(name, reason)
    events = ("events", "-n", account.name)
    until("both Events exist", lambda: len(get(controlplane, *events)["items"]) == 2)
    key_id = rotate(controlplane)
    for name, reason in reasons.items():
        wait_until_resealed(account, key_id, name)
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
def test_other_field_managers_values_are_not_changed(
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
    put(api, "NEIGHBOR", "x")
    account.is_ready("token")
    account.is_ready("neighbor")
    text = sealed(account)
    wait_until_resealed(account, rotate(controlplane), "neighbor")
    assert sealed(account) == text
    account.is_ready("token")


def test_a_value_that_cannot_be_opened_is_not_changed_and_keeps_its_reason(
    controlplane: ControlPlane, account: Account, api: httpx.Client
) -> None:
    copied = create_as_gateway(account, account.manifest("TOKEN", b"x", "copied", sealed_for="elsewhere"))
    strange = account.manifest("STRANGE", b"x", "strange")
    strange["spec"]["sealed"] = new_key().public.seal(SecretBytes(b"x"), account=account.name, name="STRANGE")
    create_as_gateway(account, strange)
    put(api, "NEIGHBOR", "x")
    texts = sealed(account, "copied"), sealed(account, "strange")
    account.is_ready("neighbor")
    wait_until_resealed(account, rotate(controlplane), "neighbor")
    assert (sealed(account, "copied"), sealed(account, "strange")) == texts
    account.is_ready(copied, "CannotOpen")
    account.is_ready("strange", "UnknownKey")


# --- Failures


def test_a_policy_that_rejects_one_account_is_reported_and_blocks_no_other(
    controlplane: ControlPlane, account: Account, api: httpx.Client, running: Operator
) -> None:
    put(api, "TOKEN", "x")
    account.is_ready("token")
    closed = account.member(closed="true")
    create_as_gateway(closed, closed.manifest("TOKEN", b"y"))
    closed.is_ready("token")
    with no_updates(controlplane):
        key_id = rotate(controlplane)
        wait_until_resealed(account, key_id)
        until("it's counted", lambda: running.metric(FAILED) >= 1)
        until("it's logged", lambda: "failed to reseal values: 1; first error: PATCH" in running.log)
        assert "nothing changes here" in running.log
        closed.is_ready("token")
        closed.holds({"TOKEN": b"y"})
    wait_until_resealed(closed, key_id)


@contextmanager
def no_updates(controlplane: ControlPlane) -> Iterator[None]:
    """Let a policy reject changes of AccountSecrets, but not of statuses, in namespaces with the label closed=true."""
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
    until(
        "the policy is in force", lambda: controlplane.kubectl(*patch, "--dry-run=server", check=False).returncode != 0
    )
    try:
        yield
    finally:
        controlplane.kubectl("delete", "-f", "-", input=text)


def test_without_the_permission_everything_else_works(
    controlplane: ControlPlane, account: Account, api: httpx.Client, running: Operator
) -> None:
    put(api, "TOKEN", "1")
    account.is_ready("token")
    controlplane.kubectl("apply", f"--filename={MANIFEST}")
    may = ("auth", "can-i", "patch", "accountsecrets", "-A", f"--as=system:serviceaccount:{NAMESPACE}:devbox-secrets")
    try:
        until("the permission is revoked", lambda: controlplane.kubectl(*may, check=False).stdout.strip() == "no")
        text = sealed(account)  # not before: if the gateway sealed with an older key, the value was resealed meanwhile
        key_id = rotate(controlplane)
        until("it's logged", lambda: 'cannot patch resource "accountsecrets"' in running.log)
        put(api, "OTHER", "2")
        account.holds({"TOKEN": b"1", "OTHER": b"2"})
        account.is_ready("token")
        assert sealed(account) == text
    finally:
        install(controlplane, ENABLED)
    wait_until_resealed(account, key_id)


def test_a_key_that_the_gateway_may_still_seal_with_is_not_pruned(
    controlplane: ControlPlane, account: Account, api: httpx.Client
) -> None:
    put(api, "TOKEN", "1")
    old = newest(controlplane)
    rotate(controlplane)
    pruned = command(controlplane.kubeconfig, "keys", "prune", "--yes")
    wait_until_resealed(account, newest(controlplane))
    named = command(controlplane.kubeconfig, "keys", "prune", old, "--yes")
    put(api, "OTHER", "2")
    account.is_ready("other")
    assert old not in pruned.stdout
    assert f"{old} was the newest key until just now" in named.stderr


# --- Tests that run their own operators


Start = Callable[[str], AbstractContextManager[Operator]]


def test_afterwards_the_older_key_can_be_pruned(controlplane: ControlPlane, start: Start) -> None:
    with start("first"):
        old, _ = rotate(controlplane), rotate(controlplane)
        account = Account.of(controlplane, new_account(controlplane))
        body = account.manifest("TOKEN", b"value")
        body["spec"]["sealed"] = stored(controlplane)[old].public.seal(
            SecretBytes(b"value"), account=account.name, name="TOKEN"
        )
        wait_until_resealed(account, newest(controlplane), create_as_gateway(account, body))
        prune = partial(command, controlplane.kubeconfig, "keys", "prune", old, "--yes")
        # Other tests' values need it until they are resealed, and the gateway for half a minute.
        until("the key is unused", lambda: prune().returncode == 0, seconds=60)
    with start("second") as it:
        until("it has opened values", lambda: it.metric("devbox_secrets_opens_total"))
        until("the queue is empty", lambda: not it.metric("devbox_secrets_workqueue_depth"))
        account.is_ready("token")
        account.holds({"TOKEN": b"value"})
        assert it.metric(SECRET_WRITES) == 0


def test_a_restart_with_very_many_keys_writes_nothing(controlplane: ControlPlane, start: Start) -> None:
    with start("first"):
        account = Account.of(controlplane, new_account(controlplane))
        account.is_ready(create_as_gateway(account, account.manifest("TOKEN", b"1")))
        add(controlplane, *(new_key(days=100 + number) for number in range(200)))
        wait_until_resealed(account, rotate(controlplane))
        before = read(account)
    with start("second") as it:
        # Sealed with a key that is no longer the newest.
        late = replace(account, name=new_account(controlplane))
        create_as_gateway(late, late.manifest("TOKEN", b"x"))
        wait_until_resealed(late, newest(controlplane))
        # So it has looked for such values, and no other had to be resealed.
        assert it.metric(RESEALED) == 1
        assert read(account) == before


def test_a_leader_that_hangs_while_resealing_overwrites_no_newer_value(
    controlplane: ControlPlane, start: Start
) -> None:
    with start("one") as one, start("two") as two:
        account = Account.of(controlplane, new_account(controlplane))
        variables = [f"V{number}" for number in range(3 * BATCH_SIZE)]
        items = [account.manifest(variable, b"1") for variable in variables]
        write_all_as_gateway(account, "create", items)
        account.holds(dict.fromkeys(variables, b"1"))
        first, then = sorted((one, two), key=lambda it: it.metric("devbox_secrets_leader"), reverse=True)
        key_id = rotate(controlplane)
        until("it has started to reseal", lambda: first.metric(RESEALED))
        os.kill(first.component.pid, signal.SIGSTOP)
        try:
            late = [account.manifest(variable, b"2") for variable in variables[::10]]
            write_all_as_gateway(account, "replace", late)
            until("the other one is the leader", lambda: then.metric("devbox_secrets_leader"))
        finally:
            os.kill(first.component.pid, signal.SIGCONT)
        until("it knows that it lost the lease", lambda: "lost the lease" in first.log)
        until("all values are resealed", lambda: keys_of(account) == {key_id})
        account.holds(dict.fromkeys(variables, b"1") | dict.fromkeys(variables[::10], b"2"))


def write_all_as_gateway(account: Account, how: str, items: list[Json]) -> None:
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    account.controlplane.kubectl(how, "-f", "-", f"--field-manager={GATEWAY_FIELD_MANAGER}", input=text)


def keys_of(account: Account) -> set[str]:
    items = get(account.controlplane, "accountsecrets", "-n", account.name)["items"]
    return {key_id_of(item["spec"]["sealed"]) for item in items}


# --- Permissions


def test_with_the_gateway_the_operators_only_additional_permission_is_to_patch_accountsecrets(
    controlplane: ControlPlane,
) -> None:
    kubeconfig = controlplane.service_account_kubeconfig(NAMESPACE, "devbox-secrets")
    assert rights(can_i(controlplane, "default", kubeconfig=kubeconfig)) == EVERYWHERE_WITH_GATEWAY
    assert rights(can_i(controlplane, NAMESPACE, kubeconfig=kubeconfig)) == IN_OPERATOR_NAMESPACE_WITH_GATEWAY


def test_without_the_gateway_the_operator_does_not_reseal() -> None:
    assert "DEVBOX_SECRETS_RESEAL_GATEWAY_VALUES" not in render().stdout
    assert "DEVBOX_SECRETS_RESEAL_GATEWAY_VALUES" in render(ENABLED).stdout
