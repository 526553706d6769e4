"""The main use case on a real cluster: containers of devboxes have the account's values."""

import json
import time
from pathlib import Path

import pytest
import yaml

from e2e.accounts import DEVBOX, PRINT, SECRET, Account, until
from harness.kind import Cluster
from harness.release import NAMESPACE
from harness.run import ClusterError


def test_a_devbox_created_a_second_after_the_apply_has_the_value(account: Account) -> None:
    account.apply(account.seal("TOKEN", "just-applied"))
    time.sleep(1)  # the product promises one second
    assert account.run("box") == "main: just-applied\n"


def test_every_container_and_init_container_has_the_variable(account: Account) -> None:
    account.sync("TOKEN", "for-all")
    pod = account.spec(account.container("one"), account.container("two"), initContainers=[account.container("before")])
    assert sorted(account.run("box", pod).splitlines()) == ["before: for-all", "one: for-all", "two: for-all"]


def test_new_devboxes_reflect_an_update_and_a_deletion(account: Account) -> None:
    account.sync("TOKEN", "first")
    assert account.run("box-1") == "main: first\n"
    account.apply(account.seal("TOKEN", "second"))
    account.kubectl("wait", "--for=jsonpath={.status.observedGeneration}=2", "accountsecret/token")
    assert account.run("box-2") == "main: second\n"
    account.kubectl("delete", "accountsecret", "token")
    account.kubectl("wait", "--for=delete", f"secret/{SECRET}", "--timeout=10s")
    assert account.run("box-3") == "main: not set\n"


def test_the_pods_own_env_wins(account: Account) -> None:
    account.sync("TOKEN", "the account's")
    own = [{"name": "NAME", "value": "main"}, {"name": "TOKEN", "value": "the pod's"}]
    assert account.run("box", account.spec(account.container("main", env=own))) == "main: the pod's\n"


def test_a_pod_that_is_not_a_devbox_gets_nothing(account: Account) -> None:
    account.sync("TOKEN", "x")
    assert account.run("other", labels={"app": "other"}) == "main: not set\n"


def test_a_value_of_several_lines_arrives_unchanged(account: Account) -> None:
    account.sync("TOKEN", "-----BEGIN-----\nzwei: ü\n-----END-----\n")
    assert account.run("box") == "main: -----BEGIN-----\nzwei: ü\n-----END-----\n\n"


def test_pods_of_jobs_deployments_and_statefulsets_are_devboxes(account: Account) -> None:
    account.sync("TOKEN", "x")
    stay = account.container("main", command=["sh", "-c", f"{PRINT}; sleep infinity"])
    for kind in ("Deployment", "StatefulSet"):
        template = {"metadata": {"labels": {**DEVBOX, "app": kind}}, "spec": account.spec(stay, restartPolicy="Always")}
        spec = {"selector": {"matchLabels": {"app": kind}}, "template": template}
        account.create(kind, kind.lower(), spec, api="apps/v1")
    job = {"template": {"metadata": {"labels": DEVBOX}, "spec": account.spec(account.container("main"))}}
    account.create("Job", "job", job, api="batch/v1")
    account.kubectl("rollout", "status", "deployment/deployment", "--timeout=60s")
    account.kubectl("rollout", "status", "statefulset/statefulset", "--timeout=60s")
    account.kubectl("wait", "--for=condition=Complete", "job/job", "--timeout=60s")
    for what in ("deployment/deployment", "statefulset/statefulset", "job/job"):
        assert account.kubectl("logs", what) == "main: x\n"


def test_devboxes_start_with_the_synced_values_while_the_operator_is_scaled_to_zero(account: Account) -> None:
    account.sync("TOKEN", "synced before")
    account.cluster.kubectl("scale", "deployment/devbox-secrets", f"-n{NAMESPACE}", "--replicas=0")
    try:
        pods = ("get", "pods", f"-n{NAMESPACE}", "-o=name")
        until("the operator's pods are gone", lambda: account.cluster.kubectl(*pods) == "", seconds=40)
        assert account.run("box") == "main: synced before\n"
        account.kubectl("delete", "accountsecret", "token", "--timeout=5s")
    finally:
        account.cluster.kubectl("scale", "deployment/devbox-secrets", f"-n{NAMESPACE}", "--replicas=2")
        account.cluster.kubectl("rollout", "status", "deployment/devbox-secrets", f"-n{NAMESPACE}", "--timeout=60s")
    account.kubectl("wait", "--for=delete", f"secret/{SECRET}", "--timeout=10s")


def test_the_account_secret_is_restored_within_two_seconds(account: Account) -> None:
    account.sync("TOKEN", "x")

    def is_restored() -> bool:
        try:
            found = account.kubectl("get", "secret", SECRET, "-o", "jsonpath={.data}")
        except ClusterError:
            return False
        return found == '{"TOKEN":"eA=="}'

    account.kubectl("patch", "secret", SECRET, "--type=merge", "-p", '{"data": {"TOKEN": "eQ==", "STRAY": "eQ=="}}')
    assert until("the edit is undone", is_restored) < 2
    account.kubectl("delete", "secret", SECRET)
    assert until("the deletion is undone", is_restored) < 2


