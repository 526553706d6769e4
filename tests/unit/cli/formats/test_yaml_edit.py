"""Finding and replacing sealed values in YAML of any style."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from devbox_secrets.api.manifest import manifest
from devbox_secrets.api.models import AccountSecretSpec
from devbox_secrets.cli.formats.yaml_edit import find, replaced
from devbox_secrets.errors import InvalidText

OLD, NEW = "dbs1.0000000000000000.AAAA", "dbs1.1111111111111111.BBBBBB"
HEAD = "apiVersion: devbox-secrets.dev/v1beta1\nkind: AccountSecret\nmetadata: {name: token, namespace: team}\n"


def resealed(text: str) -> str:
    return replaced(text, {each.start: (each, NEW) for each in find(text) if not each.problem})


def problems(text: str) -> list[tuple[int, str]]:
    """Return the line and the reason for everything that can't be replaced."""
    return [(each.line, each.problem) for each in find(text) if each.problem]


@pytest.mark.parametrize(
    "spec",
    [
        f"spec:\n  name: TOKEN\n  sealed: {OLD}\n",
        f"spec:\n  sealed: '{OLD}'   # a comment that stays\n  name: TOKEN",
        f'spec: {{name: TOKEN, sealed: "{OLD}", description: x}}\n',
        f"spec:\n  name: TOKEN\n  sealed: |\n    {OLD}\n  description: x\n",
        f"spec:\n  name: TOKEN\n  sealed: >-\n    {OLD}\n",
        f"spec:\n  name: TOKEN\n  sealed:\n    {OLD}\n",
        f'spec:\n  name: TOKEN\n  sealed: !!str &it "{OLD[:9]}\\\n    {OLD[9:25]}\\\n    {OLD[25:]}"  # wrapped\n',
        'spec: {name: TOKEN, sealed: "' + OLD.replace(".", r"\u002e") + '"}\n',
        f"spec:\r\n  name: TOKEN\r\n  sealed: {OLD}\r\n  description: é 🙂\r\n",
        f"spec: &here\n  name: TOKEN\n  sealed: &value {OLD}\nother: *here\n",
        f"spec:\n  name: TOKEN\n  sealed: ' {OLD} '\n",
        'spec: {name: TOKEN, sealed: "' + OLD.replace("bs1", r"\x62\x73\x31") + '"}\n',
    ],
    ids=[
        *("plain", "quoted", "in a flow", "a block", "folded", "its own line", "wrapped", "escaped", "CRLF", "anchors"),
        *("spaces in quotes", "more escapes"),
    ],
)
def test_only_the_sealed_string_changes(spec: str) -> None:
    text = f"\ufeff# first\n{HEAD}{spec}" if "\r" in spec else f"# first\n{HEAD}{spec}"
    (found,) = find(text)
    assert (found.account, found.variable, found.sealed) == ("team", "TOKEN", OLD)
    assert found.problem == ""
    after = resealed(text)
    assert after[: found.start] == text[: found.start]
    assert after[found.start + len(NEW) :] == text[found.end :]
    assert yaml.safe_load(after)["spec"]["sealed"].strip() == NEW


MANIFEST = {
    "apiVersion": "devbox-secrets.dev/v1beta1",
    "kind": "AccountSecret",
    "metadata": {"name": "token", "namespace": "team"},
    "spec": {"name": "TOKEN", "sealed": OLD},
}


@pytest.mark.parametrize(
    "around",
    [
        [[MANIFEST], [MANIFEST]],
        {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "List", "items": [MANIFEST] * 2}]},
        {"extraObjects": [MANIFEST, {"kind": "ConfigMap"}, MANIFEST]},
        {"spec": {"forProvider": {"manifest": MANIFEST}, "other": {"a": MANIFEST}}},
        [MANIFEST, "🙂", MANIFEST],
        [MANIFEST, *([[0]] * 300), MANIFEST],
    ],
    ids=["a list of lists", "a List in a List", "Helm values", "in another object", "an escape", "many lists"],
)
@pytest.mark.parametrize(
    "dump",
    [
        yaml.safe_dump,
        json.dumps,
        lambda body: json.dumps(body, indent="\t"),
        lambda body: "\ufeff" + json.dumps(body, separators=(",", ":")),
    ],
    ids=["YAML", "JSON", "JSON with tabs", "compact JSON with a byte order mark"],
)
def test_an_accountsecret_is_found_at_any_depth(around: object, dump: Callable[[object], str]) -> None:
    text = dump(json.loads(json.dumps(around)))  # no aliases
    assert [(each.variable, each.account, each.problem) for each in find(text)] == [("TOKEN", "team", "")] * 2
    assert resealed(text) == text.replace(OLD, NEW)


