"""Rejects reserved names, unless the operator is known to accept the name or the caller passes --allow-reserved.

The CLI checks the built-in list; the operator's list is configurable.
"""

from typing import Annotated

import typer

from devbox_secrets.api.validation import RESERVED_NAMES, is_reserved, reserved_name
from devbox_secrets.errors import ReservedName

AllowReserved = Annotated[
    bool, typer.Option("--allow-reserved", help="Allow a reserved name; the operator must allow it, too.")
]


def check_not_reserved(variable: str, *, allow: bool, existing_ready: bool = False) -> None:
    """Reject a name in the built-in list of reserved names.

    Args:
        variable: the name.
        allow: whether the caller passed --allow-reserved.
        existing_ready: whether the account has a Ready secret of that name, which shows that the operator accepts it.

    Raises:
        ReservedName: the name is reserved.
    """
    if not (allow or existing_ready) and is_reserved(variable, RESERVED_NAMES):
        raise ReservedName(f"{reserved_name(variable)}, or pass --allow-reserved if this cluster's operator allows it")
