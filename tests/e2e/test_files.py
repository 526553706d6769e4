"""With `injection.as: files`, devboxes on a real cluster get files instead of environment variables."""

from collections.abc import Iterator

import pytest

from e2e.accounts import DEBUG_LOG, Account
from harness import release
from harness.kind import Cluster

DIRECTORY = "/var/run/secrets/devbox-secrets.dev"
SHOW = ["sh", "-c", f'echo "file: $(cat {DIRECTORY}/TOKEN), variable: ${{TOKEN-not set}}"']


@pytest.fixture(scope="module", autouse=True)
def _as_files(cluster: Cluster) -> Iterator[None]:
    release.install(cluster, DEBUG_LOG, "--set=injection.as=files", gets=DIRECTORY)
    yield
    release.install(cluster, DEBUG_LOG)


def test_every_container_has_the_file_and_not_the_variable(account: Account) -> None:
    account.sync("TOKEN", "x")
    spec = account.spec(
        account.container("main", command=SHOW), initContainers=[account.container("before", command=SHOW)]
    )
    assert account.run("box", spec) == "file: x, variable: not set\n" * 2


def test_any_user_can_read_the_file_under_the_restricted_pod_security_level(account: Account) -> None:
    account.cluster.kubectl("label", "namespace", account.name, "pod-security.kubernetes.io/enforce=restricted")
    account.sync("TOKEN", "x")
    context = {
        "runAsNonRoot": True,
        "runAsUser": 1234,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec = account.spec(account.container("main", command=SHOW, securityContext=context))
    assert account.run("box", spec) == "file: x, variable: not set\n"
