"""The argument NAME, and its completion in the shell."""

import inspect
from typing import Annotated

import typer

from devbox_secrets.cli.kit.app import run
from devbox_secrets.cli.kit.options import AccountOptions
from devbox_secrets.errors import DevboxSecretsError


def complete_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Give the account's variables that begin so; none where they can't be read."""
    given = {name: ctx.params.get(name) for name in inspect.signature(AccountOptions).parameters}
    at = AccountOptions(**{name: value for name, value in given.items() if value})
    try:
        return [variable for variable in run(_variables(at)) if variable.startswith(incomplete)]
    except (DevboxSecretsError, OSError):
        return []


async def _variables(at: AccountOptions) -> list[str]:
    from devbox_secrets.cli.resources import account_secrets

    account = at.home()
    async with at.connect() as client:
        return [secret.spec.name for secret in await account_secrets.list_all(client, account)]


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The variable, such as GITHUB_TOKEN, or the AccountSecret's own name.",
        autocompletion=complete_names,
    ),
]
