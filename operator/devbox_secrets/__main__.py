"""The programs: the command line `devbox-secrets`, and the servers operator, gateway and webhook."""

import gc
import os
import shlex
import sys
from io import TextIOWrapper

from devbox_secrets.cli import app

#: JSON is read by recursion, and what the API server stores may have 10,000 levels, in anyone's managedFields for
#: instance: with Python's default, of 1,000, a list with one such object couldn't be read.
_RECURSION_LIMIT = 12_000


@app.command(hidden=True)
def operator() -> None:
    """Run the operator; the image's command, set up by DEVBOX_SECRETS_* variables."""
    from devbox_secrets.controller import process  # noqa: PLC0415 - kopf is in an extra
    from devbox_secrets.controller.settings import ControllerSettings  # noqa: PLC0415

    gc.enable()
    process.run(ControllerSettings())


@app.command(hidden=True)
def gateway() -> None:
    """Run the REST gateway; set up by DEVBOX_SECRETS_* variables."""
    from devbox_secrets.gateway import process  # noqa: PLC0415 - its server is in an extra
    from devbox_secrets.gateway.settings import GatewaySettings  # noqa: PLC0415

    gc.enable()
    process.run(GatewaySettings())


@app.command(hidden=True)
def webhook() -> None:
    """Run the webhook, set up in the same way."""
    from devbox_secrets.webhook import server  # noqa: PLC0415 - as above
    from devbox_secrets.webhook.settings import WebhookSettings  # noqa: PLC0415

    gc.enable()
    server.run(WebhookSettings())


def main() -> None:
    """Run the command line."""
    _disable_garbage_collection()
    sys.setrecursionlimit(_RECURSION_LIMIT)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # where a terminal can't show a letter, its number
            stream.reconfigure(errors="backslashreplace")
    app()


def complete_for_kubectl() -> None:
    """Complete what is typed after `kubectl devbox-secrets`.

    kubectl starts the program kubectl_complete-devbox_secrets with those words and reads a
    candidate a line, then a colon and cobra's directive; 4 is "and no names of files".
    """
    _disable_garbage_collection()
    sys.setrecursionlimit(_RECURSION_LIMIT)
    words = sys.argv[1:] or [""]
    # The protocol of bash's completion, which the command line speaks already.
    os.environ |= {
        "_DEVBOX_SECRETS_COMPLETE": "complete_bash",
        "COMP_WORDS": shlex.join(["devbox-secrets", *words]),
        "COMP_CWORD": str(len(words)),
    }
    try:
        app(prog_name="devbox-secrets")
    finally:
        print(":4")  # noqa: T201 - what kubectl reads


def _disable_garbage_collection() -> None:
    # A command is short-lived, and JSON from the API server has no cycles: looking for them took 40 % of the time.
    gc.disable()


if __name__ == "__main__":
    main()
