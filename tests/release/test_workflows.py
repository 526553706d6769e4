"""The workflows of GitHub: valid, and with nothing in them that can change behind our back."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness.run import run
from harness.tools import tool

WORKFLOWS = sorted((Path(__file__).parents[2] / ".github/workflows").iterdir())


def uses(path: Path) -> list[str]:
    return re.findall(r"uses: (.+)$", path.read_text(), re.MULTILINE)


def steps(path: Path) -> Iterator[dict[str, Any]]:
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        yield from job.get("steps", [])


def test_there_are_checks_and_releases() -> None:
    assert [path.name for path in WORKFLOWS] == ["checks.yaml", "release.yaml"]


def test_actionlint_finds_nothing() -> None:
    assert run(tool("actionlint"), "-no-color", *WORKFLOWS) == ""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_a_digest_with_its_version(path: Path) -> None:
    pinned = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\./\.github/workflows/[a-z]+\.yaml")
    assert uses(path)
    assert [used for used in uses(path) if not pinned.fullmatch(used)] == []


def test_an_action_has_one_digest_everywhere() -> None:
    pins = {used for path in WORKFLOWS for used in uses(path)}
    assert len(pins) == len({pin.partition("@")[0] for pin in pins})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_job_has_rights_that_it_was_not_given_and_no_secret_is_used(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert "secrets." not in path.read_text()
    assert "pull_request_target" not in path.read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_checkout_leaves_a_token_behind(path: Path) -> None:
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_script_has_an_expression_that_an_outsider_could_fill(path: Path) -> None:
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []
