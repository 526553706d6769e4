"""The operator, the gateway and the CLI keep working with any odd object that the API server accepts."""

import base64
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random, SystemRandom

import httpx
import pytest
import yaml

from devbox_secrets.api.models import AccountSecret
from devbox_secrets.api.names import FIELD_MANAGER, MANAGED_BY_LABEL, account_secrets_path
from harness.controlplane import ControlPlane
from integration.support import odd
from integration.support.account import SECRET, Account
from integration.support.chart import ACCOUNT, DEVBOX, MANIFEST, NAMESPACE, Json, container, install, pod, until
from integration.support.gateway import Gateway, gateway, new_account, publish_key, token
from integration.support.odd import CANARY, administrator, merge, write, write_deep
from integration.support.processes import Operator, command, operator

SEED = int(os.environ.get("DEVBOX_SECRETS_TEST_SEED") or SystemRandom().randrange(2**32))
ODD_OBJECTS = 40
ODD_WRITES = 200
KEYS = f"/api/v1/namespaces/{NAMESPACE}/secrets/devbox-secrets-keys"
LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases/devbox-secrets"
ROTATE = "devbox-secrets.dev/rotate"
MERGE = "application/merge-patch+json"


@dataclass(frozen=True)
class OddCluster:
    """An account full of odd objects, other accounts, the operator and the gateway."""

    account: Account
    neighbor: Account
    deep: Account
    """An account with an object nested deeper than Python parses by default."""
    operator: Operator
    gateway: Gateway


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A separate control plane, because its CRD is edited and its objects are odd."""
    with ControlPlane.start() as it:
        install(it)
        publish_key(it)
        yield it


@pytest.fixture(scope="module")
def running(plane: ControlPlane) -> Iterator[OddCluster]:
    """The operator and the gateway, started after an edited CRD has accepted odd objects."""
    print(f"DEVBOX_SECRETS_TEST_SEED={SEED}")  # noqa: T201 - pytest shows it when a test fails
    random, crd = Random(SEED), our_crd()  # noqa: S311 - nothing secret
    account, neighbor, deep = (Account.of(plane, new_account(plane)) for _ in range(3))
    # The API server rejects all changes to the others: the CRD's rules can't evaluate their specs.
    names = [f"odd-{number}" for number in range(0, ODD_OBJECTS, 2)]
    account.put("GOOD", b"1")
    with administrator(plane) as client:
        edit_crd(plane, client, account, accepts_anything(crd), accepted=True)
        for number in range(ODD_OBJECTS):
            body = account.manifest(f"ODD_{number}", b"x", f"odd-{number}")
            if number % 2:
                body["spec"] = odd.spec(random, body["spec"])
            if write(client, "POST", account_secrets_path(account.name), body):
                merge(client, account.name, f"odd-{number}", {"status": odd.anything(random)}, "status")
        edit_crd(plane, client, account, crd, accepted=False)
        write_odd_neighbors(client, account)
        write_deep(client, deep.name, deep.put("DEEP", b"1"))
        odd_writes(client, random, account, names)
        with operator(plane) as it, gateway(plane) as rest:
            odd_writes(client, random, account, names)
            yield OddCluster(account, neighbor, deep, it, rest)


def our_crd() -> Json:
    (found,) = (each for each in yaml.safe_load_all(MANIFEST.read_text()) if each["kind"] == "CustomResourceDefinition")
    return dict(found)


def accepts_anything(crd: Json) -> Json:
    """Return the CRD with a loosened schema."""
    edited: Json = json.loads(json.dumps(crd))
    (version,) = edited["spec"]["versions"]
    version.pop("selectableFields")
    properties = version["schema"]["openAPIV3Schema"]["properties"]
    properties["spec"] = properties["status"] = {"x-kubernetes-preserve-unknown-fields": True}
    return edited


def edit_crd(plane: ControlPlane, client: httpx.Client, account: Account, crd: Json, *, accepted: bool) -> None:
    """Replace the CRD, and wait until the API server uses it."""
    plane.kubectl("replace", "--filename=-", input=json.dumps(crd))
    body = account.manifest("PROBE", b"x") | {"spec": {"name": ["PROBE"]}}
    path = f"{account_secrets_path(account.name)}?dryRun=All"
    until("the CRD is in use", lambda: write(client, "POST", path, body) is accepted)


def odd_writes(client: httpx.Client, random: Random, account: Account, names: list[str]) -> None:
    """Write odd statuses, field managers and annotations, many of which the API server accepts."""
    accepted = sum(odd_write(client, random, account.name, random.choice(names)) for _ in range(ODD_WRITES))
    assert accepted > ODD_WRITES / 3


def odd_write(client: httpx.Client, random: Random, account: str, name: str) -> bool:
    if random.random() < 0.6:
        return merge(client, account, name, {"status": odd.status(random)}, "status")
    metadata = {"managedFields": odd.managed_fields(random), "annotations": odd.annotations(random)}
    return merge(client, account, name, {"metadata": metadata})


def write_odd_neighbors(client: httpx.Client, account: Account) -> None:
    """Write odd objects of the other kinds that the operator and the CLI read."""
    for number, secret in enumerate(ODD_SECRETS):
        name = f"{account.name}-{number}"
        metadata = {"name": name, "labels": {ACCOUNT: "no-home"} if number % 2 else {}}
        assert write(client, "POST", "/api/v1/namespaces", {"metadata": metadata})
        body = {**secret, "metadata": {"name": SECRET, **secret.get("metadata", {})}}
        assert write(client, "POST", f"/api/v1/namespaces/{name}/secrets", body)
    for name, body in ODD_PODS.items():
        pods = f"/api/v1/namespaces/{account.name}/pods"
        made = pod({"containers": [container("agent")], **body["spec"]}, DEVBOX)
        assert write(client, "POST", pods, made | {"metadata": made["metadata"] | {"name": name}})
        state = {
            "name": "agent",
            "image": "x",
            "imageID": "x",
            "ready": True,
            "restartCount": 0,
            "state": body["state"],
        }
        status = {"phase": "Running", "containerStatuses": [state]}
        assert write(client, "PATCH", f"{pods}/{name}/status", {"status": status}, MERGE)
    keys = {
        "README": b"hello",
        "deep": b"[" * 100_000,
        "0" * 16: b'{"created": "0001-01-01T00:00:00+14:00", "seed": ""}',
    }
    data = {name: base64.b64encode(raw).decode() for name, raw in keys.items()}
    assert write(client, "PATCH", KEYS, {"data": data, "metadata": {"annotations": {ROTATE: CANARY}}}, MERGE)
    spec = {"renewTime": "0000-01-01T00:00:00.000000Z", "leaseTransitions": 2**31 - 1}
    assert write(client, "PATCH", LEASE, {"spec": spec}, MERGE)
    service = {"metadata": {"name": "devbox-secrets-gateway"}, "spec": {"type": "ExternalName", "externalName": "a.b"}}
    assert write(client, "POST", f"/api/v1/namespaces/{NAMESPACE}/services", service)


ODD_SECRETS: list[Json] = [
    {"data": {"A": None}},
    {"data": None, "stringData": {"A": CANARY}},
    {"type": "example.org/odd", "immutable": True, "data": {"A": ""}},
    {"metadata": {"labels": {MANAGED_BY_LABEL: FIELD_MANAGER}}, "data": {"A": None}, "type": ""},
    {"metadata": {"annotations": {"a": CANARY}, "finalizers": ["example.org/odd"], "managedFields": []}},
]
ODD_PODS: dict[str, Json] = {
    "year-0": {"spec": {}, "state": {"running": {"startedAt": "0000-01-01T00:00:00Z"}}},
    "year-10000": {"spec": {}, "state": {"running": {"startedAt": "9999-12-31T23:00:00-05:00"}}},
    "no-time": {"spec": {}, "state": {"running": {}}},
    "no-sources": {"spec": {"volumes": [{"name": "v", "projected": {}}]}, "state": {"terminated": {"exitCode": 0}}},
}
#: Commands, with their allowed exit codes.
COMMANDS = {
    "list -n {account}": (0,),
    "list -n {account} -o json": (0,),
    "list -n {deep}": (0,),
    "status -n {account}": (3,),
    "status GOOD -n {account}": (0,),
    "status {odd} -n {account}": (0, 3),
    "get GOOD -n {account}": (0,),
    "get {odd} -n {account}": (0,),
    "usage -n {account}": (0,),
    "check": (3,),
    "apikey create ci -n {account}": (0,),
    "keys list": (0,),
}


def test_odd_objects_are_reported_and_block_no_others(running: OddCluster) -> None:
    account, neighbor = running.account, running.neighbor
    neighbor.is_ready(neighbor.put("TOKEN", b"1"))
    assert neighbor.data() == {"TOKEN": b"1"}
    account.is_ready(account.put("ANOTHER", b"2"))
    assert (account.data() or {}).items() >= {"GOOD": b"1", "ANOTHER": b"2"}.items()
    running.deep.holds({"DEEP": b"1"})
    until("the operator has written every status", lambda: all(map(has_operators_status, all_of(account))))
    kubectl = account.controlplane.kubectl
    invalid = [secret for secret in map(AccountSecret.parse, all_of(account)) if secret.invalid_spec]
    assert invalid
    events = ("get", "events", "-n", account.name, "--field-selector=reason=InvalidSpec", "-o=json")
    messages = {
        event["involvedObject"]["name"]: event["message"] for event in json.loads(kubectl(*events).stdout)["items"]
    }
    assert messages.keys() == {secret.name for secret in invalid}
    assert CANARY not in json.dumps(messages)


def all_of(account: Account) -> list[Json]:
    return list((account.controlplane.read(account_secrets_path(account.name)) or {})["items"])


def has_operators_status(body: Json) -> bool:
    """Return whether the operator has written the current status, or the API server accepts none."""
    secret = AccountSecret.parse(body)
    current = not secret.damaged and secret.status.observed_generation == secret.generation
    return bool(secret.invalid_spec) or (current and secret.status.ready is not None)


def test_the_operator_is_ready_and_its_log_names_invalid_fields_without_values(running: OddCluster) -> None:
    assert running.operator.get("/readyz")
    assert "devbox_secrets_accountsecrets" in running.operator.get("/metrics")
    log = running.operator.log
    assert "Traceback" not in log
    assert CANARY not in log
    assert re.search(rf"AccountSecret {running.account.name}/odd-\d+: invalid fields: spec\.", log)


def test_the_gateway_lists_the_secrets_of_each_account(running: OddCluster) -> None:
    for account, variable in ((running.account, "GOOD"), (running.deep, "DEEP")):
        with running.gateway.client(token(account.controlplane, account.name)) as client:
            answer = client.get("/v1/secrets", params={"limit": 5000})
            assert answer.status_code == 200, answer.text
            assert variable in {secret["name"] for secret in answer.json()["secrets"]}
            assert client.get(f"/v1/secrets/{variable}").status_code == 200
    assert "Traceback" not in running.gateway.log


@pytest.mark.parametrize("what", COMMANDS)
def test_a_command_succeeds_or_reports_the_problem(what: str, running: OddCluster) -> None:
    account, deep = running.account.name, running.deep.name
    kubectl = running.account.controlplane.kubectl
    odd_name = kubectl("get", "acs", "-n", account, "-o=name").stdout.split()[-1].partition("/")[2]
    arguments = what.format(account=account, deep=deep, odd=odd_name).split()
    done = command(running.account.controlplane.kubeconfig, *arguments)
    assert "Traceback" not in done.stderr
    assert done.returncode in COMMANDS[what], done.stdout + done.stderr


def test_a_restart_on_odd_objects_writes_nothing(running: OddCluster) -> None:
    account = running.account
    until("the operator has written every status", lambda: all(map(has_operators_status, all_of(account))))
    before = {body["metadata"]["uid"]: body["metadata"]["resourceVersion"] for body in all_of(account)}
    running.operator.component.kill()
    running.operator.component.start()
    running.operator.component.wait_ready()
    account.is_ready(account.put("LAST", b"3"))
    after = {body["metadata"]["uid"]: body["metadata"]["resourceVersion"] for body in all_of(account)}
    assert before.items() <= after.items()