def test_an_invalid_value_does_not_block_others_and_its_status_says_what_to_do(account: Account) -> None:
    foreign = account.seal("COPIED", "x", account="another-account").replace("another-account", account.name)
    account.apply(foreign)
    account.sync("TOKEN", "x")
    account.kubectl("wait", "--for=jsonpath={.status.conditions[0].reason}=CannotOpen", "accountsecret/copied")
    message = account.kubectl("get", "acs", "copied", "-o", "jsonpath={.status.conditions[0].message}")
    assert f"seal it again: devbox-secrets seal COPIED --account {account.name}" in message
    assert account.run("box") == "main: x\n"


def test_a_foreign_secret_is_not_touched(account: Account) -> None:
    account.kubectl("create", "secret", "generic", SECRET, "--from-literal=TOKEN=theirs")
    before = account.kubectl("get", "secret", SECRET, "-o", "yaml")
    account.apply(account.seal("TOKEN", "ours"))
    account.kubectl(
        "wait", "--for=jsonpath={.status.conditions[0].reason}=NotOwned", "accountsecret/token", "--timeout=20s"
    )
    assert account.kubectl("get", "secret", SECRET, "-o", "yaml") == before


def test_a_quota_limits_an_account_with_a_clear_error(account: Account) -> None:
    text = (Path(__file__).parents[2] / "docs" / "operations" / "availability.md").read_text()
    (block,) = [block for block in text.split("```yaml\n")[1:] if "kind: ResourceQuota" in block]
    quota = yaml.safe_load(block.partition("```")[0])
    quota["metadata"]["namespace"] = account.name
    quota["spec"]["hard"] = dict.fromkeys(quota["spec"]["hard"], "1")
    account.apply(json.dumps(quota))
    account.kubectl("wait", "--for=jsonpath={.status.hard}", "resourcequota/accountsecrets", "--timeout=30s")
    account.sync("TOKEN", "fits")
    with pytest.raises(ClusterError, match="exceeded quota: accountsecrets, requested: count/accountsecrets"):
        account.apply(account.seal("OTHER", "one too many"))
    account.apply(account.seal("TOKEN", "changes"))
    account.kubectl("delete", "accountsecret", "token")
    nothing = '{"count/accountsecrets.devbox-secrets.dev":"0"}'
    status = ("get", "resourcequota", "accountsecrets", "-o=jsonpath={.status.used}")
    until("the quota is unused again", lambda: account.kubectl(*status) == nothing)
    account.sync("OTHER", "fits now")


def test_logs_events_statuses_and_metrics_contain_no_values(account: Account) -> None:
    canaries = ["canary-one-sings", "canary-two-sings"]
    account.sync("TOKEN", canaries[0])
    account.apply(account.seal("TOKEN", canaries[1]))
    account.apply(account.seal("LD_PRELOAD", canaries[1], "--allow-reserved"))
    account.kubectl("wait", "--for=jsonpath={.status.conditions[0].reason}=ReservedName", "accountsecret/ld-preload")
    account.run("box")
    pods = account.cluster.get("pods", f"-n{NAMESPACE}", "-lapp.kubernetes.io/name=devbox-secrets")["items"]
    names = [pod["metadata"]["name"] for pod in pods]
    proxy = f"/api/v1/namespaces/{NAMESPACE}/pods/{{}}:8080/proxy/metrics"
    written = {
        "logs": "".join(account.cluster.kubectl("logs", name, f"-n{NAMESPACE}") for name in names),
        "metrics": "".join(account.cluster.kubectl("get", "--raw", proxy.format(name)) for name in names),
        "events": account.cluster.kubectl("get", "events", "-A", "-o", "yaml"),
        "statuses": account.kubectl("get", "acs", "-o", "yaml"),
        "pods": account.cluster.kubectl("get", "pods", "-A", "-o", "yaml"),
    }
    assert "DEBUG" in json.dumps(account.cluster.get("deployment", "devbox-secrets", f"-n{NAMESPACE}"))
    assert account.name in written["logs"]
    assert 'reason="ReservedName"' in written["metrics"]
    for canary in canaries:
        assert [where for where, text in written.items() if canary in text] == []


def test_the_operator_runs_with_minimal_rights(cluster: Cluster) -> None:
    pods = cluster.get("pods", f"-n{NAMESPACE}")["items"]
    assert len(pods) == 2
    for pod in pods:
        (container,) = pod["spec"]["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"] is True
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 0
    listing = cluster.kubectl(
        *("auth", "can-i", "--list", "--no-headers", "-n", "default"),
        f"--as=system:serviceaccount:{NAMESPACE}:devbox-secrets",
    )
    secrets = [line.split() for line in listing.splitlines() if line.startswith("secrets")]
    assert [line[2] for line in secrets] == [f"[{SECRET}]"]
