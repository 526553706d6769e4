"""The API server, asked in a caller's name: one request, and what became of it. Imports answers, certificate.

The gateway has no token of its own. One session serves all callers, so nothing that one was given (a cookie) may
go with another's request.
"""

import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Self, TypeVar

import aiohttp

from devbox_secrets import metrics
from devbox_secrets.certificate import Authority
from devbox_secrets.errors import ClusterError, DevboxSecretsError
from devbox_secrets.gateway.answers import Busy, Late, not_the_home

Body = dict[str, Any]
T = TypeVar("T")

JSON = "application/json"
MERGE = "application/merge-patch+json"
#: A table's rows have an object's metadata and columns, without the rest of it.
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
#: What the chart's policy says of an AccountSecret outside of its account's home.
_HOME = re.compile(
    r"ValidatingAdmissionPolicy 'devbox-secrets-homes' with binding 'devbox-secrets-homes' denied request:"
    r" the namespace [a-z0-9-]{1,63} belongs to the account ([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?) by its label "
)


class Upstream:
    """One API server, for whoever has a token."""

    def __init__(self, session: aiohttp.ClientSession, authority: Authority, seconds: float) -> None:
        self._session = session
        self._authority = authority
        self._seconds = seconds

    @classmethod
    @asynccontextmanager
    async def connect(cls, server: str, authority: Authority, seconds: float) -> AsyncIterator[Self]:
        """Open the session; an answer may take so many seconds."""
        async with aiohttp.ClientSession(
            base_url=server,
            connector=aiohttp.TCPConnector(limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=seconds),
        ) as session:
            yield cls(session, authority, seconds)

    async def ask(
        self,
        token: str,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Body:
        """Send one request and give the answer's body.

        Raises:
            ClusterError: there was no answer, or a refusal. Its text names the request's method and group, no more.
        """
        data = None if body is None else json.dumps(body).encode()
        async with self._answer(token, method, path, headers or {}, params=query, data=data) as response:
            return _json(_asked(method, path), await response.read())

    async def watch(
        self, token: str, path: str, query: Mapping[str, str], see: Callable[[str, Body], T | None]
    ) -> T | None:
        """Read a watch's events until `see` makes something of one, by its type and object; None if it ended before.

        Raises:
            ClusterError: as `ask` does.
        """
        rest, asked = b"", _asked("watch", path)
        # No answer's time: there may be nothing to tell for long.
        limit = aiohttp.ClientTimeout(total=None, sock_connect=self._session.timeout.total)
        async with self._answer(token, "GET", path, {}, params={**query, "watch": "true"}, timeout=limit) as response:
            async for chunk in response.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for event in (_json(asked, line) for line in lines):
                    if event["type"] == "ERROR":
                        status = event["object"].get("code", 0)
                        raise ClusterError(f"{asked}: {status}", status)
                    if seen := see(event["type"], event["object"]):
                        return seen
        return None

    @asynccontextmanager
    async def _answer(
        self,
        token: str,
        method: str,
        path: str,
        headers: Mapping[str, str],
        **options: Any,  # noqa: ANN401 - aiohttp's own
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        sent = {"Accept": JSON, "Content-Type": JSON, **headers, "Authorization": f"Bearer {token}"}
        asked, answer = _asked(method, path), "none"
        try:
            # The context of now: connections are shared by those that have the same.
            async with self._session.request(
                method, path, headers=sent, allow_redirects=False, ssl=self._authority.context, **options
            ) as response:
                answer = f"{response.status // 100}xx"
                if response.status == HTTPStatus.TOO_MANY_REQUESTS:
                    answer = "429"
                    raise Busy(f"{asked}: {response.status}", _seconds(response.headers.get("Retry-After", "")))
                if response.status >= HTTPStatus.MULTIPLE_CHOICES:
                    raise refusal(asked, response.status, await response.read())
                yield response
        except TimeoutError:
            answer = "late"
            raise Late(f"{asked}: no answer in {self._seconds:g} seconds", self._seconds) from None
        except (aiohttp.ClientError, OSError) as error:
            answer = "none"
            raise ClusterError(f"{asked}: {type(error).__name__}") from None
        finally:
            metrics.UPSTREAM.labels(answer).inc()


def _asked(method: str, path: str) -> str:
    """Name a request without the account and the name: one that the caller named might be anything."""
    return f"{method} {path.partition('/namespaces/')[0]}"


def refusal(request: str, status: int, raw: bytes) -> DevboxSecretsError:
    """Make an error of an answer. Of its text nothing is passed on but the home that a policy of ours names."""
    if home := _HOME.search(raw.decode(errors="replace")):
        return not_the_home(home.group(1))
    return ClusterError(f"{request}: {status}", status)


def _json(request: str, raw: bytes) -> Body:
    try:
        found: Body = json.loads(raw)
    except ValueError:
        raise ClusterError(f"{request}: the answer isn't JSON") from None
    return found


def _seconds(header: str) -> int:
    """Read when to come again: the API server says seconds."""
    return int(header) if re.fullmatch("[0-9]{1,4}", header, re.ASCII) else 1
