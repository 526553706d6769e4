"""How every command reads its options, and what its help looks like."""

import os
import re
from collections.abc import Iterator
from typing import Annotated, Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner, Result

from devbox_secrets.cli import app
from devbox_secrets.cli.kit.app import Commands
from devbox_secrets.cli.kit.command import summary, takes, unless_given
from devbox_secrets.cli.kit.options import AccountOptions, ClusterOptions


def invoke(*arguments: str, family: typer.Typer = app, **settings: Any) -> Result:  # noqa: ANN401
    return CliRunner().invoke(family, arguments, **settings)


def all_commands(command: Any, *words: str) -> Iterator[tuple[tuple[str, ...], Any]]:  # noqa: ANN401 - typer's own
    yield words, command
    for name, each in getattr(command, "commands", {}).items():
        if not each.hidden:
            yield from all_commands(each, *words, name)


COMMANDS = {" ".join(words): (words, command) for words, command in all_commands(get_command(app))}


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_the_help_lists_the_commands_in_sections(option: str) -> None:
    text = invoke(option).stdout
    assert text.startswith("Usage: devbox-secrets COMMAND [OPTIONS]\n\nAccount-level secrets for")
    sections = re.findall(r"^(\S.*):\n", text, re.MULTILINE)
    assert sections == ["Example", "Secrets", "Devboxes", "Administration", "About", "Options", "Cluster options"]
    assert "\n  seal    Seal a value and print the manifest for kubectl or Git\n" in text


def test_without_a_command_the_help_is_shown() -> None:
    result = invoke()
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == invoke("-h").stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_into_80_columns_and_describes_all_options(name: str) -> None:
    words, command = COMMANDS[name]
    text = re.sub(r"(?m)^Examples?:\n(  .+\n)+", "", invoke(*words, "-h").stdout)
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert not re.search(r"<\w+>|list\[|(?<!\$)\{|\.\.\.\.|None|\bctx\b", text)
    options = [each for each in command.params if each.param_type_name == "option" and not each.hidden]
    for option in options:
        assert option.help, option.name
        assert re.search(rf"(?<!\S){option.opts[-1]}(?![-\w])", text)
        assert takes(option) in text
    assert re.search(r"-$", text, re.MULTILINE) is None, "a word is broken at its hyphen"
    assert len(summary(command)) <= 80


def test_headings_are_bold_unless_colors_are_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\x1b[1mOptions\x1b[0m:" in invoke("list", "-h", color=True).stdout
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b" not in invoke("list", "-h", color=True).stdout
    assert "\x1b" not in invoke("list", "-h").stdout


def family(*given: ClusterOptions) -> tuple[Commands, list[ClusterOptions]]:
    """Return a program with commands for an account and for the whole cluster, and the options that they receive."""
    seen = list(given)
    program = Commands("Program")
    group = Commands("Group", name="group")

    @program.callback()
    def _root(_: AccountOptions) -> None:
        pass

    @program.command("account")
    def _account(at: AccountOptions, word: Annotated[str, typer.Argument(metavar="WORD")] = "") -> None:
        """Do it.

        Example: devbox-secrets account x
        """
        assert word in {"", "x"}
        seen.append(at)

    @group.command("cluster")
    def _cluster(at: ClusterOptions) -> None:
        seen.append(at)

    @group.command("nothing")
    def _nothing() -> None:
        pass

    program.add_typer(group)
    return program, seen


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-n", "a", "account", "x"], {"account": "a"}),
        (["--context=one", "account", "-n", "a"], {"account": "a", "context": "one"}),
        (["-n", "a", "account", "-n", "b"], {"account": "b"}),
        (["--operator-namespace", "o", "--namespace", "a", "account"], {"account": "a", "operator_namespace": "o"}),
        (["-n", "-x", "account"], {"account": "-x"}),
        (
            ["--as", "jane", "--as-group=a", "--as-group=b", "account", "--as-group=c"],
            {"as_user": "jane", "as_group": ["a", "b", "c"]},
        ),
        (["account"], {"account": None, "operator_namespace": "devbox-secrets"}),
        (["--context", "one", "group", "cluster"], {"context": "one"}),
        (["-n", "a", "group", "cluster"], {}),
    ],
)
def test_cluster_options_can_come_before_the_command(words: list[str], expected: dict[str, object]) -> None:
    program, seen = family()
    result = invoke(*words, family=program)
    assert result.exit_code == 0, result.stderr
    (at,) = seen
    assert {name: getattr(at, name) for name in expected} == expected


def test_an_option_that_a_command_does_not_take_is_only_allowed_before_it() -> None:
    program, _ = family()
    assert invoke("-n", "a", "group", "nothing", family=program).exit_code == 0
    assert invoke("group", "nothing", "-n", "a", family=program).exit_code == 2


def test_an_option_in_either_place_overrides_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    program, seen = family()
    monkeypatch.setenv("DEVBOX_SECRETS_OPERATOR_NAMESPACE", "from-variable")
    for words in (["account"], ["--operator-namespace=a", "account"], ["account", "--operator-namespace=b"]):
        assert invoke(*words, family=program).exit_code == 0
    assert [at.operator_namespace for at in seen] == ["from-variable", "a", "b"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "--al-accounts"], "No such option: --al-accounts (Possible options: --account, --all-accounts)"),
        (["keys", "rotate", "--timout", "5m"], "No such option: --timout (Possible options: --timeout)"),
        (["stats"], "No such command 'stats'. Did you mean 'status'?"),
        (["keys", "roatte"], "No such command 'roatte'. Did you mean 'rotate'?"),
        (["--contxt", "x", "list"], "No such option: --contxt (Possible options: --account, --context)"),
        (["list", "-o", "xml"], "Invalid value for '--output' / '-o': 'xml' is not one of 'text', 'wide', 'name',"),
        (["status", "--wait", "--timeout", "soon"], "Invalid value for '--timeout': 'soon' isn't a duration"),
    ],
)
def test_a_misspelled_word_is_reported(words: list[str], message: str) -> None:
    result = invoke(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert re.search(r"^Try 'devbox-secrets .*-h' for help\.$", result.stderr, re.MULTILINE)


def test_the_help_shows_variables_and_defaults() -> None:
    _, command = COMMANDS["list"]
    shown = {each.name: unless_given(each) for each in command.params}
    assert shown["operator_namespace"] == ["$DEVBOX_SECRETS_OPERATOR_NAMESPACE", "default devbox-secrets"]
    assert (shown["output"], shown["context"], shown["everywhere"]) == (["default text"], [], [])
    assert os.environ.get("DEVBOX_SECRETS_OPERATOR_NAMESPACE") is None
