"""Finds and replaces sealed values in YAML text.

Only the sealed values change; comments, order and formatting are kept.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import yaml

from devbox_secrets.api.names import GROUP, KIND
from devbox_secrets.errors import InvalidText

#: libyaml is much faster, but pyyaml may be built without it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
#: The errors of pyyaml; the last two are for an escape that isn't a character, such as "\UFFFFFFFF".
_INVALID = (yaml.YAMLError, ValueError, OverflowError)
#: The maximum nesting depth, because libyaml's composer is recursive.
_DEPTH_MAX = 200
_KEY_ID = re.compile(r"dbs1\.([0-9a-f]{16})\.")
#: Placeholders that another program replaces with a sealed value: Helm, envsubst, Kustomize and Flux.
_PLACEHOLDER = re.compile(r"\{\{|\$\{|\$\(")
_ELSEWHERE = (
    "the value isn't in an AccountSecret with a spec.name, so its account and variable are unknown; seal it again"
)
_NOT_ONE_LINE = "the sealed value contains whitespace or a line break; write it on one line without whitespace"
_COMMENT = "the value is in a comment; remove it, or seal it again"


@dataclass(frozen=True, slots=True)
class Sealed:
    """A sealed value in a text, or other text in its place."""

    sealed: str
    line: int
    """Counted from 1."""
    start: int
    end: int
    variable: str = ""
    account: str | None = None
    """None if the manifest has no namespace."""
    problem: str = ""
    """Why it can't be replaced."""

    @property
    def key_ids(self) -> set[str]:
        """The ids of the sealing keys in the text."""
        return key_ids(self.sealed)


def key_ids(text: str) -> set[str]:
    """Return the key ids of all sealed values in a text, even if they are wrapped over several lines."""
    return set(_KEY_ID.findall("".join(text.split())))


def find(text: str) -> list[Sealed]:
    """Find all sealed values in a text, and every `spec.sealed` of an AccountSecret, in order.

    Raises:
        InvalidText: a mapping has a duplicate key, so its meaning is ambiguous.
    """
    content = text.lstrip("\ufeff")  # libyaml doesn't count it
    offset = len(text) - len(content)
    try:
        documents = _documents(content)
    except _INVALID as error:
        # It may be a template. Don't repeat the parser's message: it quotes the text.
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "the file"
        return list(_outside(text, [], f"{where} isn't YAML, possibly a template; seal the value again"))
    found = sorted((each for document in documents for each in _in(document, text, offset)), key=_start)
    return sorted([*found, *_outside(text, found, _COMMENT)], key=_start)


def replaced(text: str, changes: Mapping[int, tuple[Sealed, str]]) -> str:
    """Return the text with sealed values replaced; `changes` is keyed by their start positions."""
    pieces, position = [], 0
    for start in sorted(changes):
        sealed, new = changes[start]
        pieces += [text[position:start], new]
        position = sealed.end
    return "".join([*pieces, text[position:]])


def _start(sealed: Sealed) -> int:
    return sealed.start


def _documents(text: str) -> list[yaml.Node]:
    try:
        return _composed(text, _LOADER)
    except _INVALID:
        # libyaml rejects two features of JSON: surrogate escapes, and tabs between tokens.
        return _composed(text.replace("\t", " "), yaml.SafeLoader)


def _composed(text: str, loader: type[yaml.SafeLoader]) -> list[yaml.Node]:
    depth = 0
    for event in yaml.parse(text, Loader=loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEPTH_MAX:
            raise yaml.YAMLError  # find() reports each error the same way
    return list(yaml.compose_all(text, Loader=loader))


def _in(document: yaml.Node, text: str, offset: int) -> list[Sealed]:
    nodes = list(_nodes(document))
    mappings = [node for node in nodes if isinstance(node, yaml.MappingNode)]
    manifests = {id(sealed): manifest for mapping in mappings for sealed, manifest in _manifest(mapping)}
    found = []
    for node in nodes:
        if not isinstance(node, yaml.ScalarNode):
            continue
        value = node.value.strip()
        variable, account = manifests.get(id(node), ("", None))
        if key_ids(value) or (variable and value and not _PLACEHOLDER.search(value)):
            start, end, is_exact = _span(text, node, offset, value)
            problem = ("" if is_exact else _NOT_ONE_LINE) if variable else _ELSEWHERE
            found.append(Sealed(value, node.start_mark.line + 1, start, end, variable, account, problem))
    if found:
        _check_keys(mappings)
    return found


def _nodes(root: yaml.Node) -> Iterator[yaml.Node]:
    """Yield every node of a document once."""
    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        yield node
        if isinstance(node, yaml.SequenceNode):
            waiting += node.value
        elif isinstance(node, yaml.MappingNode):
            waiting += [each for pair in node.value for each in pair]


def _manifest(node: yaml.MappingNode) -> Iterator[tuple[yaml.Node, tuple[str, str | None]]]:
    """Yield the sealed value of an AccountSecret with its variable and its account."""
    fields = _fields(node)
    if _scalar(fields.get("kind")) != KIND or not _scalar(fields.get("apiVersion")).startswith(f"{GROUP}/"):
        return
    spec = _fields(fields.get("spec"))
    if (variable := _scalar(spec.get("name"))) and "sealed" in spec:
        yield spec["sealed"], (variable, _scalar(_fields(fields.get("metadata")).get("namespace")) or None)


def _check_keys(mappings: list[yaml.MappingNode]) -> None:
    for mapping in mappings:
        lines: dict[str, int] = {}
        for key in (key for key, _ in mapping.value if isinstance(key, yaml.ScalarNode)):
            line = key.start_mark.line + 1
            if key.value in lines:
                where = f"lines {lines[key.value]} and {line} set"
                raise InvalidText(f"{where} the same key in one mapping; separate manifests with a line ---")
            lines[key.value] = line


def _span(text: str, node: yaml.ScalarNode, offset: int, value: str) -> tuple[int, int, bool]:
    """Return the position of a scalar's text, and whether it excludes anchors and block headers."""
    first, last = node.start_mark.index + offset, node.end_mark.index + offset
    if node.style in {'"', "'"}:
        start, end = text.index(node.style, first) + 1, last - 1
        if (content := text[start:end]).strip() != value:  # escapes, or a line that ends with a backslash
            return start, end, True
        start += len(content) - len(content.lstrip())
        return start, start + len(value), True
    end = first + len(text[first:last].rstrip())
    return (end - len(value), end, True) if text[first:end].endswith(value) else (first, end, False)


def _outside(text: str, found: list[Sealed], problem: str) -> Iterator[Sealed]:
    """Find the key ids outside the values that were already found, which are sorted."""
    position = 0
    for start, end in [*((each.start, each.end) for each in found), (len(text), len(text))]:
        for match in _KEY_ID.finditer(text, position, start):
            line = text[: match.start()].count("\n") + 1
            yield Sealed(match[0], line, match.start(), match.end(), problem=problem)
        position = end


def _fields(node: yaml.Node | None) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}


def _scalar(node: yaml.Node | None) -> str:
    return str(node.value) if isinstance(node, yaml.ScalarNode) else ""
