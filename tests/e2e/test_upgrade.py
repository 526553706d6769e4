"""An upgrade from the last release while the cluster is in use loses, rejects and restarts nothing."""

import base64
import os
import re
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.accounts import DEBUG_LOG, DEVBOX, IDLE, SECRET, Account, repeatedly, try_devbox, until
from harness import release
from harness.kind import Cluster
from harness.release import NAMESPACE
from harness.run import run

ROOT = Path(__file__).parents[2]
CRD = "crds/accountsecrets.devbox-secrets.dev.yaml"
#: Values that exist before, during and after the upgrade.
LASTING = {f"LASTING_{number}": f"canary-lasting-{number}" for number in range(10)}


def last_release() -> str:
    """Return the newest tag before this commit; before the first tag, the commit that introduced the current API."""
    git = ("git", "-C", ROOT)
    tags = run(*git, "tag", "--merged=HEAD", "--no-contains=HEAD", "--sort=-version:refname", "--list", "v*").split()
    version = re.search(r"name: (v\d\w*)$", (ROOT / CRD).read_text(), re.MULTILINE)
    assert version
    return tags[0] if tags else run(*git, "log", "--format=%H", f"-S{version[0]}", "--", CRD).split()[-1]


@pytest.fixture(scope="module", name="last")
def _last(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The last release's chart and the name of its image, which is loaded into the cluster's node."""
    if cluster.engine is None:
        pytest.skip("an existing cluster may not be able to pull the last release's image")
    folder = tmp_path_factory.mktemp("last")
    run("git", "-C", ROOT, "archive", f"--output={folder}.tar", last_release())
    with tarfile.open(f"{folder}.tar") as archive:
        archive.extractall(folder, filter="data")
    env = {**os.environ, "PYTHONPATH": str(folder / "tests")}
    image = run(sys.executable, "-m", "harness", "image", env=env, cwd=folder).strip()
    cluster.load(image)
    yield folder / "charts/devbox-secrets", image
    release.install(cluster, DEBUG_LOG)


@pytest.mark.parametrize("method", ["policy", "webhook"])
def test_an_upgrade_loses_no_secret_and_disturbs_no_devbox(
    method: str, account: Account, last: tuple[Path, str]
) -> None:
    chart, image = last
    injection = f"--set=injection.method={method}"
    release.install(account.cluster, DEBUG_LOG, injection, chart=chart, image=image)
    for variable, value in LASTING.items():
        account.sync(variable, value)
    for name in ("one", "two"):
        account.create("Pod", name, account.spec(account.container("main", command=IDLE)), labels=DEVBOX)
    account.kubectl("wait", "--for=condition=Ready", "pod/one", "pod/two", "--timeout=60s")
    boxes, keys = devboxes(account), sealing_keys(account)

    with repeatedly(account, try_devbox, check_lasting_values, change_values) as calls:
        release.install(account.cluster, DEBUG_LOG, injection)
    assert min(calls) > 0

    assert devboxes(account) == boxes
    assert sealing_keys(account) == keys
    until("the account Secret has the lasting values", lambda: values(account) == LASTING)
    account.sync("LATER", "canary-later")
    assert account.run("box", account.spec(account.container("main", command=["printenv", "LATER", "LASTING_9"])))


def devboxes(account: Account) -> list[tuple[str, str, int]]:
    """Return the uid, the container and the restart count of each running devbox."""
    pods = account.cluster.get("pods", f"-n{account.name}")["items"]
    states = [(pod["metadata"]["uid"], pod["status"]["containerStatuses"][0]) for pod in pods]
    return sorted((uid, state["containerID"], state["restartCount"]) for uid, state in states)


def sealing_keys(account: Account) -> set[str]:
    return set(account.cluster.get("secret", "devbox-secrets-keys", f"-n{NAMESPACE}")["data"])


def values(account: Account) -> dict[str, str]:
    data = account.cluster.get("secret", SECRET, f"-n{account.name}")["data"]
    return {name: base64.b64decode(value).decode() for name, value in data.items()}


def check_lasting_values(account: Account, _: int) -> None:
    assert LASTING.items() <= values(account).items()


def change_values(account: Account, number: int) -> None:
    variable = f"PASSING_{number}"
    for value in ("canary-first", "canary-second"):
        account.apply(account.seal(variable, value))
    until(f"{variable} has its value", lambda: values(account).get(variable) == "canary-second", seconds=60)
    account.kubectl("delete", "accountsecret", variable.lower().replace("_", "-"))
    until(f"{variable} is gone", lambda: variable not in values(account), seconds=60)
