"""What all commands share: the program, its exit codes, errors as sentences. Imports target, output.

`Commands` is the one way to make a command: it gives it both, and the options that say where.
"""

import inspect
from collections.abc import Callable
from enum import IntEnum
from functools import wraps
from http import HTTPStatus
from importlib.metadata import version as package_version
from typing import Annotated, Any, TypeVar

import typer

from devbox_secrets.cli.output import note
from devbox_secrets.cli.target import Place, Target
from devbox_secrets.errors import ClusterError, DevboxSecretsError

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Exit(IntEnum):
    """How a command ended; the same for every command."""

    DONE = 0
    FAILED = 1
    CALLED_WRONGLY = 2
    NOT_WELL = 3
    TIME_IS_UP = 4


MEANINGS = {
    Exit.DONE: "Done; or, where a command only looks: all is as it should be.",
    Exit.FAILED: "What was asked for couldn't be done; a sentence on standard error says why, and what to do.",
    Exit.CALLED_WRONGLY: "No such command, option or argument; nothing was done.",
    Exit.NOT_WELL: "It was looked at, or done as far as it could be, and not all is as it should be.",
    Exit.TIME_IS_UP: "What was waited for hasn't come.",
}


class Commands(typer.Typer):
    """A family of commands.

    An error ends a command with its text, not with a traceback, which could show a value. A
    parameter of the type `Place`, or `Target`, becomes the options that say where.
    """

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401 - typer's own
        super().__init__(pretty_exceptions_enable=False, **settings)

    def command(self, name: str | None = None, **settings: Any) -> Callable[[_Command], _Command]:  # noqa: ANN401 - typer's own
        """Make a function a command; the paragraphs of its docstring are its help, as wide as the terminal."""

        def decorate(function: _Command) -> _Command:
            paragraphs = (inspect.getdoc(function) or "").split("\n\n")
            text = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
            register = super(Commands, self).command(name, **{"help": text, **settings})
            register(_with_place(errors_are_sentences(function)))
            return function

        return decorate


def complete_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Give the variables of the account, for the shell to complete; none, where they can't be read."""
    from devbox_secrets.cli import accountsecrets

    given = {name: ctx.params.get(name) for name in inspect.signature(Target).parameters}
    at = Target(**{name: value for name, value in given.items() if value})
    try:
        account = at.home()
        found = at.ask(lambda cluster: accountsecrets.list_all(cluster, account))
    except (DevboxSecretsError, OSError):
        return []
    return [each.variable for each in found if each.variable.startswith(incomplete)]


Name = Annotated[
    str,
    typer.Argument(
        metavar="NAME",
        help="The variable, such as GITHUB_TOKEN, or the AccountSecret's own name.",
        autocompletion=complete_names,
    ),
]


def errors_are_sentences(command: Callable[..., None]) -> Callable[..., None]:
    """Make a command end with an error's text and exit code 1."""

    @wraps(command)
    def wrapped(*args: object, **kwargs: object) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:
            raise  # typer's to end quietly
        except (DevboxSecretsError, OSError) as error:
            note(_sentence(error))
            raise typer.Exit(Exit.FAILED) from None

    return wrapped


def _sentence(error: Exception) -> str:
    """Say what is wrong; and what to do next where the error, which the operator has as well, doesn't."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, ClusterError) and error.status == HTTPStatus.UNAUTHORIZED:
        return f"{error}; log in to the cluster again"
    if isinstance(error, ClusterError) and error.__cause__ is not None:
        return f"{error}; is the cluster up, and is it the right context?"  # there was no answer
    return str(error)


def _with_place(command: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(command)
    own = list(signature.parameters.values())
    place = next(
        (each for each in own if isinstance(each.annotation, type) and issubclass(each.annotation, Place)), None
    )
    if place is None:
        return command
    fields = inspect.signature(place.annotation).parameters
    options = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in fields.values()]

    @wraps(command)
    def wrapped(**given: Any) -> None:  # noqa: ANN401 - the command's own
        given[place.name] = place.annotation(**{name: given.pop(name) for name in fields})
        command(**given)

    parameters = [parameter for parameter in own if parameter is not place] + options
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return wrapped


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(package_version("devbox-secrets"))
        raise typer.Exit


app = Commands(
    name="devbox-secrets",
    help="Account-level secrets for AI-agent devboxes on Kubernetes.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _root(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass
