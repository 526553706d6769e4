"""The wheel that users install: its files, version, programs and dependencies."""

import importlib.metadata
import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import devbox_secrets

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CHANGELOG = (ROOT / "CHANGELOG.md").read_text()
WHEEL = importlib.metadata.distribution("devbox-secrets")
FILES = {str(file) for file in WHEEL.files or ()}


def needed(extra: str = "") -> set[str]:
    """Return the packages that the wheel requires, or those that an extra adds."""
    marker = f'extra == "{extra}"' if extra else ""
    split = [requirement.partition(";")[::2] for requirement in WHEEL.requires or ()]
    return {re.split(r"[^\w-]", name)[0] for name, condition in split if condition.strip().replace("'", '"') == marker}


def test_the_tests_run_against_the_wheel_and_not_the_source_tree() -> None:
    assert devbox_secrets.__file__ is not None
    assert not Path(devbox_secrets.__file__).resolve().is_relative_to(ROOT)
    assert str(ROOT / "operator") not in sys.path


def test_the_wheel_contains_every_module_and_nothing_else() -> None:
    source = ROOT / "operator"
    modules = {str(path.relative_to(source)) for path in source.rglob("*.py")}
    assert modules
    installed = {file for file in FILES if file.endswith(".py")}
    assert installed == modules


def test_the_wheel_tells_type_checkers_that_it_is_typed() -> None:
    assert "devbox_secrets/py.typed" in FILES


def test_the_wheel_contains_its_license() -> None:
    (license_file,) = (file for file in WHEEL.files or () if file.name == "LICENSE")
    assert license_file.read_text() == (ROOT / "LICENSE").read_text()
    assert WHEEL.metadata["License-Expression"] == "Apache-2.0"


def test_the_wheel_has_the_project_s_version() -> None:
    assert WHEEL.version == PROJECT["version"]


def test_chart_and_changelog_have_the_same_version() -> None:
    chart = yaml.safe_load((ROOT / "charts/devbox-secrets/Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (WHEEL.version, WHEEL.version)
    sections = re.findall(r"^## \[(.+)\](?: - (Unreleased|\d{4}-\d\d-\d\d))?$", CHANGELOG, re.MULTILINE)
    assert [name for name, _ in sections][:2] == ["Unreleased", WHEEL.version]


def test_the_changelog_only_has_the_kinds_of_changes_of_keep_a_changelog() -> None:
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", CHANGELOG, re.MULTILINE)) <= kinds
    assert CHANGELOG.count("\n## ") == len(re.findall(r"^## \[", CHANGELOG, re.MULTILINE))


@pytest.mark.parametrize("name", ["devbox-secrets", "kubectl-devbox_secrets"])
def test_both_programs_exist_and_print_the_version(name: str) -> None:
    assert name in {entry.name for entry in WHEEL.entry_points.select(group="console_scripts")}
    program = Path(sysconfig.get_path("scripts")) / name
    assert os.access(program, os.X_OK)
    done = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout == f"{PROJECT['version']}\n"


def test_the_command_line_does_not_require_packages_of_the_operator() -> None:
    operators = {"kopf", "prometheus-client", "pydantic-settings"}
    assert operators <= needed("operator")
    assert operators.isdisjoint(needed())


def test_the_command_line_takes_at_most_80_megabytes() -> None:
    sizes: dict[str, int] = {}
    queue = [WHEEL]
    while queue:
        package = queue.pop()
        paths = [Path(str(file.locate())) for file in package.files or ()]
        sizes[package.name] = sum(path.stat().st_size for path in paths if path.exists())
        required = [Requirement(text) for text in package.requires or ()]
        names = [each.name for each in required if each.marker is None or each.marker.evaluate({"extra": ""})]
        queue += [importlib.metadata.distribution(name) for name in names if name not in sizes]
    assert len(sizes) > len(needed())
    assert sum(sizes.values()) < 80_000_000, sorted(sizes.items(), key=lambda each: each[1])[-5:]
