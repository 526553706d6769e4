"""Divides a .env file into blocks; each sets one variable or is damaged.

The grammar is python-dotenv's, which skips lines that it can't parse. Of an unquoted value that spans several lines, it
takes the first line, and the other lines may look like variables. If a closing quote is missing, the value extends to
the next quote and swallows the variables in between. Here, such lines form one damaged block, and no names are read
from it.
"""

import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from dotenv.parser import Binding, Reader, parse_binding

_PUT_IN_QUOTES = "put multi-line values in quotes"
_NOT_ASSIGNMENT = "not NAME=value, or a quote is missing"
_NO_EQUALS = "no = and no value"
_NO_NAME = "invalid name before the ="
_STRAY_QUOTE = "the value ends with a quote but doesn't start with one; put the whole value in quotes"
_ENDS_IN_COMMENT = "the closing quote is in a comment, so a quote may be missing"
_BEGIN_WITHOUT_END = f"BEGIN without END; {_PUT_IN_QUOTES}"
_BEGIN_IN_QUOTES = "BEGIN without END"
_END_WITHOUT_BEGIN = "END without BEGIN"
_OPEN_BRACKET = f"a bracket isn't closed on the same line; {_PUT_IN_QUOTES}"
_BASE64_END = f"looks like the last line of base64 text; {_PUT_IN_QUOTES}"
_AFTER_DAMAGE = "no value; it may belong to the damaged lines above"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*", re.ASCII)
_ASSIGNMENT = re.compile(r"(?:export[^\S\n]+)?(?P<name>'[^']+'|[^=#\s]+)[^\S\n]*=[^\S\n]*(?P<rest>.*)", re.DOTALL)
#: In a multi-line value: a line that sets another variable, or a commented-out one.
_ANOTHER = re.compile(rf"\s*(?:#\s*)?(?:export\s+)?'?{_NAME.pattern}'?\s*=", re.ASCII)
#: RFC 7468, OpenPGP (RFC 9580) and SSH2 (RFC 4716).
_MARKER = re.compile(r"-{4,5} ?(BEGIN|END) ([A-Z0-9][A-Z0-9 ]*?) ?-{4,5}", re.ASCII)
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII)
_HEX = re.compile(r"[0-9a-fA-F]+", re.ASCII)
_LINE = re.compile(r"([^\n]*\n?)")
_STRING = re.compile(r'\\"|"(?:\\.|[^"\\])*"')
_QUOTES = ("'", '"')
#: Base64 is wrapped at 64 characters (PEM) or 76 (MIME, coreutils).
_WRAPPED = 60


@dataclass(frozen=True, slots=True)
class Block:
    """A range of lines, counted from 1."""

    first: int
    last: int
    name: str
    """Empty if there is no usable name."""
    value: str = field(repr=False)
    rest: str = field(repr=False)
    """The raw text after the =."""
    damage: str = ""
    """Why the block can't be read."""

    @property
    def is_quoted(self) -> bool:
        """Whether the value starts with a quote, so that it can span several lines."""
        return self.rest.startswith(_QUOTES)

    @property
    def is_doubtful(self) -> bool:
        """Whether the block may be the rest of a value rather than an assignment."""
        return not self.name or self.rest == ""


def blocks(text: str) -> list[Block]:
    """Divide a text whose lines end with LF. Every line except empty ones and comments is in a block."""
    return list(_joined(_each(Reader(io.StringIO(text)))))


def _each(reader: Reader) -> Iterator[Block]:
    """Read each block separately."""
    while reader.has_next():
        binding = parse_binding(reader)
        original = binding.original.string
        raw = original.strip()
        if not raw or raw.startswith("#"):
            continue
        indent = original[: len(original) - len(original.lstrip())]
        block = _block(binding.original.line + indent.count("\n"), raw, binding)
        yield replace(block, last=_last(block, reader))


def _block(first: int, raw: str, binding: Binding) -> Block:
    assignment = _ASSIGNMENT.fullmatch(raw)
    name = (binding.key or assignment["name"]) if assignment else ""
    rest = assignment["rest"] if assignment else ""
    last = first + raw.count("\n")
    if binding.error or binding.key is None:
        damage = _BEGIN_WITHOUT_END if _unpaired(raw) == "BEGIN" else _NOT_ASSIGNMENT
    elif binding.value is None:
        damage = _NO_EQUALS
    elif rest == "=":
        name, damage = "", _BASE64_END
    elif not _NAME.fullmatch(name):
        damage = _NO_NAME
    else:
        damage = _damage(binding.value, rest, raw, first)
    return Block(first, last, name if _NAME.fullmatch(name) else "", binding.value or "", rest, damage)


