"""The program: how commands are defined and run, exit codes, and error messages.

Every command is defined with `Commands`.
"""

import errno
import inspect
import os
import sys
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from pathlib import PurePath
from typing import Annotated, Any, TypeVar

import typer

from devbox_secrets.cli.kit.command import NAME, Command, Group
from devbox_secrets.cli.kit.options import AccountOptions, ClusterOptions, no_namespace
from devbox_secrets.cli.kit.output import note
from devbox_secrets.cli.kit.run import run
from devbox_secrets.errors import DevboxSecretsError, NotFound, Unauthorized

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Exit(IntEnum):
    """The exit codes; every command uses the same ones."""

    OK = 0
    ERROR = 1
    USAGE = 2
    UNHEALTHY = 3
    TIMEOUT = 4


MEANINGS = {
    Exit.OK: "Success.",
    Exit.ERROR: "Failed. A message on standard error gives the cause and the remedy.",
    Exit.USAGE: "Invalid command, option or argument. Nothing was done.",
    Exit.UNHEALTHY: "Completed, with problems: the output lists them.",
    Exit.TIMEOUT: "Timed out while waiting.",
}


class Commands(typer.Typer):
    """A family of commands.

    A command is a function or a coroutine function. If it fails, only the error's message is printed, because a
    traceback could show a value. A parameter of type `ClusterOptions` or `AccountOptions` becomes those options.
    """

    def __init__(self, section: str = "Commands", **settings: Any) -> None:  # noqa: ANN401 - typer's own
        """Create a family; the help lists it under `section`."""
        super().__init__(cls=Group, pretty_exceptions_enable=False, rich_markup_mode=None, **settings)
        self.section = section
        self._panel = None if "name" in settings else section

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_Command], _Command]:  # noqa: ANN401 - typer's own
        """Register a function as a command; its docstring is the help text, wrapped to the terminal's width."""

        def decorate(function: _Command) -> _Command:
            paragraphs = (inspect.getdoc(function) or "").split("\n\n")
            text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
            register = super(Commands, self).command(
                name, **{"cls": Command, "help": text, "rich_help_panel": self._panel, **settings}
            )
            register(_with_options(_with_error_messages(_synchronous(function))))
            return function

        return decorate

    def callback(self, **settings: Any) -> Callable[[_Command], _Command]:  # noqa: ANN401 - typer's own
        """Register a function to run before each command; its options are the program's own."""

        def decorate(function: _Command) -> _Command:
            super(Commands, self).callback(**settings)(_with_options(function))
            return function

        return decorate


def _synchronous(command: Callable[..., Any]) -> Callable[..., None]:
    if not inspect.iscoroutinefunction(command):
        return command

    @wraps(command)
    def wrapped(*args: object, **kwargs: object) -> None:
        run(command(*args, **kwargs))

    return wrapped


def _with_error_messages(command: Callable[..., None]) -> Callable[..., None]:
    @wraps(command)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:
            raise  # typer exits quietly
        except (DevboxSecretsError, OSError) as error:
            note(_message(error))
            raise typer.Exit(Exit.ERROR) from None

    return wrapped


def _message(error: Exception) -> str:
    """Return the message to print, with the next step if the error itself has none because servers raise it, too."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, OSError):
        reason = error.strerror or str(error)
        is_output = error.errno == errno.ENOSPC  # standard output has no name
        return f"can't write the output: {reason}; earlier changes are kept" if is_output else reason
    if isinstance(error, Unauthorized):
        return f"{error}; log in to the cluster again"
    if isinstance(error, NotFound) and error.details.get("kind") == "namespaces":
        return str(no_namespace(error.details.get("name", "")))
    return str(error)


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a parameter of type `ClusterOptions` with its fields; typer makes each an option."""
    signature = inspect.signature(command)
    own = list(signature.parameters.values())
    group = next((each for each in own if _is_options(each.annotation)), None)
    if group is None:
        return command
    fields = inspect.signature(group.annotation).parameters
    options = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in fields.values()]

    @wraps(command)
    def wrapped(**given: Any) -> None:  # noqa: ANN401 - the command's own
        given[group.name] = group.annotation(**{name: given.pop(name) for name in fields})
        command(**given)

    parameters = [parameter for parameter in own if parameter is not group] + options
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return wrapped


def _is_options(annotation: object) -> bool:
    return isinstance(annotation, type) and issubclass(annotation, ClusterOptions)


def client_version() -> str:
    """Return this program's version."""
    from importlib.metadata import version

    return version(NAME)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(client_version())
        raise typer.Exit


#: Typer's completion scripts set this variable to request completions.
COMPLETE_VARIABLE = "_DEVBOX_SECRETS_COMPLETE"
#: kubectl runs this program to request completions.
COMPLETE_PROGRAM = "kubectl_complete-devbox_secrets"
app = Commands(
    name=NAME,
    help="Account-level secrets for AI-agent devboxes on Kubernetes.\n\nA secret is an environment variable that every"
    " devbox of an account gets. An account is a namespace.\n\nExample: devbox-secrets set GITHUB_TOKEN < token",
    no_args_is_help=True,
    # Imported only when needed, because it is slow; `completion` prints the scripts.
    add_completion=COMPLETE_VARIABLE in os.environ or PurePath(sys.argv[0]).stem == COMPLETE_PROGRAM,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    _: AccountOptions,
    __: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass
