"""Injection by the webhook on a real cluster, also while its pods are replaced."""

from collections.abc import Iterator

import pytest

from e2e.accounts import DEBUG_LOG, Account, repeatedly, try_devbox
from harness import release
from harness.kind import Cluster
from harness.release import NAMESPACE

WEBHOOK = "deployment/devbox-secrets-webhook"
VALUE = "canary-by-webhook"


@pytest.fixture(scope="module", autouse=True)
def _by_webhook(cluster: Cluster) -> Iterator[None]:
    release.install(cluster, DEBUG_LOG, "--set=injection.method=webhook")
    yield
    release.install(cluster, DEBUG_LOG)


def test_a_devbox_has_its_variables(account: Account) -> None:
    assert account.cluster.kubectl("get", "mutatingadmissionpolicies", "-oname") == ""
    account.sync("TOKEN", VALUE)
    own = [{"name": "NAME", "value": "main"}, {"name": "OWN", "value": VALUE}]
    assert account.run("box", account.spec(account.container("main", env=own))) == f"main: {VALUE}\n"
    log = account.cluster.kubectl("logs", WEBHOOK, f"-n{NAMESPACE}", "--all-pods=true")
    assert "INFO devbox_secrets.webhook.server: ready" in log
    assert VALUE not in log


def test_no_devbox_is_rejected_while_the_replicas_are_replaced(account: Account) -> None:
    replicas = ("get", "pods", f"-n{NAMESPACE}", "-lapp.kubernetes.io/name=devbox-secrets-webhook", "--output=name")
    before = account.cluster.kubectl(*replicas).split()
    with repeatedly(account, try_devbox) as calls:
        account.cluster.kubectl("rollout", "restart", WEBHOOK, f"-n{NAMESPACE}")
        account.cluster.kubectl("rollout", "status", WEBHOOK, f"-n{NAMESPACE}", "--timeout=60s")
        account.cluster.kubectl("wait", "--for=delete", *before, f"-n{NAMESPACE}", "--timeout=60s")
    assert calls[0] > 10
