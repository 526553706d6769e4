"""Connections: credentials, proxies, and the error for each way in which there is no response."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from devbox_secrets.errors import ConfigError, RequestTimeout, Unreachable
from devbox_secrets.kube import connection, exec_plugin
from devbox_secrets.kube.connection import Connection, Credentials, shown
from devbox_secrets.kube.exec_plugin import Credential
from devbox_secrets.kube.kubeconfig import Target
from devbox_secrets.kube.kubeconfig_file import Cluster, ExecPlugin, User
from harness.pki import Authority

AUTHORITY = Authority.create("test")
PLUGIN = ExecPlugin(command="login")
Headers = list[tuple[str, str]]


def target(user: User | None = None, **cluster: Any) -> Target:  # noqa: ANN401 - a cluster's fields
    fields = {"server": "https://one.example", "certificate_authority_data": AUTHORITY.pem, **cluster}
    return Target("context dev", Cluster(**fields), user or User())


async def headers(user: User) -> Headers:
    return (await Credentials(target(user)).login()).headers


@pytest.mark.parametrize(
    ("user", "want"),
    [
        (User(), []),
        (User(token="t"), [("Authorization", "Bearer t")]),  # noqa: S106 - only for tests
        (User(username="me", password="ö"), [("Authorization", "Basic bWU6w7Y=")]),  # noqa: S106 - only for tests
        (User(as_="jane"), [("Impersonate-User", "jane")]),
        (
            User(
                as_="jane", as_groups=("a", "b"), as_uid="7",
                as_user_extra={"example.com/Team": ("x", "y"), "50%": ("z",), "plain-key": ()},
            ),
            [
                ("Impersonate-User", "jane"), ("Impersonate-Group", "a"), ("Impersonate-Group", "b"),
                ("Impersonate-Uid", "7"), ("Impersonate-Extra-example.com%2FTeam", "x"),
                ("Impersonate-Extra-example.com%2FTeam", "y"), ("Impersonate-Extra-50%25", "z"),
            ],
        ),
    ],
)  # fmt: skip
async def test_headers_have_the_credentials_and_the_impersonated_user(user: User, want: Headers) -> None:
    assert await headers(user) == want


@pytest.mark.parametrize(
    ("user", "what"),
    [
        (User(token="canary\r\nX: y"), "the token or password"),  # noqa: S106 - only for tests
        (User(as_="canary\n"), "the name to impersonate"),
        (User(as_="jane", as_groups=("a", "canary\0")), "the name to impersonate"),
        (User.model_construct(as_="canary\udcff"), "the name to impersonate"),  # as a byte that isn't text is read
    ],
)
async def test_credentials_that_no_header_can_contain_are_an_error(user: User, what: str) -> None:
    with pytest.raises(ConfigError) as caught:
        await headers(user)
    assert str(caught.value) == f"{what} of the context dev contains a line break or isn't text"


@pytest.mark.parametrize("host", ["ä..b", "a..b", f"{'a' * 64}.example"])
async def test_an_invalid_url_is_an_error(host: str) -> None:
    sentence = f"cannot reach https://{host} (context dev): invalid URL"
    assert await failure(target(server=f"https://{host}"), ConfigError) == sentence


async def test_a_token_in_a_file_is_read_again_every_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (file := tmp_path / "token").write_text("one\n")
    credentials = Credentials(target(User(token="before", token_file=str(file))))  # noqa: S106 - only for tests
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    async def token() -> str:
        ((_, value),) = (await credentials.login()).headers
        return value

    assert await token() == "Bearer one"
    file.write_text("two")
    now += 59
    assert await token() == "Bearer one"
    now += 1
    assert await token() == "Bearer two"
    file.write_text("")
    now += 60
    assert await token() == "Bearer two"
    file.unlink()
    now += 60
    assert await token() == "Bearer two"
    file.write_text("three")
    now += 60
    assert await token() == "Bearer three"


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "No such file or directory"), (b" \n", "the file is empty"), (b"\xff", "not text")]
)
async def test_a_file_without_a_token_is_an_error(tmp_path: Path, content: bytes | None, reason: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        await headers(User(token_file=str(file)))
    assert str(caught.value) == f"cannot read a token from {file}: {reason}"


class Plugin:
    """Replaces a program; returns one credential after another."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *credentials: Credential) -> None:
        self.credentials = list(credentials)
        monkeypatch.setattr(exec_plugin, "run", self.run)

    async def run(self, _: Target, __: ExecPlugin) -> Credential:
        await asyncio.sleep(0)
        return self.credentials.pop(0)


async def test_a_plugin_runs_once_for_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = Plugin(monkeypatch, Credential(token="one"), Credential(token="two"))  # noqa: S106 - only for tests
    credentials = Credentials(target(User(exec=PLUGIN)))
    logins = await asyncio.gather(*(credentials.login() for _ in range(3)))
    assert [each.headers for each in logins] == [[("Authorization", "Bearer one")]] * 3
    assert len(plugin.credentials) == 1


async def test_a_plugin_runs_again_when_its_credential_has_expired(monkeypatch: pytest.MonkeyPatch) -> None:
    pair, now = AUTHORITY.client("jane"), datetime.now(UTC)
    certificate = {"client_certificate_data": pair.certificate.decode(), "client_key_data": pair.key.decode()}
    Plugin(
        monkeypatch,
        Credential(token="one", expiration_timestamp=now),  # noqa: S106 - only for tests
        Credential(expiration_timestamp=now + timedelta(hours=1), **certificate),
    )
    credentials = Credentials(target(User(exec=PLUGIN, as_="joe")))
    first, second, third = [await credentials.login() for _ in range(3)]
    assert first.headers == [("Authorization", "Bearer one"), ("Impersonate-User", "joe")]
    assert second.headers == third.headers == [("Impersonate-User", "joe")]
    assert first.tls is not second.tls
    assert second.tls is third.tls


