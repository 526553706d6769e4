"""`status`: whether secrets are synced, and which devboxes run an older value. Imports its neighbours at once.

Read-only, and with the caller's own rights: what those don't show is noted.
"""

import re
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from devbox_secrets.cli.output import Format, Output, age, note, print_table, progress, show
from devbox_secrets.cli.program import Commands, Exit, complete_names
from devbox_secrets.cli.target import Target
from devbox_secrets.errors import InvalidDuration

if TYPE_CHECKING:
    from devbox_secrets.cli.accountsecrets import AccountSecret
    from devbox_secrets.cli.devboxes import Devbox, Has
    from devbox_secrets.cluster import Cluster

commands = Commands()
_POLL_SECONDS = 0.5
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


@dataclass
class _Tally:
    """A secret, and how many devboxes have which value of it."""

    secret: "AccountSecret"
    devboxes: Counter[str] = field(default_factory=Counter)
    behind: "list[tuple[Devbox, Has]]" = field(default_factory=list)
    """Those without the present value, where one secret alone was asked about."""


@commands.command()
def status(
    at: Target,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="The variable, or the AccountSecret's own name; else all.",
            autocompletion=complete_names,
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the operator has decided about the present values.")
    ] = False,
    timeout: Annotated[str, typer.Option(metavar="60s", help="How long to wait: seconds, or as in 90s, 5m.")] = "60s",
    output: Output = Format.TEXT,
) -> None:
    """Show whether secrets are synced, since when, and which devboxes still run an older value.

    A container has the value of the moment in which it started; files follow.

    Exit codes: 0, all that is shown is synced; 3, something isn't, and NAME or the table says why; 4, the
    operator hasn't decided in time.
    """
    seconds = _seconds(timeout) if wait else 0.0
    account = at.home()

    async def ask(cluster: "Cluster") -> list[_Tally]:
        from devbox_secrets.cli import devboxes

        tallies = list(map(_Tally, await _decided(cluster, account, name, seconds)))

        def take(devbox: "Devbox") -> None:
            for tally in tallies:
                if has := devbox.has(tally.secret):
                    tally.devboxes[has] += 1
                    if name and has is not devboxes.Has.PRESENT:
                        tally.behind.append((devbox, has))

        if tallies:
            with progress("pods") as count:
                namespaces = await devboxes.members(cluster, account, note)
                await devboxes.read(cluster, namespaces, take, note, count)
        return tallies

    tallies = at.ask(ask)
    data = [_data(tally, detailed=bool(name)) for tally in tallies]
    show(output, data[0] if name else data, lambda: _print_one(tallies[0]) if name else _print_all(account, tallies))
    if wait and any(not _is_decided(tally.secret) for tally in tallies):
        note(f"the operator hasn't decided within {timeout}: kubectl get pods -n {at.operator_namespace}")
        raise typer.Exit(Exit.TIME_IS_UP)
    if any(not tally.secret.synced for tally in tallies):
        raise typer.Exit(Exit.NOT_WELL)


async def _decided(cluster: "Cluster", account: str, name: str | None, seconds: float) -> "list[AccountSecret]":
    """Read the secrets, again and again until the operator has decided about all of them or time is up."""
    import asyncio

    from devbox_secrets.cli import accountsecrets

    end = time.monotonic() + seconds
    while True:
        if name:
            found = [await accountsecrets.find(cluster, account, name)]
        else:
            found = await accountsecrets.list_all(cluster, account)
        if all(map(_is_decided, found)) or time.monotonic() >= end:
            return found
        await asyncio.sleep(_POLL_SECONDS)


def _is_decided(secret: "AccountSecret") -> bool:
    return secret.status.decided(secret.body["metadata"]["generation"]) is not None


def _seconds(duration: str) -> float:
    match = re.fullmatch(r"(\d{1,7})([smh]?)", duration)
    if match is None:
        raise InvalidDuration(f"{duration!r} isn't a time to wait, such as 90s, 5m or 1h")
    return float(match[1]) * _UNITS[match[2]]


def _data(tally: _Tally, *, detailed: bool) -> dict[str, Any]:
    secret, ready = tally.secret, tally.secret.ready
    data: dict[str, Any] = {
        "variable": secret.variable,
        "name": secret.name,
        "account": secret.account,
        "synced": secret.synced,
        "reason": ready.reason if ready else "Pending",
        "message": ready.message if ready else "the operator hasn't looked at it yet",
        "changedAt": secret.status.changed_at,
        "devboxes": {has: tally.devboxes[has] for has in ("present", "older", "none", "starting")},
    }
    if detailed:
        data["behind"] = [
            {"namespace": devbox.namespace, "name": devbox.name, "since": devbox.since(secret.variable), "value": has}
            for devbox, has in tally.behind
        ]
    return data


def _print_all(account: str, tallies: list[_Tally]) -> None:
    if not tallies:
        typer.echo(f"The account {account} has no secrets.")
        return
    now = datetime.now(UTC)
    rows = [
        [
            tally.secret.variable,
            tally.secret.synced_text,
            age(tally.secret.status.changed_at, now),
            *(str(tally.devboxes[has]) for has in ("present", "older", "none")),
        ]
        for tally in tallies
    ]
    print_table(["VARIABLE", "SYNCED", "CHANGED", "PRESENT", "OLDER", "NONE"], rows)
    typer.echo("\nPRESENT, OLDER, NONE: how many devboxes have that value of it. Which: devbox-secrets status NAME")


def _print_one(tally: _Tally) -> None:
    secret, now = tally.secret, datetime.now(UTC)
    counts = ", ".join(f"{number} {has}" for has, number in sorted(tally.devboxes.items(), reverse=True))
    data = _data(tally, detailed=False)
    facts = [
        ["variable", secret.variable],
        ["AccountSecret", f"{secret.account}/{secret.name}"],
        ["synced", f"{secret.synced_text}, {data['message']}"],
        ["changed", f"{age(secret.status.changed_at, now)} ago" if secret.status.changed_at else "never yet"],
        ["devboxes", counts or "none has it"],
    ]
    print_table(["", ""], facts)
    if tally.behind:
        typer.echo()
        rows = [
            [
                f"{devbox.namespace}/{devbox.name}",
                has,
                "" if has == "starting" else age(devbox.since(secret.variable), now),
            ]
            for devbox, has in tally.behind
        ]
        print_table(["DEVBOX", "VALUE", "RUNNING FOR"], rows)
        typer.echo("\nA devbox has the present value once its containers are started again.")
