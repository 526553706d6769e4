"""Checks that a test runs each command of the documentation."""

import re

import pytest

from integration.docs.pages import INSTALLATION, PAGES, ROOT, TABLE, Page, blocks, documents

HERE = [*PAGES, *INSTALLATION]
ELSEWHERE = {place for places in TABLE["elsewhere"].values() for place in places}


@pytest.mark.parametrize("path", documents())
def test_a_test_runs_each_command(path: str) -> None:
    here = {step.command for page in HERE if page.path == path for step in page.steps}
    found = list(blocks(path))
    others = [block for block in found if not {path, f"{path}#{block.heading}"} & ELSEWHERE]
    untested = {step.command for block in others for step in block.steps} - here
    assert {command for command in untested if not command.startswith(tuple(TABLE["not run"]))} == set()
    # An indented block would be overlooked.
    assert sum(block.language == "console" for block in found) == (ROOT / path).read_text().count("```console")


@pytest.mark.parametrize("module", TABLE["elsewhere"])
def test_a_module_that_runs_commands_names_their_page(module: str) -> None:
    for place in TABLE["elsewhere"][module]:
        path, _, heading = place.partition("#")
        assert path.rpartition("/")[2] in (ROOT / module).read_text()
        assert any(block.steps for block in blocks(path) if heading in {"", block.heading}), place


@pytest.mark.parametrize("page", HERE, ids=lambda it: it.path)
def test_each_key_matches_a_command_of_its_own(page: Page) -> None:
    matches = [[step.command for step in page.steps if re.search(key, step.command)] for key in page.commands]
    assert [len(commands) for commands in matches] == [1] * len(matches)
    assert len({commands[0] for commands in matches}) == len(matches)


@pytest.mark.parametrize("start", TABLE["not run"])
def test_each_command_that_no_test_runs_is_in_a_page(start: str) -> None:
    every = [step for path in documents() for block in blocks(path) for step in block.steps]
    assert [step for step in every if step.command.startswith(start)]