ELSEWHERE = (
    "the value isn't in an AccountSecret with a spec.name, so its account and variable are unknown; seal it again"
)
COMMENT = "the value is in a comment; remove it, or seal it again"
SEVERAL_LINES = "the sealed value contains whitespace or a line break; write it on one line without whitespace"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f"secrets:\n  TOKEN: {OLD}\n  other: [x, [{OLD}]]\n", [(2, ELSEWHERE), (3, ELSEWHERE)]),
        (f"- op: replace\n  path: /spec/sealed\n  value: {OLD}\n", [(3, ELSEWHERE)]),
        (f"{HEAD}spec: {{sealed: {OLD}}}\n", [(4, ELSEWHERE)]),
        (f"{HEAD}spec: {{name: TOKEN, sealed: [{OLD}]}}\n", [(4, ELSEWHERE)]),
        (f"{HEAD}spec: {{name: TOKEN, description: {OLD}, sealed: {NEW}}}\n", [(4, ELSEWHERE)]),
        (f"{OLD}: 1\n? [{OLD}]\n: 2\n", [(1, ELSEWHERE), (2, ELSEWHERE)]),
        (f"data:\n  secret.yaml: |\n    spec:\n      sealed: {OLD}\n", [(2, ELSEWHERE)]),
        (f'a: "{OLD[:9]}\\\n  {OLD[9:]}"\n', [(1, ELSEWHERE)]),
        (f"a: >-\n  {OLD[:9]}\n  {OLD[9:]}\n", [(1, ELSEWHERE)]),
        (f"# {HEAD}#\n# {OLD}\na: 1  # {OLD}\n", [(5, COMMENT), (6, COMMENT)]),
        (f"{HEAD}spec: {{name: [TOKEN], sealed: {OLD}}}\n", [(4, ELSEWHERE)]),
        (f"XA: 1\nA: {OLD}\n", [(2, ELSEWHERE)]),
        (f"{'[' * 200}{OLD}{']' * 200}", [(1, ELSEWHERE)]),
        (f"{'[' * 201}{OLD}{']' * 201}", "the file isn't YAML"),
        (f"kind: Other\nspec: {{name: TOKEN, sealed: {OLD}}}\n", [(2, ELSEWHERE)]),
        (f"a: {{{{ .Values.b }}}}: {{\nb: {OLD}\nc: {OLD}\n", "line 1 isn't YAML"),
        (f"{'[' * 100_000}{OLD}{']' * 100_000}", "the file isn't YAML"),
        (f"a: \x01{OLD}", "the file isn't YAML"),
        (f'a: "{OLD}\\U00110000"', "the file isn't YAML"),
        (f'a: "{OLD}\\UFFFFFFFF"', "the file isn't YAML"),
        (f"{HEAD}spec:\n  name: TOKEN\n  sealed: |\n    {OLD[:22]}\n    {OLD[22:]}\n  a: 1\n", [(6, SEVERAL_LINES)]),
        (f"{HEAD}spec:\n  name: TOKEN\n  sealed: &a\n    {OLD[:22]}\n    {OLD[22:]}\n", [(6, SEVERAL_LINES)]),
        (f"TOKEN={OLD}\nOTHER=x\n", [(1, ELSEWHERE)]),
    ],
    ids=[
        *("Helm values", "JSON6902", "no name", "a list", "a description", "keys", "YAML in a string", "wrapped"),
        *("folded", "comments", "a name that is a list", "similar keys", "deep", "just too deep", "another kind"),
        *("a template", "too deep", "a control character", "no code point", "no code point either", "several lines"),
        *("several plain lines", "a .env file"),
    ],
)
def test_sealed_values_elsewhere_are_reported(text: str, found: list[tuple[int, str]] | str) -> None:
    reported = problems(text)
    assert reported
    assert all(each.key_ids for each in find(text))
    if isinstance(found, list):
        assert reported == found
    else:
        assert {why.partition(",")[0] for _, why in reported} == {found}
        assert len(reported) == text.count(OLD)
    assert resealed(text) == text


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (f"{HEAD}spec: {{name: A, sealed: {OLD}}}\n{HEAD}spec: {{name: B, sealed: {OLD}}}\n", (1, 5)),
        (f"{HEAD}spec: {{name: A, sealed: {OLD}, name: B}}\n", (4, 4)),
        (f"{HEAD}spec: {{name: A, sealed: {NEW}}}\nother:\n  a: 1\n  b: 2\n  a: 3\n", (6, 8)),
        (f'x: {OLD}\n"a": 1\na: 2\n', (2, 3)),
    ],
    ids=["two manifests without ---", "in a flow", "elsewhere in the document", "quoted"],
)
def test_a_duplicate_key_is_rejected(text: str, lines: tuple[int, int]) -> None:
    with pytest.raises(InvalidText) as caught:
        find(text)
    first, second = lines
    assert str(caught.value) == (
        f"lines {first} and {second} set the same key in one mapping; separate manifests with a line ---"
    )


