"""Reserved names: they are rejected, unless the operator accepts the name or the caller says that it does.

The command knows the built-in list; the operator's list is configuration.
"""

from typing import Annotated

import typer

from devbox_secrets.api.validation import RESERVED_NAMES, is_reserved, reserved_name
from devbox_secrets.errors import ReservedName

AllowReserved = Annotated[
    bool, typer.Option("--allow-reserved", help="Take a reserved name, which the operator's own list must allow.")
]


def check_not_reserved(variable: str, *, allow: bool, existing_ready: bool = False) -> None:
    """Refuse a name of the built-in list of reserved names.

    Args:
        variable: the name.
        allow: whether the caller says that the operator accepts it.
        existing_ready: whether the account has a secret of that name that is Ready, so that the operator accepts it.

    Raises:
        ReservedName: it's reserved.
    """
    if not (allow or existing_ready) and is_reserved(variable, RESERVED_NAMES):
        raise ReservedName(f"{reserved_name(variable)}, or pass --allow-reserved if this cluster's operator allows it")
