"""How commands parse their arguments and format their help; typer's own help imports a Markdown renderer."""

import inspect
import os
import re
import textwrap
from collections.abc import Iterator, Sequence
from enum import Enum
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from devbox_secrets.cli.kit.options import AccountOptions

#: The options that select the cluster and the account; they may also come before the command.
_CLUSTER_OPTIONS = frozenset(inspect.signature(AccountOptions).parameters)
#: The program's name.
NAME = "devbox-secrets"
#: The widest column of names.
_NAME_WIDTH = 27


class Command(TyperCommand):
    """A command; as with kubectl, cluster options may also come before its name."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401 - typer's own, which has no public name
        """Parse the arguments, together with the options that come before the command."""
        try:
            return super().parse_args(ctx, [*_given_before(ctx, self), *args])
        except typer.BadParameter as error:
            error.message = error.message.removeprefix("Value error, ")  # pydantic's, where a choice doesn't exist
            raise

    def collect_usage_pieces(self, _: Any) -> list[str]:  # noqa: ANN401 - as above
        """Return the words after the command's name in the usage line."""
        return usage(self)

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        """Write the docstring's paragraphs, and its examples in a separate section."""
        _write_help(self, ctx, formatter)

    def format_options(self, _: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        """Write the arguments and options, with the cluster options last."""
        _write_options(self, formatter)


class Group(TyperGroup):
    """A group of commands; the help lists them in sections."""

    def collect_usage_pieces(self, _: Any) -> list[str]:  # noqa: ANN401 - as above
        """Return the words after the group's name in the usage line."""
        return ["COMMAND", "[OPTIONS]"]

    def format_help_text(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        """Write the group's help."""
        _write_help(self, ctx, formatter)

    def format_options(self, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
        """Write the commands by section, then the options."""
        sections: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command: Any = self.get_command(ctx, name)
            if not command.hidden:
                sections.setdefault(command.rich_help_panel or "Commands", []).append((name, summary(command)))
        for title, rows in sections.items():
            _write_section(formatter, title, rows)
        _write_options(self, formatter)


def summary(command: Any) -> str:  # noqa: ANN401 - as above
    """Return the first sentence of a command's help."""
    return re.split(r"(?<=[.;:]) |\n", command.help or "", maxsplit=1)[0].rstrip(".;:")


def usage(command: Any) -> list[str]:  # noqa: ANN401 - as above
    """Return the words after a command's name: its arguments, then its options."""
    arguments = [each for each in command.params if each.param_type_name == "argument"]
    return [*(each.metavar if each.required else f"[{each.metavar}]" for each in arguments), "[OPTIONS]"]


def takes(option: Any) -> str:  # noqa: ANN401 - as above
    """Return an option's choices or placeholder; empty for a flag."""
    if option.is_flag:
        return ""
    kind = option.type_descriptor.annotation
    if isinstance(kind, type) and issubclass(kind, Enum):
        return "|".join(str(choice.value) for choice in kind)
    return str(option.metavar or option.name.upper())


def unless_given(option: Any) -> list[str]:  # noqa: ANN401 - as above
    """Return an option's environment variable and its default, if any."""
    sources = [f"${option.envvar}"] if option.envvar else []
    if not option.is_flag and option.default not in {None, ""} and option.show_default is not False:
        sources.append(f"default {getattr(option.default, 'value', option.default)}")
    return sources


def _given_before(ctx: Any, command: Any) -> Iterator[str]:  # noqa: ANN401 - as above
    """Yield a command's options that came before its name."""
    root = ctx.find_root()
    for option in command.params if root is not ctx else ():
        source = root.get_parameter_source(option.name)
        if option.name not in _CLUSTER_OPTIONS or source is None or source.name != "COMMANDLINE":
            continue
        given = root.params[option.name]
        for value in given if isinstance(given, list | tuple) else (given,):
            yield from (option.opts[0], str(value))


def _write_help(command: Any, ctx: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
    program = ctx.find_root().info_name or NAME
    paragraphs = (command.help or "").split("\n\n")
    examples = [each.removeprefix("Example: ") for each in paragraphs if each.startswith("Example: ")]
    for paragraph in paragraphs:
        if not paragraph.startswith("Example: "):
            formatter.write_paragraph()
            formatter.write_text(_wrapped(paragraph, formatter.width))
    if examples:
        formatter.write_paragraph()
        formatter.write_heading(_bold("Example" if len(examples) == 1 else "Examples"))
    for example in examples:
        called = re.sub(rf"(?<![\w/-]){NAME}(?= )", program, example)  # not in a file name
        formatter.write(f"  {called}\n")


def _write_options(command: Any, formatter: Any) -> None:  # noqa: ANN401 - as above
    arguments = [(each.metavar, each.help) for each in command.params if each.param_type_name == "argument"]
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    where = [each for each in options if each.name in _CLUSTER_OPTIONS]
    _write_section(formatter, "Arguments", arguments)
    help_row = ("-h, --help", "Show this help.")
    _write_section(formatter, "Options", [*map(_row, (each for each in options if each not in where)), help_row])
    _write_section(formatter, "Cluster options", list(map(_row, where)))


def _row(option: Any) -> tuple[str, str]:  # noqa: ANN401 - as above
    names = sorted(option.opts, key=lambda name: name.startswith("--")) + option.secondary_opts
    sources = unless_given(option)
    return f"{', '.join(names)} {takes(option)}".rstrip(), option.help + (f" ({', '.join(sources)})" if sources else "")


def _write_section(formatter: Any, title: str, rows: Sequence[tuple[str, str]]) -> None:  # noqa: ANN401 - as above
    if rows:
        # A long name goes on its own line, so that the column of names stays narrow.
        widest = max((len(name) for name, _ in rows if len(name) <= _NAME_WIDTH), default=_NAME_WIDTH)
        width = max(formatter.width - widest - 4, 20)
        with formatter.section(_bold(title)):
            formatter.write_dl([(name, _wrapped(text, width)) for name, text in rows], col_max=widest)


def _wrapped(text: str, width: int) -> str:
    """Wrap a text here, because the formatter would break options at their hyphens."""
    return "\n".join(["\b", *textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)])


def _bold(title: str) -> str:
    # If the output isn't a terminal, typer removes the style.
    return title if "NO_COLOR" in os.environ or os.environ.get("TERM") == "dumb" else typer.style(title, bold=True)
