"""The effect on calls of Runloop's SDKs when the gateway's pods are deleted or rolled out.

    PYTHONPATH=tests python benchmarks/rollouts.py

Runs on a kind cluster, without TLS and with TLS; each client has its own account. Pods are deleted in sequence, the
oldest first, as soon as all replicas of the Deployment are ready again. Rollouts follow each other in the same way, so
some pods are always terminating.

The last columns are from the audit log: the gateway's own duration, the number of 5xx responses, which a slow API
server causes, and the number of requests that it received twice, with the same x-request-id.
"""

import json
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any
from uuid import uuid4

from e2e.accounts import Account
from e2e.gateway import CERTIFICATE, NAME, PODS, Endpoint, key_of, publish, replicas
from e2e.steady import CLIENTS, Tally, steady
from harness import kind, release
from harness.kind import Cluster
from harness.pki import Authority
from harness.release import NAMESPACE
from harness.tools import tool
from runloop import typescript
from runloop.typescript import TypeScript
from support import arguments, say, table

_GATEWAY = "--set=gateway.enabled=true,gateway.service.type=NodePort"
_TLS = f"--set=gateway.service.port=443,gateway.tls.secretName={CERTIFICATE}"
_POLL_SECONDS = 0.5
_STEADY_SECONDS = 3


@dataclass(frozen=True)
class Run:
    """An action on the pods, how often it is repeated, and the gateway's endpoint."""

    endpoint: Endpoint
    action: str
    times: int
    act: Callable[[Cluster], None]


def main() -> None:
    """Run the benchmark and print its table."""
    it = arguments(__doc__, {"deletions": 20, "rollouts": 20})
    authority, rows = Authority.create("benchmark"), list[list[str]]()
    with TemporaryDirectory() as folder, kind.cluster() as cluster:
        program = typescript.installed(Path(folder))
        file = Path(folder) / "ca.crt"
        file.write_bytes(authority.pem)
        for trusted in (None, file):
            publish(cluster, authority)
            release.install(cluster, _GATEWAY, *([_TLS] if trusted else []))
            endpoint = Endpoint.at_node_port(cluster, trusted)
            for run in (
                Run(endpoint, "deletions", it.deletions, delete_the_oldest),
                Run(endpoint, "rollouts", it.rollouts, roll_out),
            ):
                say(f"{run.times} {run.action}, {'with' if trusted else 'without'} TLS")
                rows += measure(run, program, Path(folder))
    header = (
        "",
        "client",
        "protocol",
        "calls",
        "failed",
        "remaining",
        "longest s",
        "served s",
        "5xx",
        "retried",
        "deletions",
    )
    table("Calls while the gateway's pods are replaced", header, rows)


def measure(run: Run, program: TypeScript, folder: Path) -> Iterator[list[str]]:
    """Repeat the action under steady calls, and return a row for each client."""
    cluster = run.endpoint.cluster
    accounts = {client: new_account(cluster) for client in CLIENTS}
    keys = {client: key_of(account) for client, account in accounts.items()}
    with audited(cluster, folder) as lines, steady(run.endpoint, keys, program) as tallies:
        time.sleep(_STEADY_SECONDS)
        for _ in range(run.times):
            run.act(cluster)
            wait_until_ready(cluster)
        while len(cluster.get("pods", *PODS)["items"]) > len(replicas(cluster)):
            time.sleep(_POLL_SECONDS)
        time.sleep(_STEADY_SECONDS)
    entries = lines()
    for client, account in accounts.items():
        remaining = len(account.cluster.get("accountsecrets", f"-n{account.name}")["items"])
        mine = [each for each in entries if each["account"] == account.name]
        title = f"{run.times} {run.action}, {'TLS' if run.endpoint.authority else 'no TLS'}"
        yield row(title, client, tallies[client], remaining, mine)
        cluster.kubectl("delete", "namespace", account.name, "--wait=false")


def row(title: str, client: str, tally: Tally, remaining: int, entries: list[dict[str, Any]]) -> list[str]:
    """Return a client's row of the table."""
    served = max(each["duration_ms"] for each in entries) / 1000
    errors = sum((each["status"] or 0) >= HTTPStatus.INTERNAL_SERVER_ERROR for each in entries)
    requests = Counter((each["request_id_hash"], each["request"]) for each in entries if each["request_id_hash"])
    retried = [request for (_, request), times in requests.items() if times > 1]
    deletions = sum("/delete" in request for request in retried)
    protocols = "+".join(sorted({each["protocol"] for each in entries}))
    failed = ", ".join(f"{times} {what}" for what, times in tally.failures.items()) or "0"
    columns = (str(tally.calls), failed, str(remaining), f"{tally.longest_seconds:.1f}")
    return [title, client, protocols, *columns, f"{served:.1f}", str(errors), str(len(retried)), str(deletions)]


def new_account(cluster: Cluster) -> Account:
    """Create an account's namespace."""
    name = f"rollouts-{uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    return Account(cluster, name, "none")


def delete_the_oldest(cluster: Cluster) -> None:
    """Delete the oldest pod, which has the most connections."""
    pods = [pod for pod in cluster.get("pods", *PODS)["items"] if "deletionTimestamp" not in pod["metadata"]]
    oldest = min(pods, key=lambda pod: str(pod["metadata"]["creationTimestamp"]))["metadata"]["name"]
    cluster.kubectl("delete", f"pod/{oldest}", f"-n{NAMESPACE}", "--wait=false")


def roll_out(cluster: Cluster) -> None:
    """Replace all pods."""
    cluster.kubectl("rollout", "restart", f"deployment/{NAME}", f"-n{NAMESPACE}")


def wait_until_ready(cluster: Cluster) -> None:
    """Wait until all replicas are ready and updated; the previous ones may still be terminating."""
    cluster.kubectl("rollout", "status", f"deployment/{NAME}", f"-n{NAMESPACE}", "--timeout=120s")


@contextmanager
def audited(cluster: Cluster, folder: Path) -> Iterator[Callable[[], list[dict[str, Any]]]]:
    """Follow each pod's log, and yield a function that returns the audit log's lines after the context."""
    stop, following = Event(), dict[str, Path]()

    def follow(stack: ExitStack) -> None:
        while not stop.is_set():
            for pod in set(replicas(cluster)) - following.keys():
                following[pod] = folder / uuid4().hex
                command = (tool("kubectl"), f"--kubeconfig={cluster.kubeconfig}", "logs", "-f", f"-n{NAMESPACE}", pod)
                file = stack.enter_context(following[pod].open("w"))
                process = subprocess.Popen(command, stdout=file, stderr=subprocess.DEVNULL)
                stack.callback(process.wait)
                stack.callback(process.terminate)
            stop.wait(_POLL_SECONDS)

    def lines() -> list[dict[str, Any]]:
        texts = [file.read_text().splitlines() for file in following.values()]
        return [json.loads(line) for text in texts for line in text if '"request_id_hash"' in line]

    with ExitStack() as stack:
        thread = Thread(target=follow, args=(stack,))
        thread.start()
        stack.callback(thread.join)
        stack.callback(stop.set)
        yield lines


if __name__ == "__main__":
    main()
