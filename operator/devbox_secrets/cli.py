"""The command line. What a command needs beyond sealing is imported when it is called.

A value comes from standard input, a file or a hidden prompt, never from the arguments: those are
in the shell's history and in every process list.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from enum import StrEnum
from functools import wraps
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Annotated, Any, ParamSpec

import typer
import yaml
from pydantic import SecretBytes

from devbox_secrets.api import (
    OPERATOR_NAMESPACE,
    AccountSecretSpec,
    check_account,
    check_description,
    check_rotate_after,
    check_variable,
)
from devbox_secrets.errors import DevboxSecretsError, InvalidKey, InvalidValue
from devbox_secrets.manifest import manifest
from devbox_secrets.sealing import SealingKey

app = typer.Typer(
    name="devbox-secrets",
    help="Account-level secrets for AI-agent devboxes on Kubernetes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a traceback with local variables could show a value
    context_settings={"help_option_names": ["-h", "--help"]},
)
#: What Linux takes of a line before its newline, and drops the rest (N_TTY_BUF_SIZE, termios(3)).
_TERMINAL_LINE_BYTES = 4095
#: Far beyond any value, so that its true size is told; and a bound for a stream that never ends.
_MOST_BYTES = 1 << 24
_P = ParamSpec("_P")


class Output(StrEnum):
    """How a sealed value is printed."""

    YAML = "yaml"
    JSON = "json"
    RAW = "raw"


def errors_are_sentences(command: Callable[_P, None]) -> Callable[_P, None]:
    """Make a command end with an error's text and exit code 1, not with a traceback."""

    @wraps(command)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except BrokenPipeError:
            raise  # typer's to end quietly
        except (DevboxSecretsError, OSError) as error:
            typer.echo(f"devbox-secrets: {error}", err=True)
            raise typer.Exit(1) from None

    return wrapped


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(package_version("devbox-secrets"))
        raise typer.Exit


@app.callback()
def _root(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    pass


# What is too much is taken, so that it isn't repeated: it may be a value.
@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
@errors_are_sentences
def seal(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The environment variable.")],
    from_file: Annotated[
        Path | None,
        typer.Option(
            "--from-file", "-f", metavar="FILE", exists=True, dir_okay=False,
            help="Read the value from this file.",
        ),
    ] = None,
    account: Annotated[
        str | None,
        typer.Option(
            "--account", "--namespace", "-n",
            help="The account: the namespace that owns the secret; without it, the present"
            " context's namespace.",
        ),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False,
            help="Seal with the public key in this file, without asking the cluster.",
        ),
    ] = None,
    output: Annotated[
        Output, typer.Option("--output", "-o", help="A manifest, or the sealed value alone.")
    ] = Output.YAML,
    description: Annotated[
        str | None, typer.Option(help="What the secret is for.")
    ] = None,
    rotate_after: Annotated[
        str | None, typer.Option(metavar="90d", help="How old the value may become.")
    ] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="Keep a newline at the end of a one-line value.")
    ] = False,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(metavar="FILE", exists=True, dir_okay=False, help="The kubeconfig to use."),
    ] = None,
    context: Annotated[
        str | None, typer.Option(help="The kubeconfig's context to use.")
    ] = None,
    operator_namespace: Annotated[
        str, typer.Option(help="Where devbox-secrets is installed.")
    ] = OPERATOR_NAMESPACE,
) -> None:  # fmt: skip
    """Seal a value for an account's devboxes and print the manifest for kubectl.

    The value is read from standard input, from --from-file, or at a hidden prompt.

    Example: devbox-secrets seal GITHUB_TOKEN < token | kubectl apply -f -
    """
    if ctx.args:
        raise InvalidValue(
            "only NAME and the options that `devbox-secrets seal -h` lists can be given; a value never, since"
            " the shell's history and every list of processes show it: use standard input, --from-file or"
            " the prompt"
        )
    check_variable(name)
    check_description(description)
    check_rotate_after(rotate_after)
    if account is None:
        account = _present_namespace(kubeconfig, context)
    check_account(account)
    if public_key is not None:
        key = _key_in(public_key, operator_namespace)
    else:
        key = asyncio.run(_newest_key(kubeconfig, context, operator_namespace))
    value = _read_value(name, from_file, exact=exact)
    sealed = key.seal(value, account=account, name=name)
    spec = AccountSecretSpec(name=name, sealed=sealed, description=description, rotate_after=rotate_after)
    typer.echo(_render(output, manifest(account, spec)), nl=False)


def _read_value(name: str, from_file: Path | None, *, exact: bool) -> SecretBytes:
    if from_file is not None:
        with from_file.open("rb") as file:
            raw = file.read(_MOST_BYTES)
    elif sys.stdin is None:
        raise InvalidValue(f"standard input is closed: give the value of {name} there or with --from-file")
    elif sys.stdin.isatty():
        return _ask(name)
    else:
        raw = sys.stdin.buffer.read(_MOST_BYTES)
    line, end, rest = raw.partition(b"\n")
    if exact or not end or rest:
        return SecretBytes(raw)
    typer.echo("devbox-secrets: left out the newline at the end (--exact keeps it)", err=True)
    return SecretBytes(line.removesuffix(b"\r"))


def _ask(name: str) -> SecretBytes:
    try:
        asked: str = typer.prompt(f"Value of {name}", hide_input=True, confirmation_prompt=True, err=True)
        raw = asked.encode()
    except UnicodeError:
        # From None: the exception in hand carries the value.
        raise InvalidValue(f"what was typed as the value of {name} isn't UTF-8 text") from None
    if len(raw) >= _TERMINAL_LINE_BYTES:
        raise InvalidValue(
            f"a terminal cuts a line after {_TERMINAL_LINE_BYTES:,} bytes without a word: give the value of {name}"
            " on standard input or with --from-file"
        )
    return SecretBytes(raw)


def _render(output: Output, body: dict[str, Any]) -> str:
    if output is Output.RAW:
        return f"{body['spec']['sealed']}\n"
    if output is Output.JSON:
        return json.dumps(body, indent=2) + "\n"
    # No line is broken: the sealed value stays one word to look at and to compare.
    text: str = yaml.safe_dump(body, sort_keys=False, width=sys.maxsize)
    return text


def _key_in(path: Path, namespace: str) -> SealingKey:
    try:
        return SealingKey.parse(path.read_text())
    except (InvalidKey, UnicodeDecodeError) as error:
        raise InvalidKey(
            f"{path}: {error}; get it with: kubectl get configmap devbox-secrets-public-keys"
            f" -n {namespace} -o jsonpath='{{.data.newest}}'"
        ) from None


async def _newest_key(kubeconfig: Path | None, context: str | None, namespace: str) -> SealingKey:
    from devbox_secrets.cluster import Cluster  # noqa: PLC0415 - half a second, for the cluster alone

    async with Cluster.connect(kubeconfig, context) as cluster:
        keys = await cluster.read_public_keys(namespace)
    if "newest" not in keys:
        raise InvalidKey(
            f"there is no sealing key in the namespace {namespace} yet; the operator makes it when"
            f" it starts: kubectl get pods -n {namespace}"
        )
    return SealingKey.parse(keys["newest"])


def _present_namespace(kubeconfig: Path | None, context: str | None) -> str:
    from devbox_secrets.connection import present_namespace  # noqa: PLC0415 - as above

    return present_namespace(kubeconfig, context)
