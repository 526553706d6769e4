"""How kopf is configured, and how its events are handled."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import accumulate
from typing import Any

import aiohttp
import kopf
import pytest
from aiohttp import web

from devbox_secrets.controller import watch
from devbox_secrets.kube import config
from unit.controller.objects import Body


def test_an_unavailable_api_server_is_retried_every_second_for_hours() -> None:
    backoffs = watch.settings().networking.error_backoffs
    assert isinstance(backoffs, tuple)
    assert list(accumulate(backoffs))[-1] > 3600
    assert max(backoffs) <= 1


def test_only_secrets_of_one_name_are_watched() -> None:
    selectors = watch.settings().watching.field_selectors
    assert len(selectors) == 1
    assert selectors["v1", "secrets"] == "metadata.name=devbox-account-secrets"


def test_kopf_writes_nothing() -> None:
    settings = watch.settings()
    assert not settings.posting.enabled
    body, patch = kopf.Body({"metadata": {}}), kopf.Patch()
    storage = settings.persistence.diffbase_storage
    storage.store(body=body, patch=patch, essence=storage.build(body=body))
    assert storage.fetch(body=body) is None
    progress, handler = settings.persistence.progress_storage, kopf.HandlerId("secrets")
    progress.store(key=handler, record=kopf.ProgressRecord(), body=body, patch=patch)
    progress.touch(body=body, patch=patch, value="now")
    progress.purge(key=handler, body=body, patch=patch)
    assert progress.fetch(key=handler, body=body) is None
    assert patch == {}


def test_a_dead_watch_times_out_soon_but_not_before_it_should_have_been_renewed() -> None:
    watching, networking = watch.settings().watching, watch.settings().networking
    assert isinstance(watching.server_timeout, int)  # the API server doesn't accept fractions
    assert watching.server_timeout < watching.inactivity_timeout < 30
    assert (networking.connect_timeout or 60) < 10


class Following:
    """Watches, and what they report."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, Body]] = []
        self.listed: list[str] = []
        self.recovers = 0
        self.recovered = asyncio.Event()
        self.it = watch.Watches(
            lambda *event: self.events.append(event), lambda *_: False, self.listed.append, "replica"
        )

    async def recover(self) -> None:
        self.recovers += 1
        self.recovered.set()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.it.run(self.recover))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


class Kopf:
    """A replacement for kopf's operator."""

    def __init__(self) -> None:
        self.runs: list[dict[str, Any]] = []
        self.threads: set[int] = set()
        self.running = threading.Semaphore(0)
        self.error: Exception | None = None
        self.cancels = 0

    async def operator(self, **options: object) -> None:
        self.runs.append(options)
        self.threads.add(threading.get_ident())
        self.running.release()
        try:
            if self.error:
                raise self.error
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancels += 1
            raise

    async def started(self) -> None:
        await asyncio.to_thread(self.running.acquire)


@pytest.fixture
def operator(monkeypatch: pytest.MonkeyPatch) -> Kopf:
    it = Kopf()
    monkeypatch.setattr(kopf, "operator", it.operator)
    monkeypatch.setattr(watch, "_CHECK_SECONDS", 0.01)
    return it


async def test_kopf_runs_in_its_own_thread_and_ends_with_us(operator: Kopf) -> None:
    async with Following().running():
        await operator.started()
        assert threading.get_ident() not in operator.threads
        assert operator.runs[0].keys() == {"registry", "settings", "clusterwide", "standalone", "identity"}
    assert operator.cancels == 1


async def test_when_kopf_exits_everything_is_listed_and_kopf_is_restarted(
    operator: Kopf, caplog: pytest.LogCaptureFixture
) -> None:
    following = Following()
    operator.error = ValueError("canary")
    async with following.running():
        for _ in range(3):
            await operator.started()
        operator.error = None
        await operator.started()
    assert following.recovers >= 3
    assert caplog.messages == ["restarting the watches: kopf exited: ValueError"]


async def test_kopf_is_restarted_on_request(operator: Kopf) -> None:
    following = Following()
    async with following.running():
        await operator.started()
        following.it.restart()
        await operator.started()
    assert (operator.cancels, following.recovers) == (2, 1)


async def test_kopf_is_restarted_when_a_watch_is_silent(operator: Kopf, monkeypatch: pytest.MonkeyPatch) -> None:
    following = Following()
    monkeypatch.setattr(watch, "_SILENT_SECONDS", 0.1)
    async with following.running():
        await operator.started()
        await operator.started()
    assert following.recovers == 1


def test_a_silent_watch_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    it = Following().it
    assert it.problem() is None
    it._answered["secrets"] -= 61.5  # noqa: SLF001 - a minute is long
    assert it.problem() == "no response to the watch of secrets for 62s"


