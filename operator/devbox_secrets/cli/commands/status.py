"""`status`: shows whether secrets are synced, and which devboxes have an older value.

It only reads, with the caller's own permissions, and prints a message about what they don't cover.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devbox_secrets.cli.kit.app import Commands, Exit
from devbox_secrets.cli.kit.options import AccountOptions
from devbox_secrets.cli.kit.output import Format, Output, age, note, print_table, progress, show
from devbox_secrets.cli.kit.timeouts import Timeout, timeout_seconds
from devbox_secrets.cli.resources.arguments import complete_names

if TYPE_CHECKING:
    from devbox_secrets.api.models import AccountSecret
    from devbox_secrets.cli.resources.devboxes import Delivery, Devbox, Has
    from devbox_secrets.kube.client import Client

commands = Commands("Devboxes")
_POLL_SECONDS = 0.5
#: The order of the counts in the text output.
_ORDER = ("starting", "current", "older", "none")


@dataclass
class _Tally:
    """A secret, and the number of devboxes by the value that they have."""

    secret: "AccountSecret"
    delivery: "Delivery | None"
    devboxes: Counter[str] = field(default_factory=Counter)
    behind: "list[tuple[Devbox, Has]]" = field(default_factory=list)
    """The devboxes without the current value, if only one secret is shown."""

    def count(self, devbox: "Devbox", *, detailed: bool) -> None:
        if has := devbox.has(self.delivery):
            self.devboxes[has] += 1
            if detailed and has != "current":
                self.behind.append((devbox, has))


@commands.command()
async def status(
    at: AccountOptions,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="The variable or the AccountSecret's name; defaults to all secrets.",
            autocompletion=complete_names,
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the operator has processed the current values.")
    ] = False,
    timeout: Timeout = "60s",  # noqa: ASYNC109 - an option
    output: Output = Format.TEXT,
) -> None:
    """Show whether secrets are synced and which devboxes have older values.

    Without NAME, the devboxes are only counted. Environment variables keep the value from the container's start. Files
    are updated.

    Exit codes: 0 if all shown secrets are synced; 3 if one is not, with the reason in the output; 4 if the operator
    hasn't processed the values within the timeout.
    """
    from devbox_secrets.cli.resources.account_secrets import is_synced

    seconds = timeout_seconds(timeout) if wait else 0.0
    account = at.home()
    async with at.connect() as client:
        secrets = await _decided(client, account, name, seconds)
        tallies = await _tallies(client, account, secrets, detailed=bool(name))
    data = [_data(tally, detailed=bool(name)) for tally in tallies]
    show(output, data[0] if name else data, lambda: _print_one(tallies[0]) if name else _print_all(account, tallies))
    if wait and any(not _is_decided(tally.secret) for tally in tallies):
        note(
            f"the operator hasn't processed the values within {timeout}; check its pods:"
            f" kubectl get pods -n {at.operator_namespace}"
        )
        raise typer.Exit(Exit.TIMEOUT)
    if any(not is_synced(tally.secret) for tally in tallies):
        raise typer.Exit(Exit.UNHEALTHY)


async def _decided(client: "Client", account: str, name: str | None, seconds: float) -> "list[AccountSecret]":
    """Poll the secrets until the operator has processed all of them or the timeout expires."""
    import asyncio

    from devbox_secrets.cli.resources import account_secrets

    end = time.monotonic() + seconds
    while True:
        if name:
            secrets = [await account_secrets.find(client, account, name)]
        else:
            secrets = await account_secrets.list_all(client, account)
        if all(map(_is_decided, secrets)) or time.monotonic() >= end:
            return secrets
        await asyncio.sleep(_POLL_SECONDS)


def _is_decided(secret: "AccountSecret") -> bool:
    return bool(secret.invalid_spec) or secret.status.decided(secret.generation) is not None


async def _tallies(client: "Client", account: str, secrets: "list[AccountSecret]", *, detailed: bool) -> list[_Tally]:
    """Count the account's devboxes for each secret."""
    from devbox_secrets.cli.resources import devboxes

    tallies = [_Tally(secret, devboxes.delivery_of(secret)) for secret in secrets]

    def take(devbox: "Devbox") -> None:
        for tally in tallies:
            tally.count(devbox, detailed=detailed)

    if tallies:
        with progress("pods") as count:
            namespaces = await devboxes.members(client, account, note)
            await devboxes.read(client, namespaces, take, note, count)
    return tallies


def _data(tally: _Tally, *, detailed: bool) -> dict[str, Any]:
    from devbox_secrets.api.models import PENDING
    from devbox_secrets.cli.resources.account_secrets import is_synced, ready

    secret, condition = tally.secret, ready(tally.secret) or PENDING
    data: dict[str, Any] = {
        "variable": secret.spec.name,
        "name": secret.name,
        "account": secret.namespace,
        "synced": is_synced(secret),
        "reason": condition.reason,
        "message": condition.message,
        "changedAt": secret.status.changed_at,
        "devboxes": {has: tally.devboxes[has] for has in ("current", "older", "none", "starting")},
    }
    if detailed:
        data["behind"] = [
            {
                "namespace": devbox.namespace,
                "name": devbox.name,
                "since": devbox.since(secret.spec.name),
                "value": str(has),
            }
            for devbox, has in tally.behind
        ]
    return data


def _print_all(account: str, tallies: list[_Tally]) -> None:
    from devbox_secrets.cli.resources.account_secrets import synced_text

    if not tallies:
        typer.echo(f"The account {account} has no secrets.")
        return
    now = datetime.now(UTC)
    rows = [
        [
            tally.secret.spec.name,
            synced_text(tally.secret),
            age(tally.secret.status.changed_at, now),
            *(str(tally.devboxes[has]) for has in ("current", "older", "none")),
        ]
        for tally in tallies
    ]
    print_table(["VARIABLE", "SYNCED", "CHANGED", "CURRENT", "OLDER", "NONE"], rows)
    typer.echo("\nCURRENT, OLDER and NONE count devboxes. To list them: devbox-secrets status NAME")


def _print_one(tally: _Tally) -> None:
    from devbox_secrets.cli.resources.account_secrets import synced_text

    secret, now = tally.secret, datetime.now(UTC)
    counts = ", ".join(f"{tally.devboxes[has]} {has}" for has in _ORDER if tally.devboxes[has])
    data = _data(tally, detailed=False)
    facts = [
        ["variable", secret.spec.name],
        ["AccountSecret", f"{secret.namespace}/{secret.name}"],
        ["synced", f"{synced_text(secret)}, {data['message']}"],
        ["changed", f"{age(secret.status.changed_at, now)} ago" if secret.status.changed_at else "never"],
        ["devboxes", counts or "no devbox has it"],
    ]
    print_table(["", ""], facts)
    if tally.behind:
        typer.echo()
        rows = [
            [
                f"{devbox.namespace}/{devbox.name}",
                has,
                "" if has == "starting" else age(devbox.since(secret.spec.name), now),
            ]
            for devbox, has in tally.behind
        ]
        print_table(["DEVBOX", "VALUE", "RUNNING FOR"], rows)
        typer.echo("\nRestart a devbox's containers to give it the current value.")