def test_a_duplicate_key_matters_only_in_a_document_with_a_sealed_value() -> None:
    text = f"a: 1\na: 2\n---\n{HEAD}spec: {{name: TOKEN, sealed: {OLD}}}\n"
    assert len(find(text)) == 1


@pytest.mark.parametrize(
    ("sealed", "expected"),
    [("&TODO TODO", f"&TODO {NEW}"), (r'"\x31"', f'"{NEW}"'), ("''''", f"'{NEW}'"), ("!!str str", f"!!str {NEW}")],
)
def test_a_placeholder_for_a_sealed_value_is_replaced_without_its_anchor_tag_or_quotes(
    sealed: str, expected: str
) -> None:
    text = f"{HEAD}spec: {{name: TOKEN, sealed: {sealed}}}\n"
    assert resealed(text) == text.replace(sealed, expected)


def test_a_key_that_is_not_a_string_is_ignored() -> None:
    text = f"? [a, {{b: c}}]\n: d\nspec: {{name: TOKEN, sealed: {OLD}}}\n"
    assert resealed(HEAD + text) == HEAD + text.replace(OLD, NEW)


def test_recursive_yaml_is_read() -> None:
    assert problems(f"a: &a [{OLD}, *a, {{b: *a}}, {OLD}]\n") == [(1, ELSEWHERE)] * 2


def test_every_document_and_every_item_of_a_list_is_read() -> None:
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
        "kind: AccountSecret\napiVersion: other.dev/v1\nspec: {name: TOKEN, sealed: plain}",
        f"{HEAD}spec: {{name: TOKEN, sealed: '{{{{ .Values.token }}}}'}}",
        f"{HEAD}spec: {{name: TOKEN, sealed: '${{TOKEN}}'}}",
        f"{HEAD}spec: {{name: TOKEN, sealed: [plain]}}",
        f"{HEAD}spec: {{name: TOKEN}}",
        f"{HEAD}spec: {{name: TOKEN, sealed: ''}}",
        f"{HEAD}spec: nothing",
        "kind: List\nitems: nothing",
    ],
)
def test_strings_other_than_sealed_values_are_not_changed(text: str) -> None:
    assert find(text) == []


def test_a_manifest_without_a_namespace_has_no_account() -> None:
    (found,) = find(HEAD.replace(", namespace: team", "") + f"spec: {{name: TOKEN, sealed: {OLD}}}")
    assert found.account is None


@given(
    description=st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"])),
    style=st.sampled_from([None, '"', "'", "|", ">"]),
    flow=st.booleans(),
    text_width=st.integers(10, 200),
)
def test_values_that_pyyaml_writes_are_found_in_any_context(
    description: str, style: str | None, flow: bool, text_width: int
) -> None:
    body = manifest("team", AccountSecretSpec(name="TOKEN", sealed=OLD, description=description))
    text = yaml.safe_dump(body, default_style=style, default_flow_style=flow, width=text_width, allow_unicode=True)
    before, after = yaml.safe_load(text), yaml.safe_load(resealed(text))
    assert after["spec"].pop("sealed").strip() == NEW
    assert before["spec"].pop("sealed").strip() == OLD
    assert after == before


