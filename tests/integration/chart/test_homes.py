"""An AccountSecret belongs into its account's home: the chart's policy, what it says, and what is there without it."""

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
    """Tell whether the API server refuses new AccountSecrets there by now."""
    return tried(account, "create", "--dry-run=server").returncode != 0


def tried(account: Account, *way: str, name: str = "token") -> subprocess.CompletedProcess[str]:
    body = account.manifest("TOKEN", b"v", name)
    return account.controlplane.kubectl(*way, "--filename=-", input=json.dumps(body), check=False)


@pytest.fixture
def box(account: Account) -> Account:
    """A namespace that a label gives to another account, as the API server knows by now."""
    it = account.member(**{ACCOUNT: account.name})
    until("the policy holds there", lambda: is_refused(it))
    return it


@pytest.mark.parametrize("label", [None, "", "its own name"])
def test_in_a_home_they_are_made_as_ever(account: Account, label: str | None) -> None:
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
def test_elsewhere_none_is_made_by(way: str, box: Account) -> None:
    assert "denied request" in tried(box, *WAYS[way]).stderr
    assert get(box.controlplane, "accountsecrets", "-n", box.name)["items"] == []


def test_what_kubectl_prints_are_the_words_of_the_condition(box: Account) -> None:
    home = get(box.controlplane, "namespace", box.name)["metadata"]["labels"][ACCOUNT]
    told = tried(box, "create").stderr
    assert told.endswith(
        f"ValidatingAdmissionPolicy '{POLICY}' with binding '{POLICY}' denied request:"
        f" {wrong_namespace(box.name, home).message}\n"
    )


def test_the_command_says_so(box: Account) -> None:
    arguments = ("seal", "TOKEN", "--apply", "-n", box.name)
    done = command(box.controlplane.kubeconfig, *arguments, value=b"v")
    assert (done.returncode, done.stdout) == (1, "")
    assert "belongs to the account" in done.stderr


def test_what_was_there_before_the_label_stays_and_can_be_changed(account: Account) -> None:
    box = account.member()
    name = box.put("TOKEN", b"v")
    box.is_ready(name)
    box.join(account.name)
    assert f"in the namespace {account.name}" in box.is_ready(name, "WrongNamespace")["message"]
    until("the policy holds there", lambda: is_refused(box))
    box.put("TOKEN", b"w")
    generation = get(box.controlplane, "accountsecret", name, "-n", box.name)["metadata"]["generation"]
    assert (generation, box.is_ready(name, "WrongNamespace")["observedGeneration"]) == (2, 2)
    box.controlplane.kubectl("label", "namespace", box.name, f"{ACCOUNT}-")
    box.holds({"TOKEN": b"w"})


def test_when_the_label_goes_they_can_be_made_again(box: Account) -> None:
    box.controlplane.kubectl("label", "namespace", box.name, f"{ACCOUNT}-")
    until("the policy lets them pass", lambda: not is_refused(box))
    box.is_ready(box.put("TOKEN", b"v"))


def test_without_the_policy_it_is_made_and_not_ready() -> None:
    with ControlPlane.start() as it:
        install(it)
        it.kubectl("delete", "validatingadmissionpolicybinding", POLICY)
        for each in (namespace("team-a", {}), namespace("box", {ACCOUNT: "team-a"})):
            it.kubectl("create", "--filename=-", input=json.dumps(each))
        with operator(it):
            box = Account.of(it, "box")
            until("the policy is gone", lambda: not is_refused(box))
            assert (
                "create the AccountSecret in the namespace"
                in box.is_ready(box.put("TOKEN", b"v"), "WrongNamespace")["message"]
            )


def test_the_policy_is_bound_to_every_account_secret_and_fails_closed(running: Operator, account: Account) -> None:
    policy = get(account.controlplane, "validatingadmissionpolicy", POLICY)
    binding = get(account.controlplane, "validatingadmissionpolicybinding", POLICY)
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert policy["status"]["typeChecking"] == {}
    assert binding["spec"] == {"policyName": POLICY, "validationActions": ["Deny"]}


# --- Through the gateway


