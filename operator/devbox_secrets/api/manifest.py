"""Builds an AccountSecret's manifest, and derives its object name from the variable's name."""

import hashlib
import re
from typing import Any

from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.api.names import GROUP, KIND, VERSION

_NAME_MAX_LENGTH = 253


def manifest(account: str, spec: AccountSecretSpec, name: str | None = None) -> dict[str, Any]:
    """Return the manifest of an AccountSecret in its account's home."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": name or object_name(spec.name), "namespace": account},
        "spec": spec.model_dump(by_alias=True, exclude_none=True),
    }


def object_name(variable: str) -> str:
    """Derive an object name (RFC 1123 subdomain) from a variable's name: GITHUB_TOKEN becomes github-token.

    Different variables get different names: a variable that isn't plain uppercase gets a suffix of -- and
    part of its hash, and no other name has two dashes in a row.
    """
    if re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", variable):
        return _plain(variable)
    return _with_digest(variable)


def object_names(variable: str) -> list[str]:
    """Return the names to try in turn, since the first may be taken by another variable."""
    return list(dict.fromkeys([object_name(variable), _with_digest(variable)]))


def _plain(variable: str) -> str:
    return variable.lower().replace("_", "-")


def _with_digest(variable: str) -> str:
    digest = hashlib.sha256(variable.encode()).hexdigest()[:8]
    return f"{_plain(variable).strip('-')[: _NAME_MAX_LENGTH - 10] or 'x'}--{digest}"