def _damage(value: str, rest: str, raw: str, first: int) -> str:
    """Return what is wrong with the value of an assignment."""
    quoted, unpaired = rest.startswith(_QUOTES), _unpaired(value)
    if unpaired == "BEGIN":
        return _BEGIN_IN_QUOTES if quoted else _BEGIN_WITHOUT_END
    if unpaired == "END":
        return _END_WITHOUT_BEGIN
    if quoted:
        return _damage_in_quotes(raw, first)
    if _ends_with_stray_quote(value) or _ends_with_stray_quote(rest):
        return _STRAY_QUOTE
    return _OPEN_BRACKET if value.startswith(("{", "[")) and _depth(value) > 0 else ""


def _damage_in_quotes(raw: str, first: int) -> str:
    inside_markers = False
    lines = raw.split("\n")
    for number, line in enumerate(lines, first):
        if number > first and _ANOTHER.match(line) and not (inside_markers and _BASE64.fullmatch(line.strip())):
            return (
                f"line {number}, inside the quotes, looks like another variable, so a quote may be missing; otherwise"
                " write the line breaks as \\n in double quotes, or seal the value with seal --from-file"
            )
        for marker in _MARKER.finditer(line):
            inside_markers = marker[1] == "BEGIN"
    return _ENDS_IN_COMMENT if lines[-1].lstrip().startswith("#") else ""


def _unpaired(text: str) -> str:
    """Return the first unpaired marker, BEGIN or END; empty if all are paired."""
    opened = ""
    for kind, label in _MARKER.findall(text):
        if kind == "END" and label != opened:
            return "BEGIN" if opened else "END"
        if kind == "BEGIN" and opened:
            return "BEGIN"
        opened = label if kind == "BEGIN" else ""
    return "BEGIN" if opened else ""


def _ends_with_stray_quote(text: str) -> bool:
    end = text[-1:]
    return end in {"'", '"'} and re.sub(r"\\.", "", text).count(end) % 2 == 1


def _depth(line: str) -> int:
    """Return how many more brackets a line opens than it closes."""
    bare = _STRING.sub("", line)
    return sum(map(bare.count, "{[")) - sum(map(bare.count, "}]"))


def _last(block: Block, reader: Reader) -> int:
    """Read to the line that closes what the block leaves open, or to the file's end; return the last line's number."""
    is_open = block.damage in {_BEGIN_WITHOUT_END, _OPEN_BRACKET}
    last, depth = block.last, _depth(block.value) if is_open else 0
    while is_open and reader.has_next():
        (line,) = reader.read_regex(_LINE)
        last += 1
        depth += _depth(line)
        is_open = depth > 0 if block.damage == _OPEN_BRACKET else "END" not in dict(_MARKER.findall(line))
    return last


def _joined(found: Iterable[Block]) -> Iterator[Block]:
    """Join the blocks that belong to the same damage."""
    before: Block | None = None
    for block in found:
        joined = before and _continued(before, block)
        if before and not joined:
            yield before
            if before.damage and block.is_doubtful:  # the name may be the rest of a value
                block = replace(block, name="", damage=block.damage or _AFTER_DAMAGE)  # noqa: PLW2901
        before = joined or block
    if before:
        yield before


def _continued(before: Block, block: Block) -> Block | None:
    """Join two blocks if the second may be the rest of the first one's value."""
    if before.damage:
        adjacent = block.first == before.last + 1
        return replace(before, last=block.last) if adjacent and block.is_doubtful else None
    if before.is_quoted or not block.is_doubtful:
        return None
    if block.damage:
        damage = f"line {block.first} isn't NAME=value and may be the rest of the value; {_PUT_IN_QUOTES}"
    elif _ends_base64(before, block):
        end = f"line {block.first} may be the end of the value, in base64"
        damage = f'{end}; {_PUT_IN_QUOTES}, or write NAME="" for an empty value'
    else:
        return None
    return replace(before, last=block.last, damage=damage)


def _ends_base64(before: Block, block: Block) -> bool:
    """Return whether `NAME=` is probably the last line of base64 text."""
    end = f"{block.name}="
    return bool(
        block.first == before.last + 1
        and not block.rest
        and before.value
        and _BASE64.fullmatch(before.value)
        and not _HEX.fullmatch(before.value)
        and _BASE64.fullmatch(end)
        and (len(before.value) >= _WRAPPED or not (end.isupper() or end.islower()))
    )
