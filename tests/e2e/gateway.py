"""The gateway on a real cluster, as its clients reach it: at a node's port, or one replica alone. Imports accounts."""

import asyncio
import re
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from runloop_api_client import AsyncRunloop, DefaultAsyncHttpxClient, DefaultHttpxClient, NotFoundError, Runloop

from e2e.accounts import Account
from harness.kind import Cluster
from harness.release import NAMESPACE
from harness.tools import tool
from runloop.typescript import TypeScript

NAME = "devbox-secrets-gateway"
PODS = (f"-n{NAMESPACE}", f"-lapp.kubernetes.io/name={NAME}")
_REACHED_SECONDS = 20.0


@dataclass(frozen=True)
class Door:
    """Where the gateway is, and who vouches for its certificate if it has one."""

    cluster: Cluster
    url: str
    authority: Path | None = None

    @classmethod
    def at_a_node(cls, cluster: Cluster, authority: Path | None) -> "Door":
        """Find its NodePort, and wait until it answers there."""
        ports = cluster.get("service", NAME, f"-n{NAMESPACE}")["spec"]["ports"]
        addresses = cluster.get("nodes")["items"][0]["status"]["addresses"]
        (host,) = [it["address"] for it in addresses if it["type"] == "InternalIP"][:1]
        it = cls(cluster, f"{'https' if authority else 'http'}://{host}:{ports[0]['nodePort']}", authority)
        started = time.monotonic()
        while not it.answers():
            if time.monotonic() - started > _REACHED_SECONDS:
                if cluster.engine is None:
                    pytest.skip(f"{it.url} can't be reached from here")
                pytest.fail(f"{it.url} doesn't answer")
        return it

    @cached_property
    def verify(self) -> ssl.SSLContext | bool:
        return ssl.create_default_context(cafile=self.authority) if self.authority else True

    def answers(self) -> bool:
        """Tell whether it does, over a new connection."""
        try:
            return httpx.get(f"{self.url}/readyz", verify=self.verify, trust_env=False, timeout=5).is_success
        except httpx.TransportError:
            return False

    def runloop(self, key: str, **options: Any) -> Runloop:  # noqa: ANN401 - the SDK's own
        """Give Runloop's SDK; it's used as it is, but for whom it trusts."""
        client = DefaultHttpxClient(verify=self.verify, trust_env=False)
        return Runloop(base_url=self.url, bearer_token=key, http_client=client, **options)

    def asynchronous(self, key: str) -> AsyncRunloop:
        """Give Runloop's asynchronous SDK."""
        client = DefaultAsyncHttpxClient(verify=self.verify, trust_env=False)
        return AsyncRunloop(base_url=self.url, bearer_token=key, http_client=client)


def key_of(account: Account) -> str:
    """Give an account's API key, made as the documents say how to."""
    account.kubectl("create", "serviceaccount", "ci")
    edit = ("--clusterrole=devbox-secrets-edit", f"--serviceaccount={account.name}:ci")
    account.kubectl("create", "rolebinding", "ci", *edit)
    return account.kubectl("create", "token", "ci").strip()


def replicas(cluster: Cluster) -> list[str]:
    """Name the gateway's pods that aren't ending."""
    pods = cluster.get("pods", *PODS)["items"]
    return [f"pod/{pod['metadata']['name']}" for pod in pods if "deletionTimestamp" not in pod["metadata"]]


@contextmanager
def one_replica(door: Door, pod: str) -> Iterator[Door]:
    """Reach one replica alone."""
    command: list[str | Path] = [
        tool("kubectl"),
        f"--kubeconfig={door.cluster.kubeconfig}",
        "port-forward",
        f"-n{NAMESPACE}",
        pod,
        ":http",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert found, f"{pod} can't be reached"
            yield replace(door, url=re.sub(r"//.*", f"//127.0.0.1:{found[1]}", door.url))
        finally:
            process.terminate()


@contextmanager
def clients(door: Door, key: str, typescript: TypeScript) -> Iterator[Callable[[], int]]:
    """Let each of Runloop's SDKs make, read, change and delete secrets all the while, with its own retries.

    At the end each must have done so several times, and no call may have failed. Gives who tells how many
    secrets have come and gone by Python.
    """
    stop, done = Event(), [0, 0]

    def synchronous() -> None:
        with door.runloop(key) as api:
            while not stop.is_set():
                name = f"SYNC_{done[0]}"
                made = api.secrets.create(name=name, value="v")
                api.secrets.update(name, value="w")
                assert made.id in {it.id for it in api.secrets.list(limit=5000).secrets}
                with suppress(NotFoundError):  # what a retry finds where the first try was done and not answered
                    api.secrets.delete(name)
                done[0] += 1

    async def asynchronous() -> None:
        async with door.asynchronous(key) as api:
            while not stop.is_set():
                made = await api.secrets.create(name=f"ASYNC_{done[1]}", value="v")
                await asyncio.gather(*[api.secrets.retrieve_by_id(made.id) for _ in range(3)])
                with suppress(NotFoundError):
                    await api.secrets.delete_by_id(made.id)
                done[1] += 1

    node = typescript.start("steady", url=door.url, key=key, authority=door.authority)
    with node, ThreadPoolExecutor() as threads:
        running = [threads.submit(synchronous), threads.submit(asyncio.run, asynchronous())]
        try:
            yield lambda: sum(done)
        finally:
            stop.set()
            shown, said = node.communicate(timeout=60)
        for each in running:
            each.result()
    assert node.returncode == 0, f"{node.returncode}: {said}"
    assert min(*done, int(shown)) > 5
