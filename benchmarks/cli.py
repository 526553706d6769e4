"""The time and memory that the CLI needs to start, and for `status` and `usage` in an account with many devboxes.

    PYTHONPATH=tests python benchmarks/cli.py

The pods are like those on a real cluster: a spec with the usual volumes and probes, and a status with all containers'
states, both with managed fields. The benchmark writes the statuses, not a kubelet. The last column is the peak memory.
"""

import asyncio
import json
import os
import subprocess
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

from integration.support.account import Account
from integration.support.chart import DEVBOX, Json, container, pod
from integration.support.processes import COMMAND
from support import APPLY, BenchmarkError, Client, Environment, Request, Server, arguments, environment, say, table

_NAMESPACE = "default"
_PODS = f"/api/v1/namespaces/{_NAMESPACE}/pods"
_ROUNDS = 5


@dataclass(frozen=True)
class Run:
    """One run of a command."""

    seconds: float
    cpu_seconds: float
    peak_mib: float


def main() -> None:
    """Create the pods in steps, and run both commands after each step."""
    sizes = arguments(__doc__, {"pods": 5_000, "secrets": 20})
    rows = [_row("help", ["--help"])]
    with environment() as at, at.operator():
        _create_secrets(at, sizes.secrets)
        key = at.controlplane.folder / "public-key"
        key.write_text(str(at.key.public))
        rows.append(_row("seal with a key file", ["seal", "TOKEN", "-n", "team", "--public-key", str(key)]))
        made = 0
        for count in (sizes.pods // 10, sizes.pods):
            say(f"creating {count - made:,} pods")
            # In a separate process, because a child's peak memory starts with its parent's.
            with ProcessPoolExecutor(1, get_context("spawn")) as maker:
                maker.submit(_create_pods, at.server, range(made, count)).result()
            made = count
            for command in ("status", "usage"):
                words = [command, "-n", _NAMESPACE, "--kubeconfig", str(at.controlplane.kubeconfig)]
                rows.append(_row(f"{command}, {count:,} devboxes", words))
    table(f"Best of {_ROUNDS}, {sizes.secrets} secrets", ["command", "seconds", "CPU s", "MiB"], rows)


def _create_secrets(at: Environment, count: int) -> None:
    say(f"creating {count} secrets")
    account = Account.of(at.controlplane, _NAMESPACE)
    for number in range(count):
        account.put(f"TOKEN_{number}", b"value")
    for number in range(count):
        account.is_ready(f"token-{number}")


def _create_pods(to: Server, numbers: range) -> None:
    asyncio.run(_send_pods(to, numbers))


async def _send_pods(to: Server, numbers: range) -> None:
    created = [Request("POST", f"{_PODS}?fieldManager=kube-controller-manager", _pod(number)) for number in numbers]
    async with Client.connect(to) as client:
        answers = await client.send_all(created)
        names = [json.loads(answer)["metadata"]["name"] for answer in answers]
        await client.send_all(
            [
                Request("PATCH", f"{_PODS}/{name}/status?fieldManager=kubelet&force=true", _status(name), APPLY)
                for name in names
            ]
        )


def _pod(number: int) -> bytes:
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 10}
    agent = container(
        "agent",
        command=["/usr/local/bin/agent", "--listen=0.0.0.0:8080", f"--session={number:032x}"],
        env=[{"name": f"SETTING_{each}", "value": "a value of some length"} for each in range(10)],
        resources={"requests": {"cpu": "1", "memory": "2Gi"}, "limits": {"memory": "4Gi"}},
        ports=[{"containerPort": 8080}],
        readinessProbe=probe,
        livenessProbe=probe,
        volumeMounts=[{"name": "work", "mountPath": "/workspace"}],
    )
    spec: Json = {
        "containers": [agent, container("proxy")],
        "initContainers": [container("setup")],
        "volumes": [{"name": "work", "emptyDir": {}}],
        "automountServiceAccountToken": True,
        "tolerations": [{"key": "devboxes", "operator": "Exists", "effect": "NoSchedule"}],
        "nodeName": f"node-{number % 100}",
    }
    body = pod(spec, {**DEVBOX, "app.kubernetes.io/name": "agent", "session": f"{number:032x}"})
    body["metadata"]["name"] = f"devbox-{number:05}"
    return json.dumps(body).encode()


def _status(name: str) -> bytes:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + (1 if name[-1] < "5" else -86400)))
    image = {"image": "registry.example/agent:1.2.3", "imageID": f"registry.example/agent@sha256:{'0' * 64}"}
    common = {"restartCount": 0, "containerID": f"containerd://{'1' * 64}", **image}
    running = {"ready": True, "started": True, "state": {"running": {"startedAt": now}}, **common}
    ended = {"exitCode": 0, "reason": "Completed", "startedAt": now, "finishedAt": now}
    kinds = ("Initialized", "Ready", "ContainersReady", "PodScheduled", "PodReadyToStartContainers")
    status = {
        "phase": "Running",
        "conditions": [{"type": kind, "status": "True", "lastTransitionTime": now} for kind in kinds],
        "containerStatuses": [{"name": each, **running} for each in ("agent", "proxy")],
        "initContainerStatuses": [{"name": "setup", "ready": True, "state": {"terminated": ended}, **common}],
        "hostIP": "10.0.0.1",
        "podIP": "10.1.0.1",
        "startTime": now,
        "qosClass": "Burstable",
    }
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "status": status}).encode()


def _row(what: str, words: list[str]) -> list[str]:
    best = min((_run(words) for _ in range(_ROUNDS)), key=lambda run: run.seconds)
    return [what, f"{best.seconds:.2f}", f"{best.cpu_seconds:.2f}", f"{best.peak_mib:.0f}"]


def _run(words: list[str]) -> Run:
    start = time.monotonic()
    with subprocess.Popen([COMMAND, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL) as process:
        # Not process.wait(): it doesn't return the child's resource usage.
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise BenchmarkError(f"{words[0]} exited with {process.returncode}")
    return Run(time.monotonic() - start, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)


if __name__ == "__main__":
    main()
