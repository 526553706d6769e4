"""Finds the endpoint for a request's path and method."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Generic, TypeVar
from urllib.parse import unquote

from starlette.types import Scope

from devbox_secrets.gateway.contract.errors import ErrorResponse, method_not_allowed

_PARAMETER = re.compile(r"\{(\w+)\}")
_ENCODED_SLASH = re.compile("%2f", re.IGNORECASE)

E = TypeVar("E")


@dataclass(frozen=True, slots=True)
class Match(Generic[E]):
    """The endpoint for a request."""

    template: str | None
    """The path with parameter names instead of values; None for an unknown path."""
    parameters: Mapping[str, str]
    endpoint: E | ErrorResponse
    """An error for a path or a method that doesn't exist."""


class Router(Generic[E]):
    """Endpoints by method and path, such as `/v1/secrets/{name}`; if several match a request, the first is used."""

    def __init__(self, endpoints: Iterable[tuple[str, str, E]]) -> None:
        self._paths: dict[str, tuple[re.Pattern[str], dict[str, E]]] = {}
        for method, template, endpoint in endpoints:
            pattern = re.compile(_PARAMETER.sub(r"(?P<\1>[^/]+)", template))
            self._paths.setdefault(template, (pattern, {}))[1][method] = endpoint

    def find(self, method: str, path: str) -> Match[E]:
        """Find a request's endpoint; if only the method is unknown, the error names the allowed ones."""
        first, allowed = None, set[str]()
        for template, (pattern, endpoints) in self._paths.items():
            if match := pattern.fullmatch(path):
                if endpoint := endpoints.get(method):
                    return Match(template, match.groupdict(), endpoint)
                first, allowed = first or template, allowed | endpoints.keys()
        if first is None:
            return Match(None, {}, ErrorResponse(HTTPStatus.NOT_FOUND, "endpoint not found"))
        return Match(first, {}, method_not_allowed(allowed))


def decoded_path(scope: Scope) -> str:
    """Return a request's path; an encoded slash is part of a name: A%2Fdelete doesn't delete A."""
    raw: bytes = scope.get("raw_path") or b""
    if b"%2f" in raw.lower():
        return unquote(_ENCODED_SLASH.sub("%252F", raw.decode("latin-1")))
    path: str = scope["path"]
    return path
