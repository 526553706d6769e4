"""Connections to one API server as one user: TLS, credentials that may change, proxies, and error messages."""

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

_CONNECTIONS = 64
_TIMEOUT_SECONDS = 30
#: How often a token file is read again, since a ServiceAccount's token changes.
_TOKEN_SECONDS = 60
#: Characters that HTTP allows in a header name; all others are percent-encoded, as is the percent sign.
_NAME_SAFE = "!#$&'*+-.^_`|~"

#: The API server derives the field manager from it if a request names none.
USER_AGENT = {"User-Agent": "devbox-secrets"}

#: Characters that no header value may contain. A surrogate stands for a byte that isn't text in the caller's locale;
#: aiohttp would drop it, and the request would be sent as another user.
_UNFIT = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")

Headers = list[tuple[str, str]]


@dataclass(frozen=True)
class Login:
    """The credentials for a request."""

    headers: Headers = field(repr=False)
    tls: ssl.SSLContext


class Credentials:
    """A user's credentials; those from a token file or an exec plugin change over time."""

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
        # As with kubectl, the plugin isn't used if there are other credentials.
        self._plugin = None if certificate or user.token or user.token_file or user.username else user.exec
        self._issued: exec_plugin.Credential | None = None
        self._lock = asyncio.Lock()
        self._token = user.token
        self._read_again = 0.0

    async def login(self) -> Login:
        """Return the credentials for the next request.

        Raises:
            ConfigError: there is no token, or a plugin returns no credentials.
        """
        async with self._lock:
            if self._plugin and self._is_due():
                await self._run_plugin(self._plugin)
        headers = self._authorization() + self._impersonation
        if unfit := next((name for name, value in headers if _UNFIT.search(value)), None):
            what = "the token or password" if unfit == "Authorization" else "the name to impersonate"
            raise ConfigError(f"{what} of the {self._target.name} contains a line break or isn't text")
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
        """Open a session and log in; the first request opens a connection.

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
        """Return the credentials for the next request."""
        return await self._credentials.login()

    @asynccontextmanager
    async def request(
        self, login: Login, method: str, path: str, headers: dict[str, str], data: bytes | None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send a request; the response's body must be read inside the context.

        Raises:
            Unreachable: there was no response, or it was incomplete.
            ConfigError: the server's URL is invalid.
        """
        try:
            async with self._session.request(
                method, self._server + path, headers=[*headers.items(), *login.headers], data=data, ssl=login.tls,
                proxy=self._proxy, server_hostname=self._target.cluster.tls_server_name or None, allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS),
            ) as response:  # fmt: skip
                yield response
        except TimeoutError as error:  # aiohttp's are of this class as well
            raise RequestTimeout(f"{self._failure}: no response within {_TIMEOUT_SECONDS} seconds") from error
        except (aiohttp.InvalidURL, UnicodeError):  # the latter for a host name that IDNA doesn't allow
            raise ConfigError(f"{self._failure}: invalid URL") from None
        except aiohttp.ClientError as error:
            raise Unreachable(f"{self._failure}: {_reason(error)}") from error

    @property
    def _failure(self) -> str:
        return f"cannot reach {shown(self._server)} ({self._target.name})"


def proxy_to(target: Target) -> str | None:
    """Return the URL of the proxy, or None.

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
    """Read a token from a file; if that fails, keep using the current one."""
    try:
        read = Path(file).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
    else:
        if read:
            return read
        reason = "the file is empty"
    if current:
        return current
    raise ConfigError(f"cannot read a token from {file}: {reason}")


def _reason(error: aiohttp.ClientError) -> str:
    """Describe why there was no response, and what to check if that isn't obvious."""
    match error:
        case aiohttp.ClientConnectorDNSError():
            return f"no address found for the host {error.host}"
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as problem):
            return (
                f"its certificate isn't trusted: {problem.verify_message.rstrip('.')}; check server,"
                " certificate-authority and tls-server-name in the kubeconfig"
            )
        case aiohttp.ClientConnectorError(os_error=ssl.SSLError(reason=str() as reason)):
            return f"TLS handshake failed: {reason.replace('_', ' ').lower()}"
        case aiohttp.ClientHttpProxyError():
            return f"the proxy responded with {error.status} {error.message}"
        case aiohttp.ClientConnectorError(os_error=os_error):
            by_proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
            where = f"the proxy {error.host}:{error.port}: " if by_proxy else ""
            return where + (os.strerror(os_error.errno).lower() if os_error.errno else "no connection")
        case _:
            return f"the connection failed ({type(error).__name__})"


def shown(server: str) -> str:
    """Return a URL without what may be a password."""
    url = urlsplit(server)
    return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
