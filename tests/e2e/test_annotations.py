"""The effects of a pod's annotations on its containers, on a real cluster."""

import re

import pytest

from e2e.accounts import DEVBOX, Account, Json, until
from harness.run import ClusterError

INJECT, ENV, MOUNT = (f"devbox-secrets.dev/{name}" for name in ("inject", "env", "mount"))
PATH = "/run/secrets/account"
NAMES = ("GITHUB_TOKEN", "DB", "PROD_DATABASE_URL", "OTHER")
VARIABLES = ["sh", "-c", "; ".join(f'echo "{name}: ${{{name}-not set}}"' for name in NAMES)]
FILES = ["sh", "-c", f'cd {PATH} && for each in *; do echo "$each: $(cat "$each")"; done']


def sync_three_variables(account: Account) -> None:
    for name, value in {"GITHUB_TOKEN": "the token", "PROD_DATABASE_URL": "the url", "OTHER": "more"}.items():
        account.sync(name, value)


def devbox(account: Account, name: str, spec: Json, annotations: dict[str, str]) -> None:
    account.create("Pod", name, spec, labels=DEVBOX, annotations=annotations)


def test_env_selects_and_renames_variables_in_every_container(account: Account) -> None:
    sync_three_variables(account)
    before = account.container("before", command=VARIABLES)
    main = account.container("main", command=VARIABLES)
    spec = account.spec(main, initContainers=[before])
    shown = account.run("box", spec, annotations={ENV: "GITHUB_TOKEN, DB=PROD_DATABASE_URL"})
    chosen = "GITHUB_TOKEN: the token\nDB: the url\nPROD_DATABASE_URL: not set\nOTHER: not set\n"
    assert shown == chosen * 2


def test_a_containers_own_env_wins_and_can_refer_to_selected_variables(account: Account) -> None:
    sync_three_variables(account)
    env = [{"name": "GITHUB_TOKEN", "value": "its own"}, {"name": "OTHER", "value": "from $(DB)"}]
    spec = account.spec(account.container("main", command=VARIABLES, env=env))
    shown = account.run("box", spec, annotations={ENV: "GITHUB_TOKEN, DB=PROD_DATABASE_URL"})
    assert shown == "GITHUB_TOKEN: its own\nDB: the url\nPROD_DATABASE_URL: not set\nOTHER: from the url\n"


def test_inject_false_prevents_injection(account: Account) -> None:
    sync_three_variables(account)
    spec = account.spec(account.container("main", command=VARIABLES))
    shown = account.run("box", spec, annotations={INJECT: "false"})
    assert shown == "".join(f"{name}: not set\n" for name in NAMES)


def test_mount_creates_files_in_every_container_that_any_user_can_read(account: Account) -> None:
    sync_three_variables(account)
    someone = {"runAsUser": 1234, "runAsGroup": 1234}
    before = account.container("before", command=FILES, securityContext=someone)
    main = account.container("main", command=FILES, securityContext=someone)
    shown = account.run("box", account.spec(main, initContainers=[before]), annotations={MOUNT: PATH})
    assert shown == "GITHUB_TOKEN: the token\nOTHER: more\nPROD_DATABASE_URL: the url\n" * 2


def test_files_are_updated_in_a_running_devbox_and_its_environment_is_not(account: Account) -> None:
    account.sync("OTHER", "first")
    devbox(account, "box", account.spec(account.container("main", command=["sleep", "infinity"])), {MOUNT: PATH})
    account.kubectl("wait", "--for=condition=Ready", "pod/box", "--timeout=60s")

    def files() -> str:
        return account.kubectl("exec", "box", "--", *FILES)

    assert files() == "OTHER: first\n"
    account.apply(account.seal("OTHER", "second"))
    until("the file has the new value", lambda: files() == "OTHER: second\n", seconds=150)
    account.sync("DB", "new")
    account.kubectl("delete", "accountsecret", "other")
    until("the file of the deleted secret is gone", lambda: files() == "DB: new\n", seconds=150)
    assert "OTHER: first\n" in account.kubectl("exec", "box", "--", *VARIABLES)


def test_in_a_labeled_namespace_a_devbox_waits_for_a_variable_in_its_annotation(account: Account) -> None:
    account.cluster.kubectl("label", "namespace", account.name, f"devbox-secrets.dev/account={account.name}")
    account.sync("OTHER", "x")
    spec = account.spec(account.container("main", command=VARIABLES))
    devbox(account, "box", spec, {ENV: "DB=PROD_DATABASE_URL"})
    waiting = "jsonpath={.status.containerStatuses[0].state.waiting.reason}"
    account.kubectl("wait", f"--for={waiting}=CreateContainerConfigError", "pod/box", "--timeout=60s")
    account.sync("PROD_DATABASE_URL", "the url")
    account.kubectl("wait", "--for=jsonpath={.status.phase}=Succeeded", "pod/box", "--timeout=150s")
    # The kubelet can return an empty log for a moment after the container has terminated.
    until("the log has the variable", lambda: "DB: the url\n" in account.kubectl("logs", "box"))


def test_a_pod_with_an_unknown_annotation_is_rejected_with_the_supported_ones(account: Account) -> None:
    spec = account.spec(account.container("main"))
    message = f"unknown annotation devbox-secrets.dev/envs; supported are {INJECT}, {ENV} and {MOUNT}"
    with pytest.raises(ClusterError, match=re.escape(message)):
        devbox(account, "box", spec, {"devbox-secrets.dev/envs": "DB"})
