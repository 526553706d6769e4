"""With wait=true, the gateway responds when the account Secret has the value, or says why devboxes don't get it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from runloop_api_client import Runloop, UnprocessableEntityError

from harness.controlplane import ControlPlane
from integration.support.account import SECRET, Account
from integration.support.chart import ACCOUNT, deny_policy, until
from integration.support.gateway import Gateway, gateway, new_account, token
from integration.support.gateway_requests import WAIT, create, create_and_wait, error_message, in_background, objects
from integration.support.processes import Operator

CANARY = "canary-in-the-cage"


@pytest.fixture
def account(controlplane: ControlPlane, rest: Gateway) -> Account:
    return Account.of(controlplane, new_account(controlplane))


@pytest.fixture
def key(controlplane: ControlPlane, account: Account) -> str:
    return token(controlplane, account.name)


@pytest.fixture
def api(rest: Gateway, key: str) -> Iterator[httpx.Client]:
    with rest.client(key) as it:
        it.timeout = httpx.Timeout(60)
        yield it


# --- With the operator


def test_the_account_secret_has_the_value_when_the_response_arrives(
    running: Operator, api: httpx.Client, account: Account
) -> None:
    secret = create_and_wait(api, "TOKEN", "1")
    assert secret.status_code == 200, secret.text
    assert account.data() == {"TOKEN": b"1"}
    assert secret.json() == api.get("/v1/secrets/TOKEN").json()
    for value, path in (("2", "/v1/secrets/TOKEN"), ("3", f"/v1/secrets/id/{secret.json()['id']}/update")):
        answer = api.post(path, params=WAIT, json={"value": value})
        assert answer.status_code == 200, answer.text
        assert account.data() == {"TOKEN": value.encode()}


def test_every_member_namespace_has_the_value_when_the_response_arrives(
    running: Operator, api: httpx.Client, account: Account
) -> None:
    members = [account.member(**{ACCOUNT: account.name}) for _ in range(5)]
    assert create_and_wait(api, "TOKEN").status_code == 200
    assert [account.data(member.name) for member in members] == [{"TOKEN": b"v"}] * 5


def test_the_sdk_waits_with_an_extra_query(running: Operator, rest: Gateway, key: str, account: Account) -> None:
    with Runloop(base_url=rest.url, bearer_token=key) as runloop:
        runloop.secrets.create(name="TOKEN", value="1", extra_query=WAIT)
        assert account.data() == {"TOKEN": b"1"}
        runloop.secrets.update("TOKEN", value="2", extra_query=WAIT)
        assert account.data() == {"TOKEN": b"2"}
        refused = account.is_ready(account.put("PATH", b"v"), "ReservedName")
        with pytest.raises(UnprocessableEntityError) as caught:
            runloop.secrets.update("PATH", value=CANARY, extra_query=WAIT)
    assert refused["message"] in str(caught.value)
    assert caught.value.request.headers["x-stainless-retry-count"] == "0"


# --- Errors that waiting doesn't fix


@dataclass(frozen=True)
class NotReady:
    """A reason for which a variable isn't written, how to cause it, and the gateway's settings for it."""

    reason: str
    prepare: Callable[[Account], None] = lambda _: None
    variable: str = "TOKEN"
    value: str = CANARY
    settings: tuple[tuple[str, str], ...] = ()


def _foreign_secret(account: Account) -> None:
    account.controlplane.kubectl("create", "secret", "generic", SECRET, "-n", account.name)


def _foreign_secret_in_a_member(account: Account) -> None:
    member = account.member()
    member.controlplane.kubectl("create", "secret", "generic", SECRET, "-n", member.name)
    member.join(account.name)


def _nearly_full(account: Account) -> None:
    for number in range(8):
        account.is_ready(account.put(f"BIG_{number}", b"v" * 131_000))


def _another_key(account: Account) -> None:
    stranger = json.loads((Path(__file__).parents[2] / "vectors" / "dbs1.json").read_text())["key"]["public"]
    keys, here = "devbox-secrets-public-keys", f"--namespace={account.name}"
    run = account.controlplane.kubectl
    run("create", "configmap", keys, here, f"--from-literal=newest={stranger}")
    run("create", "role", "keys", here, "--verb=get", "--resource=configmaps", f"--resource-name={keys}")
    run("create", "rolebinding", "keys", here, "--role=keys", f"--serviceaccount={account.name}:editor")


NOT_READY = [
    NotReady("NotOwned", _foreign_secret),
    NotReady("NotOwned", _foreign_secret_in_a_member),
    NotReady("TooLarge", _nearly_full, value=CANARY + "v" * 100_000),
    NotReady("ReservedName", variable="PATH", settings=(("reserved_names", '["NO_OTHER"]'),)),
    NotReady("UnknownKey", _another_key, settings=(("namespace", "{account}"),)),
]


@pytest.mark.parametrize("row", NOT_READY, ids=lambda row: row.reason)
def test_a_variable_that_is_not_ready_gets_the_conditions_message_and_is_kept(
    row: NotReady, controlplane: ControlPlane, running: Operator, account: Account, key: str
) -> None:
    row.prepare(account)
    settings = {name: text.format(account=account.name) for name, text in row.settings}
    with gateway(controlplane, None, None, **settings) as it, it.client(key) as api:
        api.timeout = httpx.Timeout(60)
        message = error_message(create_and_wait(api, row.variable, row.value), 422, "UnprocessableEntity")
        reason = account.is_ready(row.variable.lower(), row.reason)["message"]
        assert message == f"the secret was written, but devboxes don't get its value: {reason}"
        assert CANARY not in message
        assert api.get(f"/v1/secrets/{row.variable}").status_code == 200


def test_the_response_for_a_namespace_that_joined_another_account_names_its_home(
    controlplane: ControlPlane, running: Operator, account: Account, api: httpx.Client
) -> None:
    home = account.member()
    create(api, "TOKEN")
    account.join(home.name)
    account.is_ready("token", "WrongNamespace")
    answer = api.post("/v1/secrets/TOKEN", params=WAIT, json={"value": "w"})
    assert f"create the AccountSecret in the namespace {home.name}" in error_message(answer, 422, "UnprocessableEntity")


def test_the_wait_continues_while_the_secret_temporarily_cannot_be_written(
    controlplane: ControlPlane, running: Operator, account: Account, api: httpx.Client
) -> None:
    policy = json.dumps({"apiVersion": "v1", "kind": "List", "items": deny_policy("", "secrets")})
    controlplane.kubectl("apply", "--server-side", "-f", "-", input=policy)
    controlplane.kubectl("label", "namespace", account.name, "closed=secrets")
    create_secret = ("create", "secret", "generic", "another", "-n", account.name, "--dry-run=server")
    until("the policy takes effect", lambda: controlplane.kubectl(*create_secret, check=False).returncode)
    with in_background(lambda: create_and_wait(api, "TOKEN")) as answer:
        until("the AccountSecret is stored", lambda: objects(account))
        account.is_ready("token", "NotWritten")
        assert not answer.done()
        controlplane.kubectl("label", "namespace", account.name, "closed-")
        assert answer.result(30).status_code == 200
    assert account.data() == {"TOKEN": b"v"}
    controlplane.kubectl("delete", "-f", "-", input=policy)


# --- With fewer rights


ROLES = {
    "get and list": ("get,list,create", 200),
    "only list": ("list,create", 403),
}


@pytest.mark.parametrize("which", ROLES)
def test_waiting_needs_get_but_not_watch(
    which: str, controlplane: ControlPlane, running: Operator, rest: Gateway, account: Account
) -> None:
    verbs, status = ROLES[which]
    here = f"--namespace={account.name}"
    run = account.controlplane.kubectl
    run("create", "serviceaccount", "narrow", here)
    run("create", "role", "narrow", here, f"--verb={verbs}", "--resource=accountsecrets.devbox-secrets.dev")
    run("create", "rolebinding", "narrow", here, "--role=narrow", f"--serviceaccount={account.name}:narrow")
    with rest.client(token(controlplane, account.name, "narrow")) as api:
        api.timeout = httpx.Timeout(60)
        answer = create_and_wait(api, "TOKEN")
        assert answer.status_code == status, answer.text
        if status == 200:
            assert account.data() == {"TOKEN": b"v"}
        else:
            assert "the secret was written" in error_message(answer, 403, "Forbidden")


# --- Invalid uses of wait


@pytest.mark.parametrize("wait", ["", "yes", "1", "True", CANARY])
def test_wait_must_be_true_or_false(api: httpx.Client, wait: str) -> None:
    for path, body in (("/v1/secrets", {"name": "TOKEN", "value": "v"}), ("/v1/secrets/TOKEN", {"value": "v"})):
        message = error_message(api.post(path, params={"wait": wait}, json=body), 400, "BadRequest")
        assert message == "wait must be true or false"
    assert api.get("/v1/secrets").json()["total_count"] == 0


def test_a_deletion_with_wait_is_rejected(api: httpx.Client) -> None:
    secret = create(api, "TOKEN")
    for path in ("/v1/secrets/TOKEN/delete", f"/v1/secrets/id/{secret['id']}/delete"):
        assert "wait=true isn't supported for deletions" in error_message(
            api.post(path, params=WAIT), 400, "BadRequest"
        )
        assert api.get("/v1/secrets/TOKEN", params=WAIT).json() == secret
    assert api.post("/v1/secrets/TOKEN/delete", params={"wait": "false"}).json() == secret
