"""Libraries are used through their public names: none is replaced, and no private one is read, set or overridden.

ruff finds `object._name` (SLF001), but not the other forms below; and on a line that is exempt from the rule, it
doesn't distinguish our own private names from a library's. Tests may replace a public name with monkeypatch or mock,
which restore it.
"""

import ast
import pkgutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Self

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = [ROOT / "operator", ROOT / "tests", ROOT / "benchmarks"]
#: The top-level names of our modules; all other modules are those of libraries, including Python's own.
OURS = {path.stem for folder in SOURCES for path in folder.iterdir()}
#: Python's documentation says that these may be set.
SETTABLE = ("os.environ", "sys.stdin", "sys.stdout", "sys.stderr")
#: namedtuple's documentation says that these are public.
PUBLIC = {"_asdict", "_field_defaults", "_fields", "_make", "_replace"}
#: A module and the name that it may use.
ACCEPTED = {("conftest", "_split_scope")}  # xdist has no public way to keep the tests of several files together
#: Functions that take a name as text: of Python, pytest's monkeypatch, and mock.
TAKE_NAMES = {"getattr", "setattr", "delattr", "object", "patch", "import_module"}


def is_private(dotted: str) -> bool:
    names = set(dotted.split(".")) - PUBLIC
    return any(name.startswith("_") and not name.endswith("_") for name in names)


def is_library(dotted: str | None) -> bool:
    return dotted is not None and dotted.partition(".")[0] not in OURS


def is_internal(dotted: str) -> bool:
    return is_library(dotted) and is_private(dotted)


@dataclass(frozen=True, slots=True)
class Module:
    """A module's syntax tree, and what the names in it refer to."""

    name: str
    nodes: list[ast.AST]
    names: dict[str, str]
    """Each imported name and each class, as `module.name`."""

    @classmethod
    def parse(cls, name: str, text: str) -> Self:
        module = cls(name, list(ast.walk(ast.parse(text))), {})
        for node in module.nodes:
            match node:
                case ast.Import():
                    for each in node.names:
                        first = each.name.partition(".")[0]
                        module.names[each.asname or first] = each.name if each.asname else first
                case ast.ImportFrom(module=str(origin), level=0):
                    module.names.update({each.asname or each.name: f"{origin}.{each.name}" for each in node.names})
                case ast.ClassDef():
                    module.names[node.name] = f"{name}.{node.name}"
        return module

    def path(self, node: ast.AST) -> str | None:
        """Return what `a.b[0].c` refers to, if `a` is imported or a class."""
        match node:
            case ast.Name():
                return self.names.get(node.id)
            case ast.Attribute():
                owner = self.path(node.value)
                return owner and f"{owner}.{node.attr}"
            case ast.Subscript():
                return self.path(node.value)
        return None


@dataclass(frozen=True, slots=True)
class Code:
    """Modules that are checked together."""

    modules: list[Module]
    private: set[str]
    """The private names that they define."""
    bases: dict[str, list[str | None]]
    """The bases of each class."""

    @classmethod
    def of(cls, texts: Mapping[str, str]) -> Self:
        code = cls([Module.parse(name, text) for name, text in texts.items()], set(), {})
        for module in code.modules:
            code.private.update(filter(is_private, defined(module.nodes)))
            for node in module.nodes:
                if isinstance(node, ast.ClassDef):
                    code.bases[module.names[node.name]] = [module.path(base) for base in node.bases]
        return code

    def violations(self) -> Iterator[str]:
        for module in self.modules:
            for node in module.nodes:
                for name in self._violations(module, node):
                    if (module.name, name) not in ACCEPTED:
                        yield f"{module.name}:{getattr(node, 'lineno', 0)}: {name}"

    def _violations(self, module: Module, node: ast.AST) -> Iterator[str]:
        """Yield the names of libraries that a node uses or changes, but shouldn't."""
        match node:
            case ast.Import() | ast.ImportFrom(level=0):
                origin = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
                yield from filter(is_internal, (f"{origin}{each.name}" for each in node.names))
            case ast.ClassDef():
                if inherited := set(filter(is_private, self._inherited(module.names[node.name]))):
                    yield from sorted(inherited.intersection([*defined(ast.walk(node)), *used(node)]))
            case ast.Attribute(value=owner, attr=name) if is_private(name) and name not in self.private:
                yield name
            case ast.Attribute(value=owner, attr=name) if is_private(name) or name == "__dict__":
                yield from filter(is_library, [module.path(owner)])
            case ast.Attribute(ctx=ast.Store() | ast.Del()) | ast.Subscript(ctx=ast.Store() | ast.Del()):
                target = module.path(node)
                if target and self._is_of_library(target):
                    yield target
            case ast.Call(func=ast.Name(id="vars" | "setattr" | "delattr"), args=[target, *_]):
                yield from filter(is_library, [module.path(target)])
            case ast.Call(func=ast.Name(id=called) | ast.Attribute(attr=called)) if called in TAKE_NAMES:
                yield from self._in_text(module, node.args)

    def _in_text(self, module: Module, arguments: list[ast.expr]) -> Iterator[str]:
        match arguments:
            case [ast.Constant(value=str(name)), *_] if is_internal(name):
                yield name
            case [owner, ast.Constant(value=str(name)), *_] if is_private(name):
                if is_library(module.path(owner)) or name not in self.private:
                    yield name

    def _is_of_library(self, target: str) -> bool:
        owner, _, name = target.rpartition(".")
        return name in self._inherited(owner) or (is_library(target) and not target.startswith(SETTABLE))

    def _inherited(self, name: str) -> set[str]:
        """Return the names that a class inherits from a library's class."""
        found = set[str]()
        for base in self.bases.get(name, ()):
            found |= names_of(pkgutil.resolve_name(base)) if base and is_library(base) else self._inherited(base or "")
        return found