@pytest.mark.parametrize("user", [User(token="t"), User(username="me"), User(token_file="/dev/null", token="t")])  # noqa: S106 - only for tests
async def test_a_user_with_other_credentials_needs_no_plugin(user: User, monkeypatch: pytest.MonkeyPatch) -> None:
    Plugin(monkeypatch)
    assert await headers(user.model_copy(update={"exec": PLUGIN}))


async def test_a_login_does_not_print_a_token() -> None:
    assert "canary" not in repr(await Credentials(target(User(token="canary"))).login())  # noqa: S106 - only for tests


async def get(at: Target) -> str:
    async with Connection.open(at) as it, it.request(await it.login(), "GET", "/x", {}, None) as response:
        return await response.text()


async def failure(at: Target, kind: type[Exception] = Unreachable) -> str:
    with pytest.raises(kind) as caught:
        await get(at)
    assert type(caught.value) is kind
    return str(caught.value)


@asynccontextmanager
async def server(folder: Path, *names: str, is_tls: bool = True) -> AsyncIterator[str]:
    """Run an API server with a certificate for these names; its response is the requested path and the encodings."""

    async def handle(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.path} {request.headers['Accept-Encoding']}")

    app = web.Application()
    app.router.add_get("/{path:.*}", handle)
    pair = AUTHORITY.server(*names, addresses=[])
    (file := folder / "pair").write_bytes(pair.certificate + pair.key)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(file)
    listening = TestServer(app, host="127.0.0.1", scheme="https" if is_tls else "http")
    await listening.start_server(ssl=tls if is_tls else None)
    try:
        yield f"https://127.0.0.1:{listening.port}"
    finally:
        await listening.close()


async def test_a_server_is_verified_by_the_name_in_the_kubeconfig(tmp_path: Path) -> None:
    async with server(tmp_path, "two.example") as url:
        assert (await get(target(server=url, tls_server_name="two.example"))).startswith("/x gzip")
        assert await failure(target(server=url)) == (
            f"cannot reach {url} (context dev): its certificate isn't trusted: IP address mismatch, certificate is not"
            " valid for '127.0.0.1'; check server, certificate-authority and tls-server-name in the kubeconfig"
        )


async def test_a_server_of_another_authority_is_not_trusted(tmp_path: Path) -> None:
    async with server(tmp_path, "one.example") as url:
        other = target(server=url, certificate_authority_data=Authority.create("other").pem)
        assert (await failure(other)).startswith(f"cannot reach {url} (context dev): its certificate isn't trusted: ")
        unchecked = target(
            server=f"{url}/base/",
            certificate_authority_data=b"",
            insecure_skip_tls_verify=True,
            disable_compression=True,
        )
        assert await get(unchecked) == "/base/x identity"


async def test_a_server_without_tls_is_an_error(tmp_path: Path) -> None:
    async with server(tmp_path, "one.example", is_tls=False) as url:
        assert (await failure(target(server=url))).startswith(
            f"cannot reach {url} (context dev): TLS handshake failed: "
        )


@pytest.fixture
def closed() -> Iterator[str]:
    """Yield an address where no server listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


async def test_a_server_that_is_down_is_an_error(closed: str) -> None:
    url = f"https://me:canary@{closed}"
    assert await failure(target(server=url)) == f"cannot reach https://{closed} (context dev): connection refused"


async def test_a_host_without_an_address_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(_: object, host: str, *__: object, **___: object) -> None:
        raise OSError(-2, f"no such {host}")

    monkeypatch.setattr(aiohttp.ThreadedResolver, "resolve", resolve)
    assert await failure(target()) == (
        "cannot reach https://one.example (context dev): no address found for the host one.example"
    )


async def test_a_server_that_does_not_respond_in_time_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "_TIMEOUT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        wanted = f"cannot reach {url} (context dev): no response within 0.1 seconds"
        assert await failure(target(server=url), RequestTimeout) == wanted


@pytest.mark.parametrize("from_environment", [True, False])
async def test_a_proxy_that_is_down_is_named_without_its_password(
    closed: str, monkeypatch: pytest.MonkeyPatch, *, from_environment: bool
) -> None:
    proxy = f"http://me:canary@{closed}"
    monkeypatch.setenv("HTTPS_PROXY", proxy if from_environment else "http://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert await failure(target(proxy_url="" if from_environment else proxy)) == (
        f"cannot reach https://one.example (context dev): the proxy {closed}: connection refused"
    )


async def test_a_proxy_that_rejects_the_connection_is_an_error() -> None:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1") as proxy:
        url = "http://{}:{}".format(*proxy.sockets[0].getsockname())
        assert await failure(target(proxy_url=url)) == (
            "cannot reach https://one.example (context dev): the proxy responded with 407 Proxy Authentication Required"
        )


async def test_without_readable_credentials_nothing_is_sent(tmp_path: Path) -> None:
    user = User(client_certificate=str(tmp_path / "gone"), client_key="key")
    for each, reason in ((user, "cannot read"), (User(token_file="/gone"), "cannot read a token")):  # noqa: S106 - a file's
        with pytest.raises(ConfigError, match=reason):
            async with Connection.open(target(each)):
                pytest.fail("connected without credentials")


def test_a_url_is_shown_without_a_password() -> None:
    assert shown("https://me:canary@one.example:6443/base") == "https://one.example:6443/base"
