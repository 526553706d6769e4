"""What all commands share: options, error messages, exit codes, and an event loop if they need one."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

from devbox_secrets.cli.kit.app import MEANINGS, Commands, Exit
from devbox_secrets.cli.kit.options import AccountOptions, ClusterOptions
from devbox_secrets.cli.kit.run import run
from devbox_secrets.errors import InvalidName, NotFound, Unauthorized, Unreachable

ERRORS = {
    "an error of ours": (InvalidName("no such name"), "no such name"),
    "an error of the API server": (NotFound("GET /x: 404 no such thing"), "GET /x: 404 no such thing"),
    "a namespace that doesn't exist": (
        NotFound("PATCH /x: 404 no", details={"kind": "namespaces", "name": "team"}),
        "the namespace team doesn't exist; create it, or pass another account with -n",
    ),
    "not logged in": (Unauthorized("GET /x: 401"), "GET /x: 401; log in to the cluster again"),
    "no response": (Unreachable("cannot reach https://x (context y): z"), "cannot reach https://x (context y): z"),
    "a file": (FileNotFoundError(2, "No such file", "x.yaml"), "x.yaml: No such file"),
    "no file": (OSError(98, "Address already in use"), "Address already in use"),
    "the output": (
        OSError(28, "No space left on device"),
        "can't write the output: No space left on device; earlier changes are kept",
    ),
}


def invoke(command: Callable[..., object], *arguments: str) -> Result:
    """Run a command of a program without other commands."""
    family = Commands()
    family.command()(command)
    return CliRunner().invoke(family, arguments)


def test_a_command_may_be_a_coroutine_function() -> None:
    async def command(name: Annotated[str, typer.Argument()]) -> None:
        await asyncio.sleep(0)
        typer.echo(f"hello {name}")

    result = invoke(command, "team")
    assert (result.exit_code, result.stdout) == (0, "hello team\n")


@pytest.mark.parametrize("what", ERRORS)
@pytest.mark.parametrize("asynchronous", [True, False])
def test_an_error_is_one_message_and_exit_code_1(what: str, *, asynchronous: bool) -> None:
    error, sentence = ERRORS[what]

    def command() -> None:
        raise error

    async def coroutine_command() -> None:
        raise error

    result = invoke(coroutine_command if asynchronous else command)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", f"devbox-secrets: {sentence}\n")


@pytest.mark.parametrize("code", Exit)
def test_a_command_ends_with_its_own_exit_code(code: Exit) -> None:
    async def command() -> None:
        raise typer.Exit(code)

    assert invoke(command).exit_code == code


def test_an_unexpected_error_is_not_hidden() -> None:
    async def command() -> None:
        raise ValueError("a bug")

    assert isinstance(invoke(command).exception, ValueError)


def test_every_exit_code_has_a_meaning() -> None:
    assert list(MEANINGS) == list(Exit) == [0, 1, 2, 3, 4]


def test_the_fields_of_an_options_class_are_options_of_the_command(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "config"
    kubeconfig.touch()
    given: list[ClusterOptions] = []

    async def command(at: AccountOptions, name: Annotated[str, typer.Argument()]) -> None:
        given.append(at)
        typer.echo(name)

    result = invoke(command, "TOKEN", "-n", "team", f"--kubeconfig={kubeconfig}", "--context=one")
    assert (result.exit_code, result.stdout) == (0, "TOKEN\n")
    assert given == [AccountOptions("team", kubeconfig=kubeconfig, context="one", operator_namespace="devbox-secrets")]


def test_a_command_for_the_whole_cluster_takes_no_account() -> None:
    def command(at: ClusterOptions) -> None:
        typer.echo(at.operator_namespace)

    assert invoke(command, "--operator-namespace=other").stdout == "other\n"
    for text in ("../other", "other#", "other?a=b", ""):  # it's part of each request's path
        refused = invoke(command, f"--operator-namespace={text}")
        assert refused.exit_code == Exit.USAGE
        assert f"{text!r} isn't a valid namespace name" in refused.stderr
    assert invoke(command, "--account=team").exit_code == Exit.USAGE


def test_the_paragraphs_of_a_docstring_are_the_help() -> None:
    def command() -> None:
        """Do it
        in one go.

        Example: it
        """

    family = Commands()
    family.command()(command)
    assert family.registered_commands[0].help == "Do it in one go.\n\nExample: it"


def test_tasks_of_a_coroutine_end_with_it() -> None:
    ended = asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def work() -> str:
        tasks.append(asyncio.ensure_future(never()))
        await asyncio.sleep(0)
        return "done"

    tasks: list[asyncio.Future[None]] = []
    assert run(work()) == "done"
    assert ended.is_set()