class Server:
    """A server that responds to kopf's requests."""

    def __init__(self) -> None:
        self.status = 200
        self.url = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Server"]:
        async def answer(_: web.Request) -> web.Response:
            return web.json_response({}, status=self.status)

        app = web.Application()
        app.router.add_get("/{path:.*}", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = "http://{}:{}".format(*runner.addresses[0][:2])
        yield self
        await runner.cleanup()


@pytest.mark.parametrize(
    ("path", "status", "listed"),
    [
        ("/api/v1/namespaces?limit=500", 200, ["namespaces"]),
        ("/api/v1/secrets?limit=500&fieldSelector=metadata.name%3Dx", 200, ["secrets"]),
        ("/apis/devbox-secrets.dev/v1beta1/accountsecrets?limit=500", 200, ["accountsecrets"]),
        ("/api/v1/namespaces?limit=500&continue=x", 200, []),
        ("/api/v1/namespaces?watch=true", 200, []),
        ("/api/v1/namespaces?limit=500", 403, ["namespaces"]),
        ("/api/v1/namespaces?watch=true", 503, ["namespaces"]),
        ("/api/v1", 200, []),
    ],
)
async def test_a_list_is_noticed_when_it_starts_and_so_is_the_first_rejection(
    path: str, status: int, listed: list[str], operator: Kopf, monkeypatch: pytest.MonkeyPatch
) -> None:
    following = Following()
    long_ago = dict.fromkeys(following.it._answered, 0.0)  # noqa: SLF001 - the source of the probe's response
    following.it._answered.update(long_ago)  # noqa: SLF001
    async with Server().running() as server, following.running():
        await operator.started()
        server.status = status

        async def session(traces: list[aiohttp.TraceConfig]) -> tuple[str, aiohttp.ClientSession]:
            return server.url, aiohttp.ClientSession(trace_configs=traces)

        monkeypatch.setattr(config, "session", session)
        connection = await following.it.login()
        assert connection.server == server.url
        for _ in range(1 if listed and status == 200 else 3):
            async with connection.aiohttp_session.get(server.url + path):
                await asyncio.sleep(0)
        await connection.aiohttp_session.close()
        await asyncio.sleep(0)
    assert following.listed == listed
    answered = {kind for kind, at in following.it._answered.items() if at}  # noqa: SLF001
    assert answered == ({path.partition("?")[0].rpartition("/")[2]} & long_ago.keys() if status == 200 else set())


async def test_a_login_that_fails_is_retried_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    tries = threading.Semaphore(0)

    async def session(_: object) -> tuple[str, aiohttp.ClientSession]:
        tries.release()
        raise OSError

    monkeypatch.setattr(config, "session", session)
    monkeypatch.setattr(watch, "_LOGIN_SECONDS", 0.01)
    following = Following()
    async with following.running():
        for _ in range(3):
            assert await asyncio.to_thread(tries.acquire, timeout=10)
    assert following.recovers == 0  # it's the same run of kopf


async def test_consecutive_logins_are_delayed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def session(_: object) -> tuple[str, aiohttp.ClientSession]:
        return "http://x", aiohttp.ClientSession()

    monkeypatch.setattr(config, "session", session)
    monkeypatch.setattr(watch, "_LOGIN_SECONDS", 0.2)
    it, since = Following().it, time.monotonic()
    for _ in range(3):
        await (await it.login()).aiohttp_session.close()
    assert time.monotonic() - since >= 0.4


async def test_events_are_forwarded_and_handlers_return_nothing_that_kopf_would_write(
    operator: Kopf,
) -> None:
    following = Following()
    async with following.running():
        await operator.started()
        for *_, kind in watch.RESOURCES:
            handle: Any = following.it.handler(kind)
            # A plain function would run in a thread of its own.
            assert asyncio.iscoroutinefunction(handle)
            assert await handle(event={"type": "ADDED", "object": {"name": kind}}) is None
        await asyncio.sleep(0)
    assert sorted(following.events) == [
        (kind, "ADDED", {"name": kind}) for kind in ("accountsecrets", "namespaces", "secrets")
    ]


@pytest.mark.parametrize(
    ("event", "version", "handled"),
    [
        ("ADDED", 1, True),
        ("MODIFIED", 1, True),
        ("DELETED", 1, True),
        ("ADDED", 2, False),
        ("MODIFIED", 2, False),
        ("DELETED", 2, True),
        # Listed objects have no type; our own list handles them.
        (None, 1, False),
    ],
)
def test_known_objects_are_not_handled_again(event: str | None, version: int, handled: bool) -> None:
    known = ("secrets", {"version": 2})
    is_news = watch.news_filter("secrets", lambda *it: it == known)
    assert is_news(event={"type": event, "object": {"version": version}}) == handled
