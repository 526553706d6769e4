"""Runloop's SDKs under steady load: each creates and deletes secrets continuously, and every call is checked."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from threading import Event

from runloop_api_client import APIStatusError, AsyncRunloop, Runloop, RunloopError
from runloop_api_client.types import SecretView

from e2e.gateway import Endpoint
from runloop.typescript import TypeScript

#: The maximum duration of a call, including its SDK's retries, which pause for seconds.
CALL_SECONDS = 20
#: The number of concurrent loops of a client that supports it.
_LOOPS = 3
SYNC, SYNC_HTTP1, ASYNC, TYPESCRIPT = CLIENTS = (
    "Python",
    "Python, HTTP/1.1",
    "Python, async",
    "TypeScript",
)


@dataclass
class Tally:
    """The results of a client's calls."""

    calls: int = 0
    longest_seconds: float = 0
    failures: Counter[str] = field(default_factory=Counter)

    @contextmanager
    def call(self, what: str) -> Iterator[None]:
        """Check a call and the assertions on its response; failures are counted and raised."""
        started = time.monotonic()
        try:
            yield
        except (RunloopError, AssertionError, TimeoutError) as error:
            self.failures[f"{what}: {_kind(error)}"] += 1
            raise
        finally:
            seconds = time.monotonic() - started
            self.calls += 1
            self.longest_seconds = max(self.longest_seconds, seconds)
            if seconds > CALL_SECONDS:
                self.failures[f"{what}: no response within {CALL_SECONDS} s"] += 1


@contextmanager
def steady(endpoint: Endpoint, keys: Mapping[str, str], typescript: TypeScript) -> Iterator[Mapping[str, Tally]]:
    """Have each client create, update, read and delete secrets during the context; its tallies are complete afterwards.

    The Python SDK negotiates HTTP/2 with TLS, so one of its clients is limited to HTTP/1.1.
    """
    stop, tallies = Event(), {client: Tally() for client in CLIENTS}
    node = typescript.start(
        "steady", str(CALL_SECONDS), str(_LOOPS), url=endpoint.url, key=keys[TYPESCRIPT], authority=endpoint.authority
    )
    with node, ThreadPoolExecutor() as threads:
        running = [
            threads.submit(_synchronous, endpoint.runloop(keys[SYNC]), tallies[SYNC], stop),
            threads.submit(
                _synchronous, endpoint.runloop(keys[SYNC_HTTP1], http2=False), tallies[SYNC_HTTP1], stop, "H1"
            ),
            threads.submit(asyncio.run, _asynchronous(endpoint.asynchronous(keys[ASYNC]), tallies[ASYNC], stop)),
        ]
        try:
            yield tallies
        finally:
            stop.set()
            stdout, stderr = node.communicate(timeout=2 * CALL_SECONDS)
        for each in running:
            each.result()
    assert node.returncode == 0, f"{node.returncode}: {stderr}"
    it = json.loads(stdout)
    tallies[TYPESCRIPT] = Tally(it["calls"], it["longest"], Counter(it["failures"]))


def _synchronous(client: Runloop, tally: Tally, stop: Event, prefix: str = "SYNC") -> None:
    with client as api:
        for number in count():
            if stop.is_set():
                return
            name = f"{prefix}_{number}"
            with suppress(RunloopError, AssertionError):
                with tally.call("create"):
                    made = api.secrets.create(name=name, value="v")
                    assert made.name == name
                with tally.call("update"):
                    assert _is_same_secret(api.secrets.update(name, value="w"), made)
                with tally.call("list"):
                    assert made.id in {it.id for it in api.secrets.list(limit=5000).secrets}
                with tally.call("delete"):
                    assert _is_same_secret(api.secrets.delete(name), made)


async def _asynchronous(client: AsyncRunloop, tally: Tally, stop: Event) -> None:
    async def loop(prefix: str) -> None:
        for number in count():
            if stop.is_set():
                return
            name = f"{prefix}_{number}"
            with suppress(RunloopError, AssertionError, TimeoutError):
                with tally.call("create"):
                    async with asyncio.timeout(CALL_SECONDS):
                        made = await api.secrets.create(name=name, value="v")
                    assert made.name == name
                with tally.call("update by id"):
                    async with asyncio.timeout(CALL_SECONDS):
                        assert _is_same_secret(await api.secrets.update_by_id(made.id, value="w"), made)
                with tally.call("retrieve by id"):
                    async with asyncio.timeout(CALL_SECONDS):
                        assert _is_same_secret(await api.secrets.retrieve_by_id(made.id), made)
                with tally.call("delete by id"):
                    async with asyncio.timeout(CALL_SECONDS):
                        assert _is_same_secret(await api.secrets.delete_by_id(made.id), made)

    async with client as api:
        await asyncio.gather(*[loop(f"ASYNC_{number}") for number in range(_LOOPS)])


def _is_same_secret(secret: SecretView, made: SecretView) -> bool:
    return (secret.id, secret.name) == (made.id, made.name)


def _kind(error: Exception) -> str:
    """Return a description of the failure that groups equal failures."""
    if isinstance(error, APIStatusError):
        return str(error.status_code)
    if isinstance(error, AssertionError):
        return "another secret"
    if isinstance(error, TimeoutError):
        return "no response in time"
    return f"{type(error).__name__} {error.__cause__!r}"
