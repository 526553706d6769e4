"""The harness of the other tests: a real control plane that leaves nothing behind."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from harness.controlplane import ControlPlane, KubectlError
from harness.process import ComponentError, workspace
from harness.tools import KUBERNETES_VERSION
from harness.watch_proxy import WatchProxy

AUDIT_POLICY = """
apiVersion: audit.k8s.io/v1
kind: Policy
rules: [{level: Metadata}]
"""
OWNED = """
apiVersion: v1
kind: ConfigMap
metadata:
  name: owned
  ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}}}]
"""


@pytest.fixture(scope="module")
def other() -> Iterator[ControlPlane]:
    """A second control plane, for tests that break it."""
    with ControlPlane.start(audit_policy=AUDIT_POLICY, scheduler=True) as it:
        yield it


def test_serves_the_pinned_kubernetes_version(controlplane: ControlPlane) -> None:
    served = json.loads(controlplane.kubectl("version", "--output=json").stdout)["serverVersion"]
    assert served["gitVersion"] == KUBERNETES_VERSION


def test_two_control_planes_are_independent(controlplane: ControlPlane, other: ControlPlane) -> None:
    other.kubectl("create", "configmap", "only-here")
    assert "only-here" not in controlplane.kubectl("get", "configmaps", "--output=name").stdout


def test_deleting_an_owner_deletes_what_it_owns(controlplane: ControlPlane, namespace: str) -> None:
    in_namespace = f"--namespace={namespace}"
    controlplane.kubectl("create", "configmap", "owner", in_namespace)
    uid = controlplane.kubectl("get", "configmap", "owner", in_namespace, "--output=jsonpath={.metadata.uid}").stdout
    controlplane.kubectl("create", in_namespace, "--filename=-", input=OWNED.format(uid=uid))
    controlplane.kubectl("delete", "configmap", "owner", in_namespace)
    controlplane.kubectl("wait", "--for=delete", "configmap/owned", in_namespace, "--timeout=30s")


def test_deleting_a_namespace_deletes_its_objects(controlplane: ControlPlane) -> None:
    controlplane.kubectl("create", "namespace", "short-lived")
    controlplane.kubectl("create", "configmap", "inside", "--namespace=short-lived")
    controlplane.kubectl("delete", "namespace", "short-lived", "--timeout=60s")
    controlplane.kubectl("create", "namespace", "short-lived")
    with pytest.raises(KubectlError, match=r'configmaps "inside" not found'):
        controlplane.kubectl("get", "configmap", "inside", "--namespace=short-lived")


def test_a_deployment_creates_its_pods(controlplane: ControlPlane, namespace: str) -> None:
    in_namespace = f"--namespace={namespace}"
    controlplane.kubectl("create", "deployment", "web", "--image=web", "--replicas=2", in_namespace)
    controlplane.kubectl(
        "wait",
        "--for=jsonpath={.status.unavailableReplicas}=2",
        "deployment/web",
        in_namespace,
        "--timeout=30s",
    )
    assert len(controlplane.kubectl("get", "pods", in_namespace, "--output=name").stdout.split()) == 2


def test_a_service_account_kubeconfig_authenticates_as_that_account(controlplane: ControlPlane, namespace: str) -> None:
    kubeconfig = controlplane.service_account_kubeconfig(namespace, "default")
    assert _username(controlplane, kubeconfig) == f"system:serviceaccount:{namespace}:default"


def test_a_user_kubeconfig_has_that_user_and_no_permissions(controlplane: ControlPlane, namespace: str) -> None:
    kubeconfig = controlplane.user_kubeconfig("alice", "developers")
    assert _username(controlplane, kubeconfig) == "alice"
    with pytest.raises(KubectlError, match=r'User "alice" cannot list resource "secrets"'):
        controlplane.kubectl("get", "secrets", f"--namespace={namespace}", kubeconfig=kubeconfig)


def test_only_its_owner_can_read_a_kubeconfig(controlplane: ControlPlane) -> None:
    assert controlplane.kubeconfig.stat().st_mode & 0o777 == 0o600


def test_the_audit_log_shows_who_did_what(other: ControlPlane) -> None:
    other.kubectl("create", "configmap", "audited", "--as=alice", "--as-group=system:masters")
    events = [json.loads(line) for line in other.audit_log.read_text().splitlines()]
    created = [e for e in events if e["verb"] == "create" and e.get("objectRef", {}).get("name") == "audited"]
    assert {event["impersonatedUser"]["username"] for event in created} == {"alice"}


def test_the_scheduler_processes_pods(other: ControlPlane) -> None:
    other.kubectl("run", "waiting", "--image=web")
    other.kubectl("wait", "--for=condition=PodScheduled=False", "pod/waiting", "--timeout=30s")


def test_state_survives_a_restart_of_the_api_server(other: ControlPlane) -> None:
    other.kubectl("create", "configmap", "before-restart")
    before = other.apiserver.pid
    other.apiserver.restart()
    assert other.apiserver.pid != before
    other.kubectl("get", "configmap", "before-restart")


def test_state_survives_a_crash_of_etcd(other: ControlPlane) -> None:
    other.kubectl("create", "configmap", "before-crash")
    other.etcd.kill()
    other.etcd.start()
    other.etcd.wait_ready()
    other.apiserver.wait_ready()
    other.kubectl("get", "configmap", "before-crash")


def test_a_watch_from_before_a_compaction_must_list_again(other: ControlPlane) -> None:
    other.kubectl("create", "configmap", "compacted")
    other.compact()
    other.apiserver.restart()  # its cache remembers more than etcd
    watch = "/api/v1/namespaces/default/configmaps?watch=1&timeoutSeconds=5&resourceVersion=1"
    answer = other.kubectl("get", "--raw", watch, check=False)
    assert "too old resource version" in answer.stdout + answer.stderr


def test_etcd_rejects_writes_when_it_is_out_of_space(other: ControlPlane) -> None:
    with other.out_of_space(), pytest.raises(KubectlError, match="database space exceeded"):
        other.kubectl("create", "configmap", "too-much")
    other.kubectl("create", "configmap", "too-much")


def test_the_api_server_serves_a_renewed_certificate(other: ControlPlane) -> None:
    address = ("127.0.0.1", int(other.url.rpartition(":")[2]))
    before = ssl.get_server_certificate(address)
    other.renew_certificate()
    _wait_until(lambda: ssl.get_server_certificate(address) != before, timeout=90)


def test_a_proxy_rejects_requests_and_holds_them_while_the_network_is_down(other: ControlPlane) -> None:
    with WatchProxy.start(other) as proxy, httpx.Client(base_url=proxy.url, verify=False) as client:  # noqa: S501 - ours
        proxy.refusals = (429,)
        _wait_until(lambda: client.get("/readyz").status_code == 429)
        proxy.refusals = ()
        with ThreadPoolExecutor(1) as pool:
            with proxy.blackhole():
                held = pool.submit(client.get, "/readyz")
                with pytest.raises(httpx.ReadTimeout):
                    client.get("/readyz", timeout=1)
            assert held.result().text == "ok"


def test_an_error_says_why_a_component_did_not_start() -> None:
    with (
        pytest.raises(
            ComponentError,
            match=r"kube-apiserver: exited with 1.*(?s:.)*unknown flag: --no-such-flag",
        ),
        ControlPlane.start(apiserver_args=["--no-such-flag"]),
    ):
        pytest.fail("started despite an unknown flag")


def test_a_killed_run_leaves_nothing_behind() -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = [sys.executable, "-m", "harness.controlplane"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        folder = Path(run.stdout.readline().strip().rpartition("=")[2]).parent
        assert _programs_in(folder) == {
            "etcd",
            "kube-apiserver",
            "kube-controller",
            "kube-scheduler",
        }
        run.send_signal(signal.SIGKILL)
    _wait_until(lambda: not _programs_in(folder))
    with workspace():
        assert not folder.exists()


def _username(controlplane: ControlPlane, kubeconfig: Path) -> str:
    answer = controlplane.kubectl("auth", "whoami", "--output=json", kubeconfig=kubeconfig).stdout
    return str(json.loads(answer)["status"]["userInfo"]["username"])


def _programs_in(folder: Path) -> set[str]:
    """Return the names of the processes whose working directory is the folder, as the kernel truncates them."""
    names = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder:
                names.add((process / "comm").read_text().strip())
        except OSError:  # it has exited, or another user owns it
            continue
    return names


def _wait_until(holds: Callable[[], bool], timeout: float = 10.0) -> None:
    deadline = time.monotonic() + timeout
    while not holds():
        assert time.monotonic() < deadline, f"the condition isn't met after {timeout:.0f} s"
        time.sleep(0.02)
