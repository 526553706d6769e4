"""The programs: the CLI `devbox-secrets`, and the servers operator, gateway and webhook."""

import gc

# Before the imports: a command is short-lived, and neither the imports nor JSON from the API server create reference
# cycles. Collecting garbage took 40 % of the run time.
gc.disable()

import signal

# During the imports, Ctrl-C ends the program without a traceback.
_on_interrupt = signal.getsignal(signal.SIGINT)
if _on_interrupt is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import PurePath

from devbox_secrets.cli import app
from devbox_secrets.cli.kit.app import COMPLETE_VARIABLE
from devbox_secrets.cli.kit.command import NAME
from devbox_secrets.cli.kit.output import note
from devbox_secrets.errors import MissingExtra

signal.signal(signal.SIGINT, _on_interrupt)

#: Python's JSON parser is recursive, and the API server accepts objects with 10,000 levels, for example in
#: managedFields. With Python's default limit of 1,000, a list with one such object couldn't be read.
_RECURSION_LIMIT = 12_000
_PLUGIN = "kubectl-devbox_secrets"


@app.command(hidden=True)
def operator() -> None:
    """Run the operator, the image's default command; configured by DEVBOX_SECRETS_* variables."""
    with _extra("operator"):
        from devbox_secrets.controller import process
        from devbox_secrets.controller.settings import ControllerSettings

    gc.enable()
    process.run(ControllerSettings.read())


@app.command(hidden=True)
def gateway() -> None:
    """Run the REST gateway; configured by DEVBOX_SECRETS_* variables."""
    with _extra("gateway"):
        from devbox_secrets.gateway import process
        from devbox_secrets.gateway.settings import GatewaySettings

    gc.enable()
    process.run(GatewaySettings.read())


@app.command(hidden=True)
def webhook() -> None:
    """Run the webhook; configured by DEVBOX_SECRETS_* variables."""
    with _extra("operator"):
        from devbox_secrets.webhook import server
        from devbox_secrets.webhook.settings import WebhookSettings

    gc.enable()
    server.run(WebhookSettings.read())


def main() -> None:
    """Run the CLI."""
    _prepare()
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stdout is None:
        note("standard output is closed, so nothing was done; redirect it to a file or to /dev/null")
        sys.exit(1)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # print the code of a character that the terminal can't display
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get(COMPLETE_VARIABLE, "").startswith("complete_"):
        _silence()
    try:
        app(prog_name=_program(), complete_var=COMPLETE_VARIABLE)
    except OSError as error:  # from output that is printed before a command starts, such as its help
        note(error.strerror or str(error))
        sys.exit(1)
    except KeyboardInterrupt:  # before a command starts
        sys.exit(128 + signal.SIGINT)
    finally:
        gc.freeze()  # otherwise Python would examine every object again at exit


def complete_for_kubectl() -> None:
    """Complete the words after `kubectl devbox-secrets`.

    kubectl runs the program kubectl_complete-devbox_secrets with those words. It reads one candidate
    per line, then a colon and cobra's directive; 4 means "no file names".
    """
    _prepare()
    _silence()
    words = sys.argv[1:] or [""]
    # Reuse the protocol of bash completion, which typer implements.
    os.environ |= {
        COMPLETE_VARIABLE: "complete_bash",
        "COMP_WORDS": shlex.join([NAME, *words]),
        "COMP_CWORD": str(len(words)),
    }
    try:
        app(prog_name=NAME, complete_var=COMPLETE_VARIABLE)
    finally:
        print(":4")  # noqa: T201 - kubectl reads it


def _prepare() -> None:
    sys.setrecursionlimit(_RECURSION_LIMIT)
    # A pydantic plugin would see values, and searching for plugins is slow.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def _program() -> str:
    """Return the name that the user typed; kubectl runs a plugin by the plugin's file name."""
    called = PurePath(sys.argv[0]).stem
    return "kubectl devbox-secrets" if called == _PLUGIN else NAME


def _silence() -> None:
    """Keep a credential plugin from using the terminal while someone types."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Report the extra to install if a server's packages are missing.

    Raises:
        MissingExtra: a package isn't installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == __package__:
            raise  # a bug
        raise MissingExtra(
            f"{error.name} isn't installed; run pip install 'devbox-secrets[{name}]', or use the project's image"
        ) from None


if __name__ == "__main__":
    main()
