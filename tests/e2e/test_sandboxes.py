"""Pods of kubernetes-sigs/agent-sandbox on a real cluster are devboxes, also in a warm pool."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.accounts import Account, Json, until
from harness import addons
from harness.kind import Cluster

EXAMPLES = Path(__file__).parents[2] / "examples"
LABEL = "agents.x-k8s.io/sandbox-name-hash"
FILE = "/run/secrets/account/TOKEN"


@pytest.fixture(scope="module", autouse=True)
def _controller(cluster: Cluster) -> Iterator[None]:
    if cluster.engine is None:
        pytest.skip("the controller's image can't be loaded into an existing cluster")
    with addons.agent_sandbox(cluster):
        yield


def apply(account: Account, *examples: str) -> None:
    for name in examples:
        account.apply((EXAMPLES / name).read_text().replace("busybox:1.37", account.image))


def pods(account: Account) -> dict[str, Json]:
    """Return the namespace's pods that are ready and aren't terminating, by name."""
    found = account.cluster.get("pods", f"-n{account.name}")["items"]
    return {
        pod["metadata"]["name"]: pod
        for pod in found
        if "deletionTimestamp" not in pod["metadata"]
        and ("Ready", "True") in [(it["type"], it["status"]) for it in pod["status"].get("conditions", [])]
    }


def create_pool_of_two(account: Account) -> dict[str, Json]:
    apply(account, "sandbox-template.yaml", "sandbox-warm-pool.yaml")
    until("the pool has two pods", lambda: len(pods(account)) == 2, seconds=60)
    return pods(account)


def claim(account: Account) -> str:
    """Claim a Sandbox, and return the name of its pod."""
    apply(account, "sandbox-claim.yaml")
    account.kubectl("wait", "--for=condition=Ready", "sandboxclaim/agent", "--timeout=60s")
    return account.kubectl("get", "sandboxclaim", "agent", "-o=jsonpath={.status.sandbox.name}")


def token(account: Account, pod: str) -> str:
    return account.kubectl("exec", pod, "--", "sh", "-c", 'echo "${TOKEN-not set}"').strip()


def test_the_pod_of_a_sandbox_has_the_variables(account: Account) -> None:
    account.sync("TOKEN", "x")
    apply(account, "sandbox.yaml")
    account.kubectl("wait", "--for=condition=Ready", "sandbox/sandbox", "--timeout=60s")
    assert token(account, "sandbox") == "x"


def test_warm_pods_and_the_claimed_one_have_the_variables(account: Account) -> None:
    account.sync("TOKEN", "x")
    warm = create_pool_of_two(account)
    assert {token(account, pod) for pod in warm} == {"x"}
    assert all(LABEL in pod["metadata"]["labels"] for pod in warm.values())
    pod = claim(account)
    assert pod in warm
    until("the pool is full again", lambda: len(pods(account)) == 3, seconds=60)
    now = pods(account)
    assert {token(account, name) for name in now} == {"x"}
    assert now[pod]["metadata"]["uid"] == warm[pod]["metadata"]["uid"]
    assert LABEL in now[pod]["metadata"]["labels"]


def test_a_claimed_warm_pod_keeps_its_environment_and_its_files_are_updated(account: Account) -> None:
    warm = create_pool_of_two(account)
    account.sync("TOKEN", "later")
    pod = claim(account)
    assert pod in warm
    assert token(account, pod) == "not set"
    read = ("exec", pod, "--", "sh", "-c", f"cat {FILE} || true")
    until("the file has the value", lambda: account.kubectl(*read) == "later", seconds=150)
    until("the pool is full again", lambda: len(pods(account)) == 3, seconds=60)
    (new,) = pods(account).keys() - warm
    assert token(account, new) == "later"


def test_a_replaced_pod_has_the_current_variables(account: Account) -> None:
    create_pool_of_two(account)
    claim(account)
    until("the pool is full again", lambda: len(pods(account)) == 3, seconds=60)
    old = pods(account)
    account.sync("TOKEN", "later")
    assert {token(account, name) for name in old} == {"not set"}
    account.kubectl("delete", "pods", "--all", "--now", "--wait=false")
    uids = {pod["metadata"]["uid"] for pod in old.values()}
    until(
        "all pods are new",
        lambda: [pod["metadata"]["uid"] in uids for pod in pods(account).values()] == [False] * 3,
        60,
    )
    assert {name: token(account, name) for name in pods(account)} == dict.fromkeys(old, "later")
