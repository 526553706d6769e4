"""Finds and replaces the sealed values in a YAML text.

Only those strings change: comments, order and style of everything else stay as they are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from devbox_secrets.api.names import GROUP, KIND

#: What holds a list of manifests in one document.
_LIST = "List"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed string: of which AccountSecret, and where it is."""

    account: str | None
    """None where the manifest names no namespace."""
    variable: str
    sealed: str
    line: int
    """Counted from 1."""
    start: int
    end: int


def find(text: str) -> list[Sealed]:
    """Find the sealed string of each AccountSecret in a text, in their order.

    Raises:
        yaml.YAMLError: the text isn't YAML.
    """
    found = {each.start: each for node in yaml.compose_all(text, Loader=yaml.SafeLoader) for each in _in(node, text)}
    return [found[start] for start in sorted(found)]  # once each: an alias is in the place of its anchor


def replaced(text: str, changes: Mapping[int, tuple[Sealed, str]]) -> str:
    """Give the text with other sealed strings in the places where each starts."""
    for start in sorted(changes, reverse=True):
        sealed, new = changes[start]
        text = text[: sealed.start] + new + text[sealed.end :]
    return text


def _in(node: yaml.Node | None, text: str) -> Iterator[Sealed]:
    fields = _fields(node)
    kind, version = _scalar(fields.get("kind")), _scalar(fields.get("apiVersion")) or ""
    if kind and kind.endswith(_LIST) and isinstance(items := fields.get("items"), yaml.SequenceNode):
        for item in items.value:
            yield from _in(item, text)
    if kind != KIND or version.partition("/")[0] != GROUP:
        return
    spec = _fields(fields.get("spec"))
    variable, sealed = _scalar(spec.get("name")), _scalar(spec.get("sealed"))
    if variable is None or sealed is None:
        return
    mark, sealed = spec["sealed"].start_mark, sealed.strip()
    # A scalar's span has its quotes, or a block's head: the string itself is somewhere in it.
    start = text.find(sealed, mark.index, spec["sealed"].end_mark.index)
    if sealed and start >= 0:
        account = _scalar(_fields(fields.get("metadata")).get("namespace"))
        yield Sealed(account, variable, sealed, mark.line + 1, start, start + len(sealed))


def _fields(node: yaml.Node | None) -> dict[str, yaml.Node]:
    return {key.value: value for key, value in node.value} if isinstance(node, yaml.MappingNode) else {}


def _scalar(node: yaml.Node | None) -> str | None:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else None
