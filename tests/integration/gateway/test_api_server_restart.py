"""The gateway while its API server starts and already serves requests, but hasn't loaded anyone's rights yet."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.gateway import Gateway, gateway
from integration.support.gateway_requests import WAIT, create
from integration.support.processes import Operator

RESTARTS = 3
CALLERS = 4
STARTING = "the Kubernetes API server is starting"


@pytest.fixture
def impatient(controlplane: ControlPlane, running: Operator, rest: Gateway) -> Iterator[Gateway]:
    """A gateway with a short wait timeout, because the operator is also sometimes disconnected."""
    with gateway(controlplane, sync_wait_timeout_seconds="2") as it:
        yield it


async def test_no_valid_token_is_rejected_while_the_api_server_starts(
    controlplane: ControlPlane, impatient: Gateway, tenant: Account, key: str
) -> None:
    with impatient.client(key) as api:
        secret = create(api, "TOKEN")
    async with calling(impatient, key, secret["id"]) as seen:
        for _ in range(RESTARTS):
            controlplane.apiserver.kill()
            controlplane.apiserver.start()
            await asyncio.to_thread(controlplane.apiserver.wait_ready)
            before = seen["list", 200]
            while seen["list", 200] == before:  # noqa: ASYNC110 - waits for the next successful response
                await asyncio.sleep(0.05)
    with impatient.client(key) as api:
        assert api.get("/v1/secrets/TOKEN").json()["id"] == secret["id"]
    seen.pop(("delete", 404), None)  # deletions of secrets that weren't created
    assert {(call, status) for call, status in seen if status not in {200, 429, 503}} == set()
    assert seen["starting", 503] > 0, seen


@asynccontextmanager
async def calling(it: Gateway, key: str, secret_id: str) -> AsyncIterator[Counter[tuple[str, int]]]:
    """Call every endpoint repeatedly in the background; yield the number of responses per call and status."""
    seen: Counter[tuple[str, int]] = Counter()
    stop = asyncio.Event()
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(base_url=it.url, headers=headers, trust_env=False, timeout=60) as api:

        async def call(what: str, method: str, path: str, **options: object) -> None:
            answer = await api.request(method, path, **options)  # type: ignore[arg-type]
            seen[what, answer.status_code] += 1
            if STARTING in answer.text:
                seen["starting", answer.status_code] += 1
            await asyncio.sleep(0.02)

        async def call_all(caller: int) -> None:
            number = 0
            while not stop.is_set():
                number += 1
                own, by_id = f"OWN_{caller}_{number}", f"/v1/secrets/id/{secret_id}"
                await call("list", "GET", "/v1/secrets")
                await call("get", "GET", "/v1/secrets/TOKEN")
                await call("get by id", "GET", by_id)
                await call("update", "POST", "/v1/secrets/TOKEN", json={"value": own})
                await call("update by id", "POST", f"{by_id}/update", json={"value": own})
                await call("create", "POST", "/v1/secrets", json={"name": own, "value": "v"})
                await call("delete", "POST", f"/v1/secrets/{own}/delete")

        async def wait() -> None:
            while not stop.is_set():
                await call("wait", "POST", "/v1/secrets/TOKEN", params=WAIT, json={"value": "v"})

        async with asyncio.TaskGroup() as tasks:
            for caller in range(CALLERS):
                tasks.create_task(call_all(caller))
            tasks.create_task(wait())
            yield seen
            stop.set()