@pytest.fixture
def guest(controlplane: ControlPlane, rest: Gateway, account: Account) -> Account:
    """An account's namespace with ServiceAccounts, which a label gives to another account."""
    it = Account.of(controlplane, new_account(controlplane))
    it.join(account.name)
    until("the policy holds there", lambda: is_refused(it))
    return it


def test_the_gateway_names_the_home_and_the_header(
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


def test_and_doing_so_is_what_helps(
    controlplane: ControlPlane, rest: Gateway, account: Account, guest: Account
) -> None:
    bind(controlplane, account.name, f"{guest.name}:editor", "edit")
    with rest.client(token(controlplane, guest.name), account.name) as api:
        create(api, "TOKEN")
    guest.holds({"TOKEN": b"v"})


def test_a_viewer_is_told_that_it_may_not(
    controlplane: ControlPlane, rest: Gateway, account: Account, guest: Account
) -> None:
    with rest.client(token(controlplane, guest.name, "viewer")) as api:
        response = api.post("/v1/secrets", json={"name": "TOKEN", "value": "v"})
    assert account.name not in error_message(response, 403, "Forbidden")


def test_who_may_not_read_the_namespace_gets_the_general_answer(
    controlplane: ControlPlane, rest: Gateway, account: Account, guest: Account
) -> None:
    here = f"--namespace={guest.name}"
    run = controlplane.kubectl
    run("create", "serviceaccount", "narrow", here)
    run("create", "role", "narrow", here, "--verb=list,create", "--resource=accountsecrets.devbox-secrets.dev")
    run("create", "rolebinding", "narrow", here, "--role=narrow", f"--serviceaccount={guest.name}:narrow")
    with rest.client(token(controlplane, guest.name, "narrow")) as api:
        until("the binding is known", lambda: api.get("/v1/secrets").status_code == 200)
        response = api.post("/v1/secrets", json={"name": "TOKEN", "value": "v"})
    message = error_message(response, 422, "UnprocessableEntity")
    assert "ask its administrators which policies apply" in message
    assert account.name not in message


@pytest.fixture
def imitated(controlplane: ControlPlane, rest: Gateway) -> Iterator[str]:
    """An account in which another policy refuses AccountSecrets, with words that are nearly ours."""
    name = new_account(controlplane)
    rule = {"apiGroups": ["devbox-secrets.dev"], "apiVersions": ["*"], "resources": ["accountsecrets"]}
    told = "the namespace canary belongs to the account canary (label devbox-secrets.dev/account)"
    policy = {
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": name}},
            "resourceRules": [{**rule, "operations": ["CREATE"]}],
        },
        "validations": [{"expression": "false", "message": told}],
    }
    binding = {"policyName": name, "validationActions": ["Deny"]}
    kinds = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
    for kind, spec in kinds.items():
        body: Json = {"apiVersion": "admissionregistration.k8s.io/v1", "kind": kind, "metadata": {"name": name}}
        controlplane.kubectl("create", "--filename=-", input=json.dumps(body | {"spec": spec}))
    yield name
    for kind in kinds:
        controlplane.kubectl("delete", kind, name)


def test_another_policy_s_words_are_not_passed_on(controlplane: ControlPlane, rest: Gateway, imitated: str) -> None:
    account = Account.of(controlplane, imitated)
    until("the policy holds", lambda: is_refused(account))
    with rest.client(token(controlplane, imitated)) as api:
        answer: httpx.Response = api.post("/v1/secrets", json={"name": "TOKEN", "value": "v"})
    message = error_message(answer, 422, "UnprocessableEntity")
    assert "canary" not in message
    assert "ask its administrators which policies apply" in message


def test_the_policies_are_of_the_chart_s_own_names(controlplane: ControlPlane, rest: Gateway) -> None:
    found = get(controlplane, "validatingadmissionpolicies", "-l", f"app.kubernetes.io/name={NAMESPACE}")
    assert {each["metadata"]["name"] for each in found["items"]} == {
        *(f"{NAMESPACE}-{name}" for name in ("accounts", "annotations", "homes"))
    }
