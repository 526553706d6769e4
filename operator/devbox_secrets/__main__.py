"""The programs: the command line `devbox-secrets`, and the servers operator, gateway and webhook."""

import gc

# Before the imports: a command is short-lived, and neither they nor JSON from the API server leave cycles behind;
# looking for some took 40 % of the time.
gc.disable()

import signal

# Until the imports are done, Ctrl-C ends the program without a traceback.
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

#: JSON is read by recursion, and what the API server stores may have 10,000 levels, in anyone's managedFields for
#: instance: with Python's default, of 1,000, a list with one such object couldn't be read.
_RECURSION_LIMIT = 12_000
_PLUGIN = "kubectl-devbox_secrets"


@app.command(hidden=True)
def operator() -> None:
    """Run the operator; the image's command, set up by DEVBOX_SECRETS_* variables."""
    with _extra("operator"):
        from devbox_secrets.controller import process
        from devbox_secrets.controller.settings import ControllerSettings

    gc.enable()
    process.run(ControllerSettings.read())


@app.command(hidden=True)
def gateway() -> None:
    """Run the REST gateway; set up by DEVBOX_SECRETS_* variables."""
    with _extra("gateway"):
        from devbox_secrets.gateway import process
        from devbox_secrets.gateway.settings import GatewaySettings

    gc.enable()
    process.run(GatewaySettings.read())


@app.command(hidden=True)
def webhook() -> None:
    """Run the webhook, set up in the same way."""
    with _extra("operator"):
        from devbox_secrets.webhook import server
        from devbox_secrets.webhook.settings import WebhookSettings

    gc.enable()
    server.run(WebhookSettings.read())


def main() -> None:
    """Run the command line."""
    _prepare()
    if sys.stderr is None:
        sys.stderr = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
    if sys.stdout is None:
        note("standard output is closed, and nothing was done; give it a file, or /dev/null to drop what is printed")
        sys.exit(1)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # where a terminal can't show a letter, its number
            stream.reconfigure(errors="backslashreplace")
    if os.environ.get(COMPLETE_VARIABLE, "").startswith("complete_"):
        _silence()
    try:
        app(prog_name=_program(), complete_var=COMPLETE_VARIABLE)
    except OSError as error:  # of what is printed before a command begins, its help for instance
        note(error.strerror or str(error))
        sys.exit(1)
    except KeyboardInterrupt:  # before a command begins
        sys.exit(128 + signal.SIGINT)
    finally:
        gc.freeze()  # on its way out, Python would look at every object once more


def complete_for_kubectl() -> None:
    """Complete what is typed after `kubectl devbox-secrets`.

    kubectl starts the program kubectl_complete-devbox_secrets with those words and reads a
    candidate a line, then a colon and cobra's directive; 4 is "and no names of files".
    """
    _prepare()
    _silence()
    words = sys.argv[1:] or [""]
    # The protocol of bash's completion, which the command line speaks already.
    os.environ |= {
        COMPLETE_VARIABLE: "complete_bash",
        "COMP_WORDS": shlex.join([NAME, *words]),
        "COMP_CWORD": str(len(words)),
    }
    try:
        app(prog_name=NAME, complete_var=COMPLETE_VARIABLE)
    finally:
        print(":4")  # noqa: T201 - what kubectl reads


def _prepare() -> None:
    sys.setrecursionlimit(_RECURSION_LIMIT)
    # A plugin of pydantic would see values; and to look for one takes long.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")


def _program() -> str:
    """Name the program as it was called; by kubectl, which has no other way to tell, under its plugin's name."""
    called = PurePath(sys.argv[0]).stem
    return "kubectl devbox-secrets" if called == _PLUGIN else NAME


def _silence() -> None:
    """Keep a credential plugin from talking, and from reading along, while someone types."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 2)
    os.close(nowhere)


@contextmanager
def _extra(name: str) -> Iterator[None]:
    """Say which extra has the packages that a server needs.

    Raises:
        MissingExtra: they aren't installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == __package__:
            raise  # a bug
        raise MissingExtra(
            f"{error.name} isn't installed: pip install 'devbox-secrets[{name}]', or use the project's image"
        ) from None


if __name__ == "__main__":
    main()
