"""The gateway's limits: requests of one user, unknown tokens, and the API server's own limits."""

import asyncio
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from runloop_api_client import AsyncRunloop

from harness.controlplane import ControlPlane
from integration.support.account import Account
from integration.support.chart import Json, until
from integration.support.gateway import Gateway, gateway, new_account, token
from integration.support.gateway_requests import error_message

PER_SECOND, BURST = 5.0, 3


@pytest.fixture(scope="module")
def limited(controlplane: ControlPlane, tenant: Account) -> Iterator[Gateway]:
    with gateway(controlplane, rate_limit_per_second=str(PER_SECOND), rate_limit_burst=str(BURST)) as it:
        yield it


def test_a_user_over_the_limit_gets_429_with_retry_after_and_others_are_served(
    controlplane: ControlPlane, limited: Gateway, tenant: Account
) -> None:
    busy, other = (token(controlplane, tenant.name, user) for user in ("editor", "viewer"))
    with limited.client(busy) as api, limited.client(other) as quiet:
        answers = [api.get("/v1/secrets") for _ in range(BURST + 3)]
        assert quiet.get("/v1/secrets").status_code == 200
    refused = next(answer for answer in answers if answer.status_code != 200)
    assert "too many requests from this token's user; try again in 1 second" in error_message(
        refused, 429, "TooManyRequests"
    )
    assert refused.headers["Retry-After"] == "1"
    assert 0 < int(refused.headers["Retry-After-Ms"]) <= 1000 / PER_SECOND
    counted = limited.process.metric('devbox_secrets_gateway_rejected_requests_total{reason="rate_limit"}')
    assert counted == sum(answer.status_code == 429 for answer in answers)


def test_tokens_of_the_same_user_share_a_limit(controlplane: ControlPlane, tenant: Account) -> None:
    with gateway(controlplane, rate_limit_per_second="0.01", rate_limit_burst="1") as it:
        first, second = (token(controlplane, tenant.name) for _ in range(2))
        with it.client(first) as api, it.client(second) as again:
            assert api.get("/v1/secrets").status_code == 200
            refused = again.get("/v1/secrets")
    assert first != second
    error_message(refused, 429, "TooManyRequests")
    assert refused.headers["Retry-After"] == "60"  # the SDKs wouldn't wait longer


async def test_a_burst_from_the_sdk_is_slowed_down_but_succeeds(
    controlplane: ControlPlane, limited: Gateway, tenant: Account
) -> None:
    name = new_account(controlplane)
    many = 15

    async def burst() -> tuple[list[str], list[int]]:
        retries: list[int] = []

        async def note(answer: httpx.Response) -> None:
            if answer.status_code == 200:
                retries.append(int(answer.request.headers["x-stainless-retry-count"]))

        async with (
            httpx.AsyncClient(event_hooks={"response": [note]}, trust_env=False) as client,
            AsyncRunloop(base_url=limited.url, bearer_token=token(controlplane, name), http_client=client) as api,
        ):
            made = await asyncio.gather(*(api.secrets.create(name=f"S{n}", value="v") for n in range(many)))
            return sorted(secret.name for secret in made), retries

    started = time.monotonic()
    names, retries = await burst()
    assert names == sorted(f"S{n}" for n in range(many))
    assert time.monotonic() - started >= (many - BURST) / PER_SECOND - 1
    assert retries.count(0) >= BURST
    assert max(retries) <= 2  # each request gets its own time for the retry


def test_without_a_limit_no_request_is_rejected(rest: Gateway, controlplane: ControlPlane, tenant: Account) -> None:
    with rest.client(token(controlplane, tenant.name)) as api:
        assert {api.get("/v1/secrets").status_code for _ in range(50)} == {200}


def test_a_rejected_token_is_cached(controlplane: ControlPlane, tenant: Account) -> None:
    with gateway(controlplane) as it, it.client("made-up") as nobody:
        for _ in range(20):
            assert "the token is invalid" in error_message(nobody.get("/v1/secrets"), 401, "Unauthorized")
        asked = it.process.metric('devbox_secrets_gateway_upstream_requests_total{code="4xx"}')
    assert 1 <= asked <= 3  # the gateway asks again after five seconds


async def test_a_flood_of_unknown_tokens_does_not_block_known_users(
    controlplane: ControlPlane, tenant: Account
) -> None:
    many = 280  # more than the gateway asks the API server about, plus those that wait for it

    async def flood(it: Gateway) -> set[int]:
        limits = httpx.Limits(max_connections=many)
        async with httpx.AsyncClient(base_url=it.url, limits=limits, trust_env=False, timeout=60) as client:
            keys = ({"Authorization": f"Bearer unknown-{number}"} for number in range(many))
            answers = await asyncio.gather(*(client.get("/v1/secrets", headers=key) for key in keys))
        return {answer.status_code for answer in answers}

    async def call(it: Gateway) -> tuple[set[int], list[int]]:
        headers = {"Authorization": f"Bearer {token(controlplane, tenant.name)}"}
        async with httpx.AsyncClient(base_url=it.url, headers=headers, trust_env=False, timeout=60) as client:
            await client.get("/v1/secrets")
            flooding = asyncio.create_task(flood(it))
            known = [(await client.get("/v1/secrets")).status_code for _ in range(5)]
            return await flooding, known

    with gateway(controlplane) as it:
        strangers, known = await call(it)
        assert set(known) == {200}
        assert strangers <= {401, 429}
        assert "Traceback" not in it.log


@pytest.fixture
def throttled(controlplane: ControlPlane, tenant: Account) -> Iterator[str]:
    """The key of a user to whom the API server's Priority and Fairness gives almost no capacity."""
    kinds = {"apiVersion": "flowcontrol.apiserver.k8s.io/v1", "metadata": {"name": "jail"}}
    level: Json = {
        "type": "Limited",
        "limited": {"nominalConcurrencyShares": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"}},
    }
    flow: Json = {
        "priorityLevelConfiguration": {"name": "jail"},
        "matchingPrecedence": 2,
        "rules": [
            {
                "subjects": [
                    {"kind": "ServiceAccount", "serviceAccount": {"name": "viewer", "namespace": tenant.name}}
                ],
                "resourceRules": [
                    {
                        "verbs": ["*"],
                        "apiGroups": ["devbox-secrets.dev"],
                        "resources": ["*"],
                        "namespaces": ["*"],
                    }
                ],
            }
        ],
    }
    items = [
        {**kinds, "kind": "PriorityLevelConfiguration", "spec": level},
        {**kinds, "kind": "FlowSchema", "spec": flow},
    ]
    body = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    controlplane.kubectl("apply", "--filename=-", input=body)
    yield token(controlplane, tenant.name, "viewer")
    controlplane.kubectl("delete", "--filename=-", input=body)


def test_a_429_from_the_api_server_is_passed_on_with_retry_after(rest: Gateway, throttled: str) -> None:
    def refused() -> httpx.Response | None:
        """Send requests at once: the API server takes one at a time and rejects some."""
        with rest.client(throttled) as api, ThreadPoolExecutor(20) as pool:
            answers = pool.map(lambda _: api.get("/v1/secrets"), range(20))
            return next((answer for answer in answers if answer.status_code != 200), None)

    answer = until("the limit takes effect", refused)
    assert answer is not None
    assert "API server has too many requests; try again in 1 second" in error_message(answer, 429, "TooManyRequests")
    assert (answer.headers["Retry-After"], answer.headers["Retry-After-Ms"]) == ("1", "1000")
