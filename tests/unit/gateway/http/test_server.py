"""The server: what it does if h2corn can't start, exits by itself or accepts no more connections."""

import asyncio
import resource
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import pytest
from h2corn import Server as H2corn
from starlette.types import Receive, Scope, Send

from devbox_secrets.gateway.http import server
from devbox_secrets.gateway.http.server import Limits, Server
from devbox_secrets.serving.tls import Certificate
from harness import pki
from unit.serving.ports import free_port

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"
LIMITS = Limits(body_timeout_seconds=5, response_timeout_seconds=5, idle_timeout_seconds=5, max_connections=10)


class App:
    """Responds once `may_answer` is set."""

    def __init__(self) -> None:
        self.may_answer, self.is_asked = asyncio.Event(), asyncio.Event()
        self.may_answer.set()

    async def __call__(self, _: Scope, __: Receive, send: Send) -> None:
        self.is_asked.set()
        await self.may_answer.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def serving(app: App, port: int, limits: Limits = LIMITS) -> AsyncIterator[Server]:
    it = Server(app, port, None, limits)
    await it.renew()
    watch = asyncio.create_task(it.watch())
    try:
        yield it
    finally:
        watch.cancel()
        await it.stop()


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def ask(port: int) -> bytes:
    with closing(connect(port)) as connection:
        connection.sendall(GET)
        return connection.recv(1000)


async def test_a_port_in_use_is_an_error() -> None:
    with socket.create_server(("", 0)) as taken, pytest.raises(OSError, match="in use"):
        Server(App(), taken.getsockname()[1], None, LIMITS)


async def test_a_renewed_server_responds_and_the_old_one_finishes_its_requests() -> None:
    app, port = App(), free_port()
    async with serving(app, port) as it:
        app.may_answer.clear()
        in_progress = asyncio.create_task(asyncio.to_thread(ask, port))
        await app.is_asked.wait()
        await it.renew()
        app.may_answer.set()
        assert (await in_progress).startswith(OK)
        assert (await asyncio.to_thread(ask, port)).startswith(OK)


async def test_if_a_new_server_cannot_start_the_old_one_stays(tmp_path: Path) -> None:
    pair = pki.Authority.create("test").server("localhost", addresses=["127.0.0.1"])
    (tmp_path / "tls.crt").write_bytes(pair.certificate)
    (tmp_path / "tls.key").write_bytes(pair.key)
    port = free_port()
    it = Server(App(), port, Certificate(tmp_path), LIMITS)
    await it.renew()
    (tmp_path / "tls.key").unlink()
    with pytest.raises((OSError, ValueError)):
        await it.renew()
    served = await asyncio.to_thread(ssl_certificate, port)
    assert served == pair.certificate
    await it.stop()


def ssl_certificate(port: int) -> bytes:
    return ssl.get_server_certificate(("127.0.0.1", port)).encode()


async def test_a_renewal_that_is_canceled_leaves_no_new_server(monkeypatch: pytest.MonkeyPatch) -> None:
    app, port = App(), free_port()
    started: asyncio.Queue[H2corn] = asyncio.Queue()

    class Slow(H2corn):
        async def wait_started(self) -> None:
            await super().wait_started()
            started.put_nowait(self)
            await asyncio.Event().wait()

    async with serving(app, port) as it:
        monkeypatch.setattr(server, "H2corn", Slow)
        renewing = asyncio.create_task(it.renew())
        new = await started.get()
        renewing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await renewing
        assert new.addresses == ()
        assert (await asyncio.to_thread(ask, port)).startswith(OK)


async def test_a_server_that_exits_by_itself_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    app, port, ended = App(), free_port(), asyncio.Event()

    class Ending(H2corn):
        async def serve(self) -> None:
            asyncio.get_running_loop().call_later(0.1, self.shutdown)
            await super().serve()
            ended.set()
            raise OSError("Too many open files")

    monkeypatch.setattr(server, "H2corn", Ending)
    async with serving(app, port):
        monkeypatch.setattr(server, "H2corn", H2corn)
        await ended.wait()
        assert (await asyncio.to_thread(ask, port)).startswith(OK)
        assert "exited unexpectedly" in caplog.text


async def test_idle_connections_are_closed_when_others_wait_and_requests_continue(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app, port = App(), free_port()
    async with serving(app, port):
        app.may_answer.clear()
        in_progress = asyncio.create_task(asyncio.to_thread(ask, port))
        await app.is_asked.wait()
        idle = [connect(port) for _ in range(LIMITS.max_connections * 2)]
        app.may_answer.set()
        assert (await asyncio.to_thread(ask, port)).startswith(OK)
        assert (await in_progress).startswith(OK)
        assert "all 10 connections are in use" in caplog.text
        for connection in idle:
            connection.close()


def test_there_are_never_more_connections_than_the_process_may_open_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    for files, most in ((1_048_576, 1000), (1024, 184), (50, 1)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, files=files: (64, files))
        assert server.most_connections(1000) == most