# --- In any text, each sealed value is replaced or reported, and nothing else changes.

TEXTS = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs", "Cc"]), max_size=20)
LEAVES = TEXTS | st.just(OLD) | st.integers() | st.none() | st.builds("{} {}".format, TEXTS, st.just(OLD))
TREES = st.recursive(
    LEAVES | st.just(MANIFEST),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS | st.just(OLD), inner, max_size=4),
    max_leaves=12,
)


Load = Callable[[str], list[object]]


@st.composite
def texts(draw: st.DrawFn) -> tuple[str, Load]:
    """Generate YAML of any style, or JSON, and the function that parses it."""
    tree = draw(st.lists(TREES, min_size=1, max_size=3).map(lambda tree: json.loads(json.dumps(tree))))
    if draw(st.booleans()):
        text = json.dumps(tree, indent=draw(st.sampled_from([None, 2, "\t"])), ensure_ascii=draw(st.booleans()))
        return text, lambda text: [json.loads(text.lstrip("\ufeff"))]
    text = yaml.safe_dump_all(
        tree,
        default_style=draw(st.sampled_from([None, '"', "'", "|", ">"])),
        default_flow_style=draw(st.booleans()),
        width=draw(st.integers(10, 200)),
        indent=draw(st.integers(2, 6)),
        line_break=draw(st.sampled_from(["\n", "\r\n"])),
        allow_unicode=draw(st.booleans()),
        explicit_start=True,
    )
    return text, lambda text: list(yaml.safe_load_all(text))


def mentions(data: object) -> int:
    """Count the scalars that contain a sealed value."""
    if isinstance(data, dict):
        return sum(map(mentions, [*data, *data.values()]))
    return sum(map(mentions, data)) if isinstance(data, list) else OLD in str(data)


def manifests(data: object) -> int:
    if isinstance(data, dict):
        return (data == MANIFEST) + sum(map(manifests, data.values()))
    return sum(map(manifests, data)) if isinstance(data, list) else 0


def changed(data: object) -> object:
    """Return the data with the sealed values of AccountSecrets replaced."""
    if data == MANIFEST:
        return {**MANIFEST, "spec": {"name": "TOKEN", "sealed": NEW}}
    if isinstance(data, dict):
        return {key: changed(value) for key, value in data.items()}
    return list(map(changed, data)) if isinstance(data, list) else data


@given(texts(), st.booleans())
def test_each_sealed_value_is_replaced_or_reported_and_nothing_else_changes(
    given_text: tuple[str, Load], mark: bool
) -> None:
    text, load = given_text
    data = load(text)
    text = "\ufeff" * mark + text
    found = find(text)
    assert sum(not each.problem for each in found) == sum(map(manifests, data))
    assert len(found) == sum(map(mentions, data))
    assert load(resealed(text)) == [changed(each) for each in data]
    kept = text
    for each in sorted(found, key=lambda each: each.start, reverse=True):
        if not each.problem:
            kept = kept[: each.start] + NEW + kept[each.end :]
    assert kept == resealed(text)


PIECES = st.sampled_from([*"ab: -[]{},?\"'\\\n\t#&*!|>\ufeff🙂\r\0", "\n- ", "\n  ", "a: ", " # ", OLD, OLD])


@given(st.lists(PIECES, max_size=40).map("".join))
def test_in_any_text_each_sealed_value_is_found(text: str) -> None:
    try:
        found = find(text)
    except InvalidText:
        return
    for match in re.finditer(re.escape(OLD), text):
        assert any(each.start <= match.start() and match.start() + 22 <= each.end for each in found), text


def test_times_are_printed_unchanged() -> None:
    when = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
    text = f"{HEAD}spec: {{name: TOKEN, sealed: {OLD}}}\nstatus: {{changedAt: {when}}}\n"
    assert resealed(text) == text.replace(OLD, NEW)
