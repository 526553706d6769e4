"""The chart's policy rejects AccountSecrets outside their account's home, with a helpful message in every client."""

import json
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from devbox_secrets.controller.rules.conditions import wrong_namespace
from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import ACCOUNT, NAMESPACE, Json, get, install, namespace, until
from integration.support.gateway import Gateway, bind, new_account, token
from integration.support.gateway_requests import create, error_message
from integration.support.processes import Operator, command, operator

POLICY = "devbox-secrets-homes"


def is_refused(account: Account) -> bool:
    """Return whether the API server rejects new AccountSecrets in this namespace."""
    return submit(account, "create", "--dry-run=server").returncode != 0


def submit(account: Account, *verb: str, name: str = "token") -> subprocess.CompletedProcess[str]:
    body = account.manifest("TOKEN", b"v", name)
    return account.controlplane.kubectl(*verb, "--filename=-", input=json.dumps(body), check=False)


@pytest.fixture
def box(account: Account) -> Account:
    """A namespace whose label assigns it to another account, after the policy has taken effect."""
    it = account.member(**{ACCOUNT: account.name})
    until("the policy takes effect", lambda: is_refused(it))
    return it


@pytest.mark.parametrize("label", [None, "", "its own name"])
def test_account_secrets_can_be_created_in_a_home(account: Account, label: str | None) -> None:
    if label is not None:
        account.join(account.name if label else "")
    account.is_ready(account.put("TOKEN", b"v"))


WAYS = {
    "create": ("create",),
    "apply": ("apply",),
    "server-side apply": ("apply", "--server-side"),
    "a dry run": ("apply", "--dry-run=server"),
}


@pytest.mark.parametrize("way", WAYS)
def test_account_secrets_cannot_be_created_outside_the_home(way: str, box: Account) -> None:
    assert "denied request" in submit(box, *WAYS[way]).stderr
    assert get(box.controlplane, "accountsecrets", "-n", box.name)["items"] == []


def test_kubectl_prints_the_message_of_the_condition(box: Account) -> None:
    home = get(box.controlplane, "namespace", box.name)["metadata"]["labels"][ACCOUNT]
    stderr = submit(box, "create").stderr
    assert stderr.endswith(
        f"ValidatingAdmissionPolicy '{POLICY}' with binding '{POLICY}' denied request:"
        f" {wrong_namespace(box.name, home).message}\n"
    )


def test_seal_apply_prints_the_message(box: Account) -> None:
    arguments = ("seal", "TOKEN", "--apply", "-n", box.name)
    done = command(box.controlplane.kubeconfig, *arguments, value=b"v")
    assert (done.returncode, done.stdout) == (1, "")
    assert "belongs to the account" in done.stderr


def test_account_secrets_created_before_the_label_can_still_be_changed(account: Account) -> None:
    box = account.member()
    name = box.put("TOKEN", b"v")
    box.is_ready(name)
    box.join(account.name)
    assert f"in the namespace {account.name}" in box.is_ready(name, "WrongNamespace")["message"]
    until("the policy takes effect", lambda: is_refused(box))
    box.put("TOKEN", b"w")
    generation = get(box.controlplane, "accountsecret", name, "-n", box.name)["metadata"]["generation"]
    assert (generation, box.is_ready(name, "WrongNamespace")["observedGeneration"]) == (2, 2)
    box.controlplane.kubectl("label", "namespace", box.name, f"{ACCOUNT}-")
    box.holds({"TOKEN": b"w"})


def test_account_secrets_can_be_created_again_after_the_label_is_removed(box: Account) -> None:
    box.controlplane.kubectl("label", "namespace", box.name, f"{ACCOUNT}-")
    until("the policy allows them", lambda: not is_refused(box))
    box.is_ready(box.put("TOKEN", b"v"))


def test_without_the_policy_an_account_secret_outside_the_home_is_not_ready() -> None:
    with ControlPlane.start() as it:
        install(it)
        it.kubectl("delete", "validatingadmissionpolicybinding", POLICY)
        for each in (namespace("team-a", {}), namespace("box", {ACCOUNT: "team-a"})):
            it.kubectl("create", "--filename=-", input=json.dumps(each))
        with operator(it):
            box = Account.of(it, "box")
            until("the policy no longer applies", lambda: not is_refused(box))
            assert (
                "create the AccountSecret in the namespace"
                in box.is_ready(box.put("TOKEN", b"v"), "WrongNamespace")["message"]
            )


def test_the_policy_applies_to_every_account_secret_and_fails_closed(running: Operator, account: Account) -> None:
    policy = get(account.controlplane, "validatingadmissionpolicy", POLICY)
    binding = get(account.controlplane, "validatingadmissionpolicybinding", POLICY)
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert policy["status"]["typeChecking"] == {}
    assert binding["spec"] == {"policyName": POLICY, "validationActions": ["Deny"]}


