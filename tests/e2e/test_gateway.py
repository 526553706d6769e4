"""The gateway on a real cluster, from Runloop's SDKs to the values in devboxes."""

import base64
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from runloop_api_client import APIConnectionError, BadRequestError, NotFoundError

from e2e.accounts import COMMAND, DEBUG_LOG, SECRET, Account, until
from e2e.gateway import CERTIFICATE, HOST, NAME, PODS, Endpoint, key_of, one_replica, publish, replicas
from e2e.steady import CLIENTS, steady
from harness import release
from harness.components import reserved_port
from harness.kind import Cluster
from harness.pki import Authority
from harness.release import NAMESPACE
from harness.shell import environment, run, sessions
from runloop import typescript
from runloop.typescript import TypeScript

DOCUMENT = Path(__file__).parents[2] / "docs" / "operations" / "gateway.md"
OPTIONS = (DEBUG_LOG, "--set=gateway.enabled=true,gateway.service.type=NodePort")
TLS = f"--set=gateway.tls.secretName={CERTIFICATE},gateway.service.port=443"
VALUE = "canary-through-the-gateway"
#: The program of a pod that uses its own ServiceAccount as its API key.
PROGRAM = """
import json, os, ssl, urllib.request
key = open("/var/run/secrets/kubernetes.io/serviceaccount/token").read()
trust = ssl.create_default_context(cadata=os.environ["CA"]) if "CA" in os.environ else None
body = json.dumps({"name": "FROM_A_POD", "value": os.environ["VALUE"]}).encode()
headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
asked = urllib.request.Request(os.environ["URL"] + "/v1/secrets", body, headers)
print(urllib.request.urlopen(asked, context=trust, timeout=20).read().decode())
"""


@pytest.fixture(scope="module", autouse=True)
def _uninstall_afterwards(cluster: Cluster) -> Iterator[None]:
    yield
    release.install(cluster, DEBUG_LOG)
    cluster.kubectl("delete", "secret", CERTIFICATE, f"-n{NAMESPACE}", "--ignore-not-found")


@pytest.fixture(scope="module", name="program")
def _program(tmp_path_factory: pytest.TempPathFactory) -> TypeScript:
    return typescript.installed(tmp_path_factory.mktemp("typescript"))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("test")


@pytest.fixture(scope="module", params=["without TLS", "with TLS"])
def endpoint(
    request: pytest.FixtureRequest, cluster: Cluster, authority: Authority, tmp_path_factory: pytest.TempPathFactory
) -> Endpoint:
    """The chart's gateway: two replicas behind a Service with a NodePort."""
    if request.param == "without TLS":
        release.install(cluster, *OPTIONS)
        return Endpoint.at_node_port(cluster, None)
    file = tmp_path_factory.mktemp("authority") / "ca.crt"
    file.write_bytes(authority.pem)
    publish(cluster, authority)
    release.install(cluster, *OPTIONS, TLS)
    return Endpoint.at_node_port(cluster, file)


def test_check_ignores_a_gateway_that_is_not_installed(cluster: Cluster) -> None:
    assert check(cluster) is None


# --- The documentation


