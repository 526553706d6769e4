"""YAML for `reseal`: each sealed value is replaced or reported, and no other text and no other node changes."""

import re
from collections.abc import Iterator, Sequence

import yaml

from devbox_secrets.cli.formats.text import decode
from devbox_secrets.cli.formats.yaml_edit import Sealed, find, replaced
from devbox_secrets.errors import InvalidText

_NEW = "dbs1.ffffffffffffffff.NEW"
_SEALED = re.compile(r"dbs1\.[0-9a-f]{16}\.")


def check(data: bytes) -> None:
    """Check one file."""
    try:
        text = decode(data).text
        found = find(text)
    except InvalidText:
        return
    _check_places(text, found)
    changed = [each for each in found if not each.problem]
    if _NEW not in text:
        _check_text(text, changed)
    if changed:
        _check_meaning(text, changed)


def _check_places(text: str, found: Sequence[Sealed]) -> None:
    end = 0
    for each in found:
        assert end <= each.start < each.end <= len(text), "two values overlap"
        end = each.end
    for match in _SEALED.finditer(text):
        assert any(each.start <= match.start() and match.end() <= each.end for each in found), (
            "a sealed value was missed"
        )


def _check_text(text: str, changed: Sequence[Sealed]) -> None:
    """Check that the text around the replaced values is unchanged."""
    starts, ends = [each.start for each in changed], [each.end for each in changed]
    kept = [text[start:end] for start, end in zip([0, *ends], [*starts, len(text)], strict=True)]
    assert _resealed(text, changed).split(_NEW) == kept


def _check_meaning(text: str, changed: Sequence[Sealed]) -> None:
    """Check that only the replaced scalars have a different value."""
    before, after = _parsed(text, _resealed(text, changed))
    assert [path for path, _ in before] == [path for path, _ in after], "the nodes differ"
    pairs = [(old, new) for (_, old), (_, new) in zip(before, after, strict=True) if old != new]
    assert {new.strip() for _, new in pairs} <= {_NEW}
    assert {old.strip() for old, _ in pairs} == {each.sealed for each in changed} - {_NEW}


def _resealed(text: str, changed: Sequence[Sealed]) -> str:
    return replaced(text, {each.start: (each, _NEW) for each in changed})


def _parsed(before: str, after: str) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Return the scalars of two texts, both read by the loader that can read the first: tabs differ."""
    try:
        scalars = list(_scalars(before, yaml.CSafeLoader))
    except yaml.YAMLError:  # JSON with tabs or surrogates
        before, after = before.replace("\t", " "), after.replace("\t", " ")
        return list(_scalars(before, yaml.SafeLoader)), list(_scalars(after, yaml.SafeLoader))
    return scalars, list(_scalars(after, yaml.CSafeLoader))


def _scalars(text: str, loader: type[yaml.SafeLoader | yaml.CSafeLoader]) -> Iterator[tuple[str, str]]:
    """Yield every scalar with its path; one with aliases only once."""
    seen: set[int] = set()
    documents = yaml.compose_all(text.lstrip("\ufeff"), Loader=loader)
    waiting = [(str(number), document) for number, document in enumerate(documents)]
    while waiting:
        path, node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        match node:
            case yaml.ScalarNode():
                yield path, node.value
            case yaml.SequenceNode():
                waiting += [(f"{path}/{number}", each) for number, each in enumerate(node.value)]
            case yaml.MappingNode():
                for number, (key, value) in enumerate(node.value):
                    waiting += [(f"{path}/{number}:", key), (f"{path}/{number}", value)]
