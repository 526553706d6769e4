"""Builds an AccountSecret's manifest, and derives its object's name from the variable's."""

import hashlib
import re
from typing import Any

from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.api.names import GROUP, KIND, VERSION

_NAME_MAX_LENGTH = 253


def manifest(account: str, spec: AccountSecretSpec, name: str | None = None) -> dict[str, Any]:
    """Give the manifest of one AccountSecret in its account's home."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": name or object_name(spec.name), "namespace": account},
        "spec": spec.model_dump(by_alias=True, exclude_none=True),
    }


def object_name(variable: str) -> str:
    """Derive an object's name (RFC 1123 subdomain) from a variable's: GITHUB_TOKEN, github-token.

    Names that differ give names that differ: what isn't plain capitals ends in -- and a piece of its
    hash, and no plain one has two dashes in a row.
    """
    if re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", variable):
        return _plain(variable)
    return _with_digest(variable)


def object_names(variable: str) -> list[str]:
    """Give the names to try in turn, where someone may have the first for another variable."""
    return list(dict.fromkeys([object_name(variable), _with_digest(variable)]))


def _plain(variable: str) -> str:
    return variable.lower().replace("_", "-")


def _with_digest(variable: str) -> str:
    digest = hashlib.sha256(variable.encode()).hexdigest()[:8]
    return f"{_plain(variable).strip('-')[: _NAME_MAX_LENGTH - 10] or 'x'}--{digest}"