def test_the_documented_commands_print_what_the_page_shows(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    (tmp_path / "charts").symlink_to(DOCUMENT.parents[2] / "charts")
    (tmp_path / "secret.json").write_text(json.dumps({"name": "GITHUB_TOKEN", "value": VALUE}))
    steps = sessions(DOCUMENT.read_text())[0]
    with reserved_port() as port:
        pass  # a free port
    wait = {
        "port-forward": " > forwarded 2>&1 & until grep Forwarding forwarded > seen; do kill -0 $! && sleep 0.1; done",
        "get accountsecrets": f"kubectl wait --for condition=Ready accountsecret --all -n {namespace} > ready && ",
    }

    def adapt(text: str) -> str:
        """Replace the page's namespace and port with the test's namespace and a free port, and wait where needed."""
        text = text.replace("team-a", namespace).replace("8080", str(port)).removesuffix(" &")
        text += wait["port-forward"] if "port-forward" in text else ""
        return wait["get accountsecrets"] + text if "get accountsecrets" in text else text

    quiet = 'helm() { command helm "$@" > helm; }; curl() { command curl --silent --show-error "$@"; }'
    commands = [quiet, *[adapt(step.command) for step in steps]]
    _, *shown = run(commands, tmp_path, environment(tmp_path, cluster.kubeconfig))
    for step, ran in zip(steps, shown, strict=True):
        assert ran.code == 0, f"{step.command}: {ran.output}"
        assert not step.shown or normalize(ran.output) == normalize(step.shown.replace("team-a", namespace))


def normalize(text: str) -> list[str]:
    """Return the words of a text, with its varying parts masked: ids, times, keys and ages."""
    return re.sub(r"sec_\w+…?|\b\d{13}\b|\b[0-9T:-]{19}Z|\b[0-9a-f]{16}\b|\b\d+s\b", "…", text).split()


# --- Clients, with and without TLS


def test_the_typescript_sdk_manages_secrets(endpoint: Endpoint, program: TypeScript, account: Account) -> None:
    program.session(endpoint.url, key_of(account), endpoint.authority)


async def test_each_sdk_can_follow_pages(endpoint: Endpoint, program: TypeScript, account: Account) -> None:
    key = key_of(account)
    with endpoint.runloop(key) as api:
        made = [api.secrets.create(name=f"S{number}", value="v").id for number in range(5)][::-1]
        found: list[str] = []
        more = True
        while more:
            page = api.secrets.list(limit=2, extra_query={"starting_after": found[-1]} if found else None)
            found, more = found + [it.id for it in page.secrets], page.has_more
    assert found == made

    async def after(last: str) -> list[str]:
        async with endpoint.asynchronous(key) as api:
            return [it.id for it in (await api.secrets.list(extra_query={"starting_after": last})).secrets]

    assert await after(made[1]) == made[2:]
    listed = json.loads(program.run("rli", "list", url=endpoint.url, key=key, authority=endpoint.authority))
    assert [it["id"] for it in listed] == made


@pytest.mark.parametrize("endpoint", ["with TLS"], indirect=True)
async def test_devboxes_get_the_values_that_each_client_creates_updates_and_deletes(
    endpoint: Endpoint, program: TypeScript, account: Account
) -> None:
    key = key_of(account)
    names = ("BY_NAME", "BY_ID", "BY_RLI")

    def rli(verb: str, stdin: str = "") -> dict[str, str]:
        it: dict[str, str] = json.loads(
            program.run("rli", verb, "BY_RLI", url=endpoint.url, key=key, authority=endpoint.authority, stdin=stdin)
        )
        return it

    async def by_id(call: str, **fields: str) -> str:
        async with endpoint.asynchronous(key) as api:
            return (await getattr(api.secrets, call)(**fields)).id  # type: ignore[no-any-return]

    def devbox(name: str, *values: str) -> None:
        """Start a devbox and check that it prints these values."""
        until("the account Secret is written", lambda: account_data(account) == dict(zip(names, values, strict=False)))
        show = 'echo "${BY_NAME-none} ${BY_ID-none} ${BY_RLI-none}"'
        printed = account.run(name, account.spec(account.container("main", command=["sh", "-c", show])))
        assert printed.split() == list(values or ["none"] * 3)

    with endpoint.runloop(key) as api:
        api.secrets.create(name="BY_NAME", value=f"{VALUE}-1")
        made = await by_id("create", name="BY_ID", value=f"{VALUE}-2")
        assert rli("create", f"{VALUE}-3") == rli("get")
        devbox("new", *[f"{VALUE}-{number}" for number in (1, 2, 3)])
        api.secrets.update("BY_NAME", value=f"{VALUE}-4")
        assert await by_id("update_by_id", id=made, value=f"{VALUE}-5") == made
        assert await by_id("retrieve_by_id", id=made) == made
        rli("update", f"{VALUE}-6")
        devbox("changed", *[f"{VALUE}-{number}" for number in (4, 5, 6)])
        api.secrets.delete("BY_NAME")
        await by_id("delete_by_id", id=made)
        rli("delete")
        devbox("gone")


def account_data(account: Account) -> dict[str, str]:
    """Return the data of the account Secret, or an empty dict if it doesn't exist."""
    listed = account.cluster.get("secrets", f"-n{account.name}", f"--field-selector=metadata.name={SECRET}")["items"]
    data: dict[str, str] = listed[0].get("data", {}) if listed else {}
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


def test_a_pod_can_use_the_service_with_its_own_service_account(
    endpoint: Endpoint, authority: Authority, account: Account
) -> None:
    key_of(account)
    deployment = account.cluster.get("deployment", NAME, f"-n{NAMESPACE}")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    secure = {"URL": f"https://{HOST}", "CA": authority.pem.decode()}
    env = {"VALUE": VALUE, **(secure if endpoint.authority else {"URL": f"http://{HOST}"})}
    container = {
        "name": "main",
        "image": image,
        "command": ["python3", "-c", PROGRAM],
        "env": [{"name": name, "value": value} for name, value in env.items()],
    }
    made = json.loads(account.run("client", account.spec(container, serviceAccountName="ci"), labels={}))
    assert made["name"] == "FROM_A_POD"
    until("the account Secret has the value", lambda: account_data(account) == {"FROM_A_POD": VALUE})


@pytest.mark.parametrize("endpoint", ["with TLS"], indirect=True)
def test_a_client_that_does_not_trust_the_ca_sends_nothing(endpoint: Endpoint) -> None:
    with replace(endpoint, authority=None).runloop("none", max_retries=0) as api, pytest.raises(APIConnectionError):
        api.secrets.list()


@pytest.mark.parametrize("endpoint", ["without TLS"], indirect=True)
def test_logs_events_and_objects_contain_no_values(endpoint: Endpoint, account: Account) -> None:
    with endpoint.runloop(key_of(account)) as api:
        api.secrets.create(name="TOKEN", value=VALUE)
        api.secrets.update("TOKEN", value=f"{VALUE}-2")
        for body in ({"name": "OTHER", "value": [VALUE]}, {VALUE: VALUE}):
            with pytest.raises(BadRequestError):
                api.post("/v1/secrets", body=body, cast_to=object)
        until("the account Secret has the value", lambda: account_data(account) == {"TOKEN": f"{VALUE}-2"})
        api.secrets.delete("TOKEN")
    logs = ("logs", "--all-containers", "--prefix", "--tail=-1")
    texts = {
        "the gateway": account.cluster.kubectl(*logs, *PODS),
        "the operator": account.cluster.kubectl(*logs, f"-n{NAMESPACE}", "-lapp.kubernetes.io/name=devbox-secrets"),
        "the API server": account.cluster.kubectl(*logs, "-nkube-system", "-lcomponent=kube-apiserver"),
        "Events": account.cluster.kubectl("get", "events", "-A", "-ojson"),
        "AccountSecrets": account.cluster.kubectl("get", "accountsecrets", "-A", "-ojson"),
    }
    encoded = base64.b64encode(VALUE.encode()).decode().rstrip("=")
    assert [where for where, text in texts.items() if VALUE in text or encoded in text] == []
    assert "devbox_secrets" in texts["the operator"]
    assert "h2corn" in texts["the gateway"]


# --- The result of `check`


@pytest.mark.parametrize("endpoint", ["without TLS"], indirect=True)
def test_check_reports_whether_the_gateway_is_ready(endpoint: Endpoint) -> None:
    assert check(endpoint.cluster) == ["ok", "2 of 2 replicas are ready"]
    quota = ("quota", "no-pods", f"-n{NAMESPACE}")
    endpoint.cluster.kubectl("create", *quota, "--hard=pods=0")
    try:
        endpoint.cluster.kubectl("delete", *replicas(endpoint.cluster), f"-n{NAMESPACE}", "--wait=false")
        deployment = (f"deployment/{NAME}", f"-n{NAMESPACE}")
        endpoint.cluster.kubectl("wait", *deployment, "--for=jsonpath={.status.unavailableReplicas}=2", "--timeout=30s")
        assert check(endpoint.cluster) == [
            "error",
            f"0 of 2 replicas are ready; check: kubectl get pods -n {NAMESPACE}",
        ]
    finally:
        endpoint.cluster.kubectl("delete", *quota)
    endpoint.cluster.kubectl("rollout", "status", *deployment, "--timeout=60s")


def check(cluster: Cluster) -> list[str] | None:
    """Return the level and the text of `check` for the gateway, or None."""
    command: list[str | Path] = [COMMAND, "check", "--kubeconfig", cluster.kubeconfig, "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    lines = {each["check"]: [each["level"], each["text"]] for each in json.loads(done.stdout)}
    assert lines["operator"][0] == "ok"
    return lines.get("gateway")


# --- Two replicas


@pytest.mark.parametrize("endpoint", ["without TLS"], indirect=True)
def test_the_other_replica_recognizes_a_retry(endpoint: Endpoint, account: Account) -> None:
    key = key_of(account)
    first, second = replicas(account.cluster)
    with (
        one_replica(endpoint, first) as near,
        one_replica(endpoint, second) as far,
        near.runloop(key) as one,
        far.runloop(key) as other,
    ):

        def both(call: Callable[..., object], request_id: str) -> list[object]:
            return [call(api, extra_headers={"x-request-id": request_id}) for api in (one, other)]

        made, again = both(lambda api, **more: api.secrets.create(name="TOKEN", value="v", **more), "creation")
        assert made == again
        assert one.secrets.list() == other.secrets.list()
        updated, again = both(lambda api, **more: api.secrets.update("TOKEN", value="w", **more), "update")
        assert updated == again
        newer = other.secrets.update("TOKEN", value="newer")
        assert one.secrets.update("TOKEN", value="w", extra_headers={"x-request-id": "update"}) == newer
        assert one.secrets.delete("TOKEN") == newer
        with pytest.raises(NotFoundError):
            other.secrets.retrieve("TOKEN")
    assert account_data(account) == {}


def test_no_call_fails_while_replicas_are_deleted_and_replaced(
    endpoint: Endpoint, program: TypeScript, account: Account
) -> None:
    before, key = replicas(account.cluster), key_of(account)
    options = (*OPTIONS, TLS) if endpoint.authority else OPTIONS
    with steady(endpoint, dict.fromkeys(CLIENTS, key), program) as tallies:
        until("the clients send calls", lambda: tallies[CLIENTS[0]].calls > 20)
        account.cluster.kubectl("delete", before[0], f"-n{NAMESPACE}", "--wait=false")
        release.install(account.cluster, *options, "--set=gateway.resources.requests.cpu=60m")
        account.cluster.kubectl("wait", "--for=delete", *before, f"-n{NAMESPACE}", "--timeout=60s")
        since = tallies[CLIENTS[0]].calls
        until("the clients continue", lambda: tallies[CLIENTS[0]].calls > since + 20)
    assert {client: dict(it.failures) for client, it in tallies.items() if it.failures} == {}
    assert min(it.calls for it in tallies.values()) > 20
    assert account.cluster.get("accountsecrets", f"-n{account.name}")["items"] == []
    assert not set(before) & set(replicas(account.cluster))
