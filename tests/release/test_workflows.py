"""The GitHub workflows are valid, pin their actions and have minimal rights."""

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


def test_the_workflows_are_checks_and_release() -> None:
    assert [path.name for path in WORKFLOWS] == ["checks.yaml", "release.yaml"]


# It may wait while other programs are built.
@pytest.mark.timeout(900)
def test_actionlint_reports_nothing() -> None:
    assert run(tool("actionlint"), "-no-color", *WORKFLOWS) == ""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_by_digest_with_its_version(path: Path) -> None:
    pinned = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+|\./\.github/workflows/[a-z]+\.yaml")
    assert uses(path)
    assert [used for used in uses(path) if not pinned.fullmatch(used)] == []


def test_an_action_has_the_same_digest_everywhere() -> None:
    pins = {used for path in WORKFLOWS for used in uses(path)}
    assert len(pins) == len({pin.partition("@")[0] for pin in pins})


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_have_no_default_write_rights_and_use_no_secrets(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] in ({}, {"contents": "read"})
    assert "secrets." not in path.read_text()
    assert "pull_request_target" not in path.read_text()


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_checkout_persists_credentials(path: Path) -> None:
    checkouts = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert all(step["with"] == {"persist-credentials": False} for step in checkouts)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_no_script_contains_an_expression(path: Path) -> None:
    assert [step["run"] for step in steps(path) if "${{" in step.get("run", "")] == []
