"""Connections to one API server as one caller: TLS, credentials that may change, proxies, failures as sentences."""

import asyncio
import base64
import os
import re
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit

import aiohttp

from devbox_secrets.errors import ConfigError, RequestTimeout, Unreachable
from devbox_secrets.kube import exec_plugin
from devbox_secrets.kube.kubeconfig import Target
from devbox_secrets.kube.kubeconfig_file import ExecPlugin, User
from devbox_secrets.kube.proxies import proxy_for
from devbox_secrets.kube.tls import read_certificate, tls_context

_CONNECTIONS = 32
_TIMEOUT_SECONDS = 30
#: A token in a file is read again as often: a ServiceAccount's changes now and then.
_TOKEN_SECONDS = 60
#: What HTTP allows in a header's name; the rest is percent-encoded, and so is the percent sign.
_NAME_SAFE = "!#$&'*+-.^_`|~"

#: The API server names a field manager after it where a request names none.
USER_AGENT = {"User-Agent": "devbox-secrets"}

#: What no header's value may have. A surrogate stands for a byte that isn't text in the caller's locale; aiohttp would
#: leave it out, and someone else would act.
_UNFIT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Login:
    """What a request shows to say who sends it."""

    headers: Headers = field(repr=False)
    tls: ssl.SSLContext


class Credentials:
    """Who sends the requests; a token in a file and what an exec plugin gives change as time goes by."""

    def __init__(self, target: Target) -> None:
        """Read the certificates.

        Raises:
            ConfigError: they can't be used.
        """
        user = target.user
        self._target = target
        certificate, key = read_certificate(user)
        self._tls = tls_context(target.cluster, certificate, key)
        self._impersonation = _impersonation(user)
        # As with kubectl, whoever has other credentials needs no plugin.
        self._plugin = None if certificate or user.token or user.token_file or user.username else user.exec
        self._issued: exec_plugin.Credential | None = None
        self._lock = asyncio.Lock()
        self._token = user.token
        self._read_again = 0.0

    async def login(self) -> Login:
        """Give what the next request has to show.

        Raises:
            ConfigError: there is no token, or a plugin gives no credentials.
        """
        async with self._lock:
            if self._plugin and self._is_due():
                await self._run_plugin(self._plugin)
        headers = self._authorization() + self._impersonation
        if unfit := next((name for name, value in headers if _UNFIT.search(value)), None):
            what = "the token or password" if unfit == "Authorization" else "the name to impersonate"
            raise ConfigError(f"{what} of the {self._target.name} has a line break or what isn't text")
        return Login(headers, self._tls)

    def _is_due(self) -> bool:
        if self._issued is None:
            return True
        expires = self._issued.expiration_timestamp
        return expires is not None and datetime.now(UTC) >= expires

    async def _run_plugin(self, plugin: ExecPlugin) -> None:
        former, issued = self._issued, await exec_plugin.run(self._target, plugin)
        if issued.client_key_data != (former.client_key_data if former else ""):
            pair = issued.client_certificate_data.encode(), issued.client_key_data.encode()
            self._tls = tls_context(self._target.cluster, *pair)
        self._issued = issued
        self._token = issued.token

    def _authorization(self) -> Headers:
        user = self._target.user
        if user.username:
            pair = base64.b64encode(f"{user.username}:{user.password}".encode()).decode()
            return [("Authorization", f"Basic {pair}")]
        if user.token_file and time.monotonic() >= self._read_again:
            self._token = _read_token(user.token_file, self._token)
            self._read_again = time.monotonic() + _TOKEN_SECONDS
        return [("Authorization", f"Bearer {self._token}")] if self._token else []


class Connection:
    """An open session with one API server."""

    def __init__(self, target: Target, session: aiohttp.ClientSession) -> None:
        self._target = target
        self._server = target.cluster.server.rstrip("/")
        self._session = session
        self._credentials = Credentials(target)
        self._proxy = proxy_to(target)

    @classmethod
    @asynccontextmanager
    async def open(cls, target: Target) -> AsyncIterator[Self]:
        """Open a session and log in; a connection is made when the first request needs one.

        Raises:
            ConfigError: the credentials, the certificates or the proxy can't be used.
        """
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
        compression = {"Accept-Encoding": "identity"} if target.cluster.disable_compression else {}
        async with aiohttp.ClientSession(connector=connector, headers=USER_AGENT | compression) as session:
            it = cls(target, session)
            await it.login()
            yield it

    async def login(self) -> Login:
        """Give what the next request has to show, as `Credentials` do."""
        return await self._credentials.login()

    @asynccontextmanager
    async def request(
        self, login: Login, method: str, path: str, headers: dict[str, str], data: bytes | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; the body of the response is to be read inside.

        Raises:
            Unreachable: there was no response, or it broke.
            ConfigError: the server's URL isn't one.
        """
        try:
            async with self._session.request(
                method, self._server + path, headers=[*headers.items(), *login.headers], data=data, ssl=login.tls,
                proxy=self._proxy, server_hostname=self._target.cluster.tls_server_name or None, allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS),
            ) as response:  # fmt: skip
                yield response
        except TimeoutError as error:  # aiohttp's are of this class as well
            raise RequestTimeout(f"{self._failure}: no answer within {_TIMEOUT_SECONDS} seconds") from error
        except aiohttp.InvalidURL:
            raise ConfigError(f"{self._failure}: it isn't a valid URL") from None
        except aiohttp.ClientError as error:
            raise Unreachable(f"{self._failure}: {_reason(error)}") from error

    @property
    def _failure(self) -> str:
        return f"cannot reach {shown(self._server)} ({self._target.name})"


def proxy_to(target: Target) -> str | None:
    """Give the URL of the proxy between, if there is one.

    Raises:
        ConfigError: a proxy of that kind isn't supported.
    """
    return target.cluster.proxy_url or proxy_for(target.cluster.server)


def _impersonation(user: User) -> Headers:
    if not user.as_:
        return []
    headers = [("Impersonate-User", user.as_), *(("Impersonate-Group", each) for each in user.as_groups)]
    if user.as_uid:
        headers.append(("Impersonate-Uid", user.as_uid))
    for name, values in user.as_user_extra.items():
        headers += [(f"Impersonate-Extra-{quote(name, safe=_NAME_SAFE)}", value) for value in values]
    return headers


def _read_token(file: str, current: str) -> str:
    """Read a token; while the file can't be read, the current one is used."""
    try:
        read = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't text"
    else:
        if read:
            return read
        reason = "it's empty"
    if current:
        return current
    raise ConfigError(f"there is no token in {file}: {reason}")


def _reason(error: aiohttp.ClientError) -> str:
    """Say why there was no response, and what to look at where that isn't plain."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"no address is known for the host {error.host}"
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as problem):
            return (
                f"its certificate isn't accepted: {problem.verify_message.rstrip('.')}; check server,"
                " certificate-authority and tls-server-name in the kubeconfig"
            )
        case aiohttp.ClientConnectorError(os_error=ssl.SSLError(reason=str() as reason)):
            return f"no TLS connection: {reason.replace('_', ' ').lower()}"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answers {error.status} {error.message}"
        case aiohttp.ClientConnectorError(os_error=os_error):
            by_proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
            where = f"the proxy {error.host}:{error.port}: " if by_proxy else ""
            return where + (os.strerror(os_error.errno).lower() if os_error.errno else "no connection")
        case _:
            return f"the connection broke ({type(error).__name__})"


def shown(server: str) -> str:
    """Give a URL without what may be a password."""
    url = urlsplit(server)
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