def defined(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Yield the names that nodes define: functions, classes, variables, and attributes of `self` and `cls`."""
    for node in nodes:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name
            case ast.Name(id=name, ctx=ast.Store()):
                yield name
            case ast.Attribute(value=ast.Name(id="self" | "cls"), attr=name, ctx=ast.Store()):
                yield name


def used(node: ast.ClassDef) -> Iterator[str]:
    """Yield the attributes of `self`, `cls` and `super()` that a class's methods use."""
    for each in ast.walk(node):
        match each:
            case ast.Attribute(value=ast.Name(id="self" | "cls") | ast.Call(func=ast.Name(id="super")), attr=name):
                yield name


@cache
def names_of(base: object) -> frozenset[str]:
    """Return the names in a library's class, including those that only its methods use."""
    members = [each for kind in getattr(base, "__mro__", ())[:-1] for each in vars(kind).items()]
    codes = [code for _, member in members if (code := getattr(member, "__code__", None))]
    return frozenset([name for name, _ in members] + [name for code in codes for name in code.co_names])


def modules() -> dict[str, str]:
    """Return the text of each of our modules by its name."""
    return {
        ".".join(file.relative_to(folder).with_suffix("").parts): file.read_text()
        for folder in SOURCES
        for file in sorted(folder.rglob("*.py"))
    }


def test_our_modules_do_not_use_internals_of_libraries() -> None:
    assert list(Code.of(modules()).violations()) == []


KOPF = "import kopf, aiohttp.web\nfrom asyncio import StreamReader\nimport os, sys\n"


@pytest.mark.parametrize(
    "text",
    [
        "import kopf._core",
        "import kopf._core as core",
        "from kopf import _core",
        "from kopf._core import engines",
        "importlib.import_module('kopf._core')",
        "kopf._core.engines",
        "server._answer()",
        "server._answer = f",
        "getattr(server, '_answer')",
        "kopf.run = f",
        "kopf.WebhookServer.port = 1",
        "kopf.WebhookServer.port += 1",
        "del kopf.run",
        "aiohttp.web.run_app = f",
        "aiohttp.web.__all__[0] = 'x'",
        "def change():\n    import h2corn as server\n    server.Server = f",
        "setattr(kopf, name, f)",
        "delattr(kopf, name)",
        "vars(kopf)['run'] = f",
        "vars(aiohttp.web).update(run_app=f)",
        "kopf.__dict__['run'] = f",
        "monkeypatch.setattr(kopf, '_core', f)",
        "def _core(): ...\nmonkeypatch.setattr(kopf, '_core', f)",
        "def _core(): ...\nkopf._core()",
        "monkeypatch.setattr('kopf._core.engines', f)",
        "mock.patch('kopf._core.engines')",
        "mock.patch.object(kopf, '_core')",
        "sys.modules['kopf'] = f",
        "class A(kopf.WebhookServer):\n    def _serve(self): ...",
        "class A(kopf.WebhookServer):\n    async def _serve(self): ...",
        "class A(kopf.WebhookServer): _serve = f",
        "class A(kopf.WebhookServer): ...\nclass B(A):\n    def _serve(self): ...",
        "class A(StreamReader):\n    def size(self): return len(self._buffer)",
        "class A(StreamReader):\n    def clear(self): self._buffer = b''",
        "class A(StreamReader):\n    def run(self): super()._wait_for_data('x')",
        "class A(kopf.WebhookServer): ...\nA.build_certificate = f",
    ],
)
def test_a_use_of_internals_is_found(text: str) -> None:
    assert list(Code.of({"unit.example": KOPF + text}).violations())


@pytest.mark.parametrize(
    "text",
    [
        "from __future__ import annotations",
        "kopf.run()",
        "settings = kopf.OperatorSettings()\nsettings.posting.enabled = False",
        "def _answer(): ...\nserver._answer()",
        "monkeypatch.setattr(kopf, 'run', f)",
        "mock.patch('kopf.run')",
        "vars(settings)",
        "sys.stderr = f",
        "os.environ['X'] = 'x'",
        "os.environ |= {}",
        "class A(kopf.WebhookServer):\n    def __call__(self): ...",
        "class A(kopf.WebhookServer):\n    def _own(self): return self._own()",
        "class A(kopf.WebhookServer): limit = 1\nA.limit = 2",
        "class A:\n    def _serve(self): ...",
    ],
)
def test_other_uses_are_not_violations(text: str) -> None:
    assert list(Code.of({"unit.example": KOPF + text}).violations()) == []
