"""wait=true during outages of the operator and the API server, and after the client or the secret is gone."""

import asyncio
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from runloop_api_client import Runloop

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import install, until
from integration.support.gateway import Gateway, gateway, new_account, publish_key, token
from integration.support.gateway_requests import WAIT, create_and_wait, error_message, in_background, objects
from integration.support.processes import operator


@pytest.fixture
def account(controlplane: ControlPlane, rest: Gateway) -> Account:
    return Account.of(controlplane, new_account(controlplane))


@pytest.fixture
def key(controlplane: ControlPlane, account: Account) -> str:
    return token(controlplane, account.name)


@pytest.fixture
def api(rest: Gateway, key: str) -> Iterator[httpx.Client]:
    with rest.client(key) as it:
        it.timeout = httpx.Timeout(60)
        yield it


def watches(controlplane: ControlPlane) -> int:
    """Return the number of open watches of single AccountSecrets; controllers watch the whole cluster."""
    metrics = controlplane.read_text("/metrics")
    pattern = r'^apiserver_longrunning_requests\{.*resource="accountsecrets",scope="resource".*verb="WATCH".*\} (\d+)$'
    return sum(map(int, re.findall(pattern, metrics, re.MULTILINE)))


def test_without_the_operator_waiting_ends_with_503_and_retry_after(
    controlplane: ControlPlane, rest: Gateway, account: Account, key: str
) -> None:
    with gateway(controlplane, sync_wait_timeout_seconds="0.5") as it, it.client(key) as api:
        answer = create_and_wait(api, "TOKEN")
        assert "the secret was written" in error_message(answer, 503, "ServiceUnavailable")
        assert answer.headers["Retry-After"] == "2"
        assert [each["spec"]["name"] for each in objects(account)] == ["TOKEN"]


def test_a_retry_of_the_sdk_continues_waiting_without_writing_again(
    controlplane: ControlPlane, rest: Gateway, account: Account, key: str
) -> None:
    counts: list[int] = []
    hooks = {"request": [lambda request: counts.append(int(request.headers["x-stainless-retry-count"]))]}
    with (
        gateway(controlplane, sync_wait_timeout_seconds="0.5") as it,
        httpx.Client(event_hooks=hooks, trust_env=False) as http,
        Runloop(base_url=it.url, bearer_token=key, http_client=http, max_retries=20) as runloop,
        ThreadPoolExecutor(1) as pool,
    ):
        creation = pool.submit(lambda: runloop.secrets.create(name="TOKEN", value="1", extra_query=WAIT))
        until("the SDK retries", lambda: max(counts, default=0) >= 1)
        (written,) = objects(account)
        with operator(controlplane):
            assert creation.result(60).name == "TOKEN"
            assert account.data() == {"TOKEN": b"1"}
        (after,) = objects(account)
        assert (after["spec"], after["metadata"]["generation"]) == (written["spec"], 1)
        counts.clear()
        update = pool.submit(lambda: runloop.secrets.update("TOKEN", value="2", extra_query=WAIT))
        until("the SDK retries", lambda: max(counts, default=0) >= 1)
        with operator(controlplane):
            updated = update.result(60)
            assert account.data() == {"TOKEN": b"2"}
        assert objects(account)[0]["metadata"]["generation"] == 2
        assert runloop.secrets.retrieve("TOKEN") == updated


def test_another_replica_continues_the_wait_with_the_same_request_id(
    controlplane: ControlPlane, rest: Gateway, account: Account, key: str
) -> None:
    again = {"x-request-id": "stainless-python-retry-1"}
    body = {"name": "TOKEN", "value": "v"}
    with gateway(controlplane, sync_wait_timeout_seconds="0.5") as it, it.client(key) as api:
        error_message(api.post("/v1/secrets", params=WAIT, json=body, headers=again), 503, "ServiceUnavailable")
    with operator(controlplane), rest.client(key) as api:
        api.timeout = httpx.Timeout(60)
        account.is_ready("token")  # so the wait gets no further event
        assert api.post("/v1/secrets", params=WAIT, json=body, headers=again).status_code == 200


async def test_the_watch_is_closed_when_an_http_2_client_disconnects(
    controlplane: ControlPlane, rest: Gateway, account: Account, key: str
) -> None:
    headers = {"Authorization": f"Bearer {key}"}
    async with httpx.AsyncClient(http1=False, http2=True, headers=headers, trust_env=False) as api:
        call = asyncio.create_task(
            api.post(f"{rest.url}/v1/secrets", params=WAIT, json={"name": "TOKEN", "value": "v"}, timeout=60)
        )
        await asyncio.to_thread(until, "the gateway waits", lambda: watches(controlplane) == 1)
        call.cancel()
    # Long before the wait would time out after 20 seconds.
    started = time.monotonic()
    until("the watch is closed", lambda: watches(controlplane) == 0)
    assert time.monotonic() - started < 10
    assert "Traceback" not in rest.log


async def test_more_waits_than_aiohttps_default_of_100_connections_do_not_block_others(
    controlplane: ControlPlane, rest: Gateway, account: Account, key: str
) -> None:
    many = 101
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {key}", "x-request-id": "one"}
    async with httpx.AsyncClient(base_url=rest.url, headers=headers, timeout=60, limits=limits, trust_env=False) as api:
        body = {"name": "TOKEN", "value": "v"}
        assert (await api.post("/v1/secrets", json=body)).status_code == 200
        retries = [asyncio.create_task(api.post("/v1/secrets", params=WAIT, json=body)) for _ in range(many)]
        await asyncio.to_thread(until, "all requests wait", lambda: watches(controlplane) == many)
        started = time.monotonic()
        page = await api.get("/v1/secrets", params={"limit": 1})
        assert (page.json()["total_count"], time.monotonic() - started < 2) == (1, True)
        account.delete("token")
        assert {answer.status_code for answer in await asyncio.gather(*retries)} == {404}
    until("the watches are closed", lambda: watches(controlplane) == 0)


def test_waiting_requests_get_503_when_the_process_stops(
    controlplane: ControlPlane, rest: Gateway, account: Account, key: str
) -> None:
    with (
        gateway(controlplane) as it,
        it.client(key) as api,
        in_background(lambda: create_and_wait(api, "TOKEN")) as answer,
    ):
        until("the gateway waits", lambda: watches(controlplane) == 1)
        started = time.monotonic()
        assert it.component.stop() == 0
        error_message(answer.result(), 503, "ServiceUnavailable")
        assert time.monotonic() - started < 10


def test_waiting_for_a_secret_that_is_deleted_ends_with_404(
    controlplane: ControlPlane, account: Account, api: httpx.Client
) -> None:
    with in_background(lambda: create_and_wait(api, "TOKEN")) as answer:
        until("the gateway waits", lambda: watches(controlplane) == 1)
        account.delete("token")
        error_message(answer.result(30), 404, "NotFound")


def test_a_wait_survives_a_restart_of_the_api_server() -> None:
    with ControlPlane.start() as it:
        install(it)
        publish_key(it)
        account = Account.of(it, new_account(it))
        with gateway(it, sync_wait_timeout_seconds="100") as process, process.client(token(it, account.name)) as api:
            api.timeout = httpx.Timeout(120)
            with in_background(lambda: create_and_wait(api, "TOKEN")) as answer:
                until("the gateway waits", lambda: watches(it) == 1)
                it.apiserver.kill()
                it.apiserver.start()
                it.apiserver.wait_ready()
                with operator(it):
                    assert answer.result(60).status_code == 200
                    assert account.data() == {"TOKEN": b"v"}