# --- With the gateway


@pytest.fixture
def guest(controlplane: ControlPlane, rest: Gateway, account: Account) -> Account:
    """A namespace with ServiceAccounts whose label assigns it to another account."""
    it = Account.of(controlplane, new_account(controlplane))
    it.join(account.name)
    until("the policy takes effect", lambda: is_refused(it))
    return it


def test_the_gateways_message_names_the_home_and_the_header(
    controlplane: ControlPlane, rest: Gateway, account: Account, guest: Account
) -> None:
    key = token(controlplane, guest.name)
    for named in (None, guest.name):
        with rest.client(key, named) as api:
            message = error_message(
                api.post("/v1/secrets", json={"name": "TOKEN", "value": "canary"}), 422, "UnprocessableEntity"
            )
        assert message == (
            f"this namespace belongs to the account {account.name}; name that account in the header"
            " X-Devbox-Secrets-Account, and use a token whose user has the role devbox-secrets-edit in"
            f" {account.name}"
        )
    assert get(controlplane, "accountsecrets", "-n", guest.name)["items"] == []


def test_following_the_gateways_message_works(
    controlplane: ControlPlane, rest: Gateway, account: Account, guest: Account
) -> None:
    bind(controlplane, account.name, f"{guest.name}:editor", "edit")
    with rest.client(token(controlplane, guest.name), account.name) as api:
        create(api, "TOKEN")
    guest.holds({"TOKEN": b"v"})


def test_a_viewer_gets_403_without_the_name_of_the_home(
    controlplane: ControlPlane, rest: Gateway, account: Account, guest: Account
) -> None:
    with rest.client(token(controlplane, guest.name, "viewer")) as api:
        response = api.post("/v1/secrets", json={"name": "TOKEN", "value": "v"})
    assert account.name not in error_message(response, 403, "Forbidden")


def test_a_user_who_cannot_read_the_namespace_gets_the_general_message(
    controlplane: ControlPlane, rest: Gateway, account: Account, guest: Account
) -> None:
    here = f"--namespace={guest.name}"
    run = controlplane.kubectl
    run("create", "serviceaccount", "narrow", here)
    run("create", "role", "narrow", here, "--verb=list,create", "--resource=accountsecrets.devbox-secrets.dev")
    run("create", "rolebinding", "narrow", here, "--role=narrow", f"--serviceaccount={guest.name}:narrow")
    with rest.client(token(controlplane, guest.name, "narrow")) as api:
        until("the binding takes effect", lambda: api.get("/v1/secrets").status_code == 200)
        response = api.post("/v1/secrets", json={"name": "TOKEN", "value": "v"})
    message = error_message(response, 422, "UnprocessableEntity")
    assert "ask its administrators which policies apply" in message
    assert account.name not in message


@pytest.fixture
def imitation(controlplane: ControlPlane, rest: Gateway) -> Iterator[str]:
    """An account in which another policy denies AccountSecrets with a message similar to ours."""
    name = new_account(controlplane)
    rule = {"apiGroups": ["devbox-secrets.dev"], "apiVersions": ["*"], "resources": ["accountsecrets"]}
    message = "the namespace canary belongs to the account canary (label devbox-secrets.dev/account)"
    policy = {
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            "resourceRules": [{**rule, "operations": ["CREATE"]}],
        },
        "validations": [{"expression": "false", "message": message}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    kinds = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
    for kind, spec in kinds.items():
        body: Json = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}}
        controlplane.kubectl("create", "--filename=-", input=json.dumps(body | {"spec": spec}))
    yield name
    for kind in kinds:
        controlplane.kubectl("delete", kind, name)


def test_the_message_of_another_policy_is_not_passed_on(
    controlplane: ControlPlane, rest: Gateway, imitation: str
) -> None:
    account = Account.of(controlplane, imitation)
    until("the policy takes effect", lambda: is_refused(account))
    with rest.client(token(controlplane, imitation)) as api:
        response: httpx.Response = api.post("/v1/secrets", json={"name": "TOKEN", "value": "v"})
    message = error_message(response, 422, "UnprocessableEntity")
    assert "canary" not in message
    assert "ask its administrators which policies apply" in message


def test_the_chart_installs_exactly_three_validating_policies(controlplane: ControlPlane, rest: Gateway) -> None:
    found = get(controlplane, "validatingadmissionpolicies", "-l", f"app.kubernetes.io/name={NAMESPACE}")
    assert {each["metadata"]["name"] for each in found["items"]} == {
        *(f"{NAMESPACE}-{name}" for name in ("accounts", "annotations", "homes"))
    }
