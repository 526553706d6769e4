"""Middleware: keeps an encoded slash in a path from separating it, and exception texts out of the log."""

import logging
import re
from urllib.parse import unquote

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

LOG = logging.getLogger(__name__)
_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)


class GuardMiddleware:
    """Keeps encoded slashes within a name, and exceptions from the server.

    An encoded slash belongs to a name: A%2Fdelete is no deletion of A. The server would log an exception's text and
    traceback, which may hold a value.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if b"%2f" in scope.get("raw_path", b"").lower():
            scope["path"] = unquote(_ENCODED_SLASH.sub("%252F", scope["raw_path"].decode("latin-1")))
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            return
        except Exception as error:  # noqa: BLE001 - whatever it is
            LOG.error("%s: %s", _origin(error), type(error).__name__)


def _origin(error: BaseException) -> str:
    """Name the line that failed, which is our code or a library's and holds no value."""
    trace = error.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else "nowhere"
