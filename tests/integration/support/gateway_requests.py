"""Requests to the gateway and checks of their responses."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from http import HTTPStatus

import httpx

from integration.support.account import Account
from integration.support.chart import Json, get, until

WAIT = {"wait": "true"}


def create(api: httpx.Client, name: str, value: str = "v", **headers: str) -> Json:
    """Create a secret and return it; retry while the API server limits requests, as the SDKs do."""

    def ask() -> httpx.Response | None:
        response = api.post("/v1/secrets", json={"name": name, "value": value}, headers=headers)
        return None if response.status_code == HTTPStatus.TOO_MANY_REQUESTS else response

    response = until(f"{name} is created", ask)
    assert response is not None
    assert response.status_code == 200, response.text
    secret: Json = response.json()
    return secret


def create_and_wait(api: httpx.Client, name: str, value: str = "v") -> httpx.Response:
    """Create a secret with wait=true."""
    return api.post("/v1/secrets", params=WAIT, json={"name": name, "value": value})


def error_message(response: httpx.Response, status: int, code: str) -> str:
    """Check that a response is an error of the contract, and return its message."""
    assert (response.status_code, set(response.json()), response.json()["code"]) == (status, {"message", "code"}, code)
    message: str = response.json()["message"]
    return message


def objects(account: Account) -> list[Json]:
    """Return an account's AccountSecrets."""
    items: list[Json] = get(account.controlplane, "accountsecrets", "-n", account.name)["items"]
    return items


@contextmanager
def in_background(send: Callable[[], httpx.Response]) -> Iterator[Future[httpx.Response]]:
    """Send a request in the background."""
    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(send)
