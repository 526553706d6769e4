"""What a command prints: a table for people, YAML or JSON for programs. Imports nothing of ours.

rich is imported when a table is printed, yaml when YAML is.
"""

import json
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.table import Table


class Format(StrEnum):
    """How a result is printed."""

    TEXT = "text"
    YAML = "yaml"
    JSON = "json"


Output = Annotated[Format, typer.Option("--output", "-o", help="A table for people, or data for programs.")]


def show(output: Format, data: Any, table: Callable[[], "Table"]) -> None:  # noqa: ANN401 - JSON
    """Print a result: its data, or the table that is made of it."""
    if output is not Format.TEXT:
        typer.echo(as_text(data, output), nl=False)
        return
    from rich.console import Console

    Console(highlight=False).print(table())


def as_text(data: Any, output: str) -> str:  # noqa: ANN401 - JSON
    """Give data as JSON or YAML."""
    if output == Format.JSON:
        return json.dumps(data, indent=2) + "\n"
    import yaml

    # No line is broken: the sealed value stays one word to look at and to compare.
    text: str = yaml.safe_dump(data, sort_keys=False, width=sys.maxsize)
    return text
