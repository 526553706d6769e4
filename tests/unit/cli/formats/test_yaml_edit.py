"""Where the sealed strings of a YAML text are, in every style that it can be written in."""

import json
from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from devbox_secrets.api.manifest import manifest
from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.cli.formats.yaml_edit import find, replaced

OLD, NEW = "dbs1.0000000000000000.AAAA", "dbs1.1111111111111111.BBBBBB"
HEAD = "apiVersion: devbox-secrets.dev/v1alpha1\nkind: AccountSecret\nmetadata: {name: token, namespace: team}\n"


def resealed(text: str) -> str:
    return replaced(text, {each.start: (each, NEW) for each in find(text)})


@pytest.mark.parametrize(
    "spec",
    [
        f"spec:\n  name: TOKEN\n  sealed: {OLD}\n",
        f"spec:\n  sealed: '{OLD}'   # a comment that stays\n  name: TOKEN",
        f'spec: {{name: TOKEN, sealed: "{OLD}", description: x}}\n',
        f"spec:\n  name: TOKEN\n  sealed: |\n    {OLD}\n  description: x\n",
        f"spec:\n  name: TOKEN\n  sealed: >-\n    {OLD}\n",
        f"spec:\n  name: TOKEN\n  sealed:\n    {OLD}\n",
        f"spec:\r\n  name: TOKEN\r\n  sealed: {OLD}\r\n  description: é 🙂\r\n",
        f"spec: &here\n  name: TOKEN\n  sealed: &value {OLD}\nother: *here\n",
        f"# {OLD} in a comment stays\nspec:\n  description: {OLD}\n  name: TOKEN\n  sealed: {OLD}\n",
    ],
    ids=["plain", "quoted", "in a flow", "a block", "folded", "its own line", "CRLF", "anchors", "the same elsewhere"],
)
def test_only_the_sealed_string_changes(spec: str) -> None:
    text = f"\ufeff# first\n{HEAD}{spec}" if "CRLF" in spec else f"# first\n{HEAD}{spec}"
    (found,) = find(text)
    assert (found.account, found.variable, found.sealed) == ("team", "TOKEN", OLD)
    after = resealed(text)
    assert after[: found.start] == text[: found.start]
    assert after[found.start + len(NEW) :] == text[found.end :]
    assert yaml.safe_load(after)["spec"]["sealed"].strip() == NEW


def test_every_document_and_every_item_of_a_list_is_found() -> None:
    one = f"{HEAD}spec: {{name: ONE, sealed: {OLD}}}\n"
    items = "".join(f"- {json.dumps(yaml.safe_load(one))}\n" for _ in range(2))
    list_ = f"apiVersion: v1\nkind: List\nitems:\n{items}"
    text = f"---\n{one}---\n# nothing\n---\nkind: ConfigMap\n---\n{list_}...\n---\n{one}"
    found = find(text)
    assert [each.line for each in found] == [5, 14, 15, 21]
    assert resealed(text).count(NEW) == 4


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just words",
        f"kind: AccountSecret\napiVersion: other.dev/v1\nspec: {{name: TOKEN, sealed: {OLD}}}",
        f"{HEAD}spec: {{name: TOKEN}}",
        f"{HEAD}spec: {{name: TOKEN, sealed: [{OLD}]}}",
        f"{HEAD}spec: {{name: TOKEN, sealed: ''}}",
        f"{HEAD}spec: nothing",
        "kind: List\nitems: nothing",
    ],
)
def test_what_is_no_sealed_string_of_an_accountsecret_is_left_alone(text: str) -> None:
    assert find(text) == []


def test_a_manifest_without_a_namespace_says_so() -> None:
    (found,) = find(HEAD.replace(", namespace: team", "") + f"spec: {{name: TOKEN, sealed: {OLD}}}")
    assert found.account is None


@given(
    description=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    style=st.sampled_from([None, '"', "'", "|", ">"]),
    flow=st.booleans(),
    text_width=st.integers(10, 200),
)
def test_what_pyyaml_writes_is_found_whatever_stands_beside_it(
    description: str, style: str | None, flow: bool, text_width: int
) -> None:
    body = manifest("team", AccountSecretSpec(name="TOKEN", sealed=OLD, description=description))
    text = yaml.safe_dump(body, default_style=style, default_flow_style=flow, width=text_width, allow_unicode=True)
    before, after = yaml.safe_load(text), yaml.safe_load(resealed(text))
    assert after["spec"].pop("sealed").strip() == NEW
    assert before["spec"].pop("sealed").strip() == OLD
    assert after == before


def test_times_are_left_as_they_are_written() -> None:
    when = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
    text = f"{HEAD}spec: {{name: TOKEN, sealed: {OLD}}}\nstatus: {{changedAt: {when}}}\n"
    assert resealed(text) == text.replace(OLD, NEW)
