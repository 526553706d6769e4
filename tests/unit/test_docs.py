"""What the documents name exists, such as links and options; and no file names hosts or folders of one machine."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from ipaddress import ip_address
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
import yaml

from devbox_secrets.api.models import Reason
from devbox_secrets.controller import metrics as controller_metrics
from devbox_secrets.gateway import metrics as gateway_metrics
from devbox_secrets.webhook import metrics as webhook_metrics
from harness.tools import TOOLS

ROOT = Path(__file__).parents[2]
API = ROOT / "docs" / "reference" / "api.md"
BENCHMARKS = ROOT / "docs" / "benchmarks.md"
CLI = ROOT / "docs" / "cli.md"
METRICS = ROOT / "docs" / "reference" / "metrics.md"
OPERATIONS = ROOT / "docs" / "operations"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
CHART = ROOT / "charts" / "devbox-secrets"

_FENCE = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]+`")


def run(*command: str | Path) -> str:
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout


@cache
def tracked() -> list[Path]:
    """Return every file of the project, including those that aren't committed yet."""
    names = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
    return [path for name in sorted(names) if name and (path := ROOT / name).is_file()]


def documents() -> list[Path]:
    return [path for path in tracked() if path.suffix == ".md"]


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def section(document: Path, heading: str) -> str:
    """Return the text under a heading, up to the next heading of its level or above."""
    level = heading.partition(" ")[0]
    _, _, rest = document.read_text().partition(f"\n{heading}\n")
    return re.split(rf"^#{{1,{len(level)}}} ", rest, maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of the rows of all tables, without the table heads."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    rules = [number for number, row in enumerate(cells) if set("".join(row)) <= set("-: ") and any(row)]
    heads = {number for rule in rules for number in (rule - 1, rule)}
    return [row for number, row in enumerate(cells) if number not in heads]


def code(text: str) -> list[str]:
    """Return the code in a text: blocks and inline code."""
    fences = _FENCE.findall(text)
    return fences + _CODE.findall(_FENCE.sub("", text))


def links(document: Path) -> Iterator[str]:
    prose = _CODE.sub("", _FENCE.sub("", document.read_text()))
    yield from re.findall(r"\]\(([^()\s]+)\)", prose)
    yield from re.findall(r"^\[[^\]]+\]: (\S+)$", prose, re.MULTILINE)


def anchors(document: Path) -> set[str]:
    """Return the anchors that GitHub creates for a document's headings."""
    seen: Counter[str] = Counter()
    found = set()
    for heading in re.findall(r"^#+ (.+)$", _FENCE.sub("", document.read_text()), re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        slug = re.sub(r"[^\w\- ]", "", words).replace(" ", "-")
        found.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return found


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_relative_link_has_a_target(document: Path) -> None:
    broken = []
    for link in links(document):
        target = urlsplit(link)
        if target.scheme:
            continue
        path = (document.parent / unquote(target.path)).resolve() if target.path else document
        reached = path in tracked() or any(each.is_relative_to(path) for each in tracked())
        if not reached or (target.fragment and target.fragment not in anchors(path)):
            broken.append(link)
    assert broken == []


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_paragraphs_are_not_wrapped_by_hand(document: Path) -> None:
    prose = re.compile(r"[^\s|#>*\-\d`]")  # neither a table, a heading, a list nor code
    lines = _FENCE.sub("", document.read_text()).splitlines()
    assert [a for a, b in pairwise(lines) if prose.match(a) and prose.match(b)] == []


def test_every_page_that_a_file_names_exists() -> None:
    missing = {
        (name_of(path), name)
        for path in tracked()
        for name in re.findall(rb"(?<![\w/.-])docs/[\w/-]+\.md", path.read_bytes())
        if ROOT / name.decode() not in tracked()
    }
    assert missing == set()


def test_the_number_in_the_readme_is_from_the_benchmarks() -> None:
    medians = {row[0]: round(float(row[2].split()[0])) for row in rows(section(BENCHMARKS, "## One value"))}
    quoted = [int(number) for number in re.findall(r"(\d+) ms", (ROOT / "README.md").read_text())]
    assert quoted == list(medians.values())


def targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z0-9-]*):(?!=)", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", [*documents(), ROOT / ".ci" / "run"], ids=name_of)
def test_every_make_target_that_is_named_exists(document: Path) -> None:
    text = document.read_text()
    pieces = code(text) if document.suffix == ".md" else [text]
    named = {name for piece in pieces for name in re.findall(r"\bmake ([a-z][a-z0-9-]*)", piece)}
    assert named <= targets()


def test_contributing_describes_every_make_target() -> None:
    text = CONTRIBUTING.read_text()
    assert {name for name in targets() if f"`make {name}`" not in text} == set()


@cache
def options() -> dict[str, set[str]]:
    """Return the options of each command that its reference lists."""
    _, *sections = re.split(r"^## ([a-z ]+)\n", CLI.read_text(), flags=re.MULTILINE)
    return {
        name: {"-h", "--help", *re.findall(r"`(--?[a-zA-Z-]+)`", text)}
        for name, text in zip(sections[::2], sections[1::2], strict=True)
    }


def unknown_options(text: str) -> set[str]:
    """Return the options in a text that its commands don't have."""
    pieces = (re.sub(r"\\\n *", "", piece) for piece in code(text))
    commands = (each for piece in pieces for each in re.findall(r"devbox-secrets ([a-z][^|;&)`\n]*)", piece))
    used = ((max((it for it in options() if f"{each} ".startswith(f"{it} ")), default=""), each) for each in commands)
    return {
        f"{name} {option}"
        for name, words in used
        if name
        for option in re.findall(r"(?<= )--?[a-zA-Z][a-zA-Z-]*", words)
        if option not in options()[name]
    }


@pytest.mark.parametrize("document", documents(), ids=name_of)
def test_every_option_of_a_command_that_is_named_exists(document: Path) -> None:
    mistyped = {"set --desciption"}  # an example of an error
    assert unknown_options(document.read_text()) <= mistyped


def test_an_option_that_does_not_exist_is_found() -> None:
    text = "```console\n$ devbox-secrets update A \\\n    --rotate-after 90d < a\n```\n"
    assert unknown_options(text) == {"update --rotate-after"}


def test_the_table_lists_exactly_the_reasons_of_the_ready_condition() -> None:
    text = section(API, "## Ready reasons")
    assert [row[0].strip("`") for row in rows(text)] == list(Reason)
    assert [row[0].strip("`") for row in rows(text) if row[1] == "yes"] == [Reason.SYNCED]


def test_the_table_lists_exactly_the_exposed_metrics() -> None:
    text = METRICS.read_text()
    documented = {(re.split(r"[`{]", row[0])[1], row[1]) for row in rows(text) if row[0].startswith("`devbox_secrets_")}
    metrics = [
        each for them in (controller_metrics, webhook_metrics, gateway_metrics) for each in them.REGISTRY.collect()
    ]
    exposed = {(f"{it.name}_total" if it.type == "counter" else it.name, it.type) for it in metrics}
    assert documented == exposed


def test_every_metric_that_is_named_exists() -> None:
    modules = (controller_metrics, webhook_metrics, gateway_metrics)
    families = [family for module in modules for family in module.REGISTRY.collect()]
    suffixes = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum", "")}
    exposed = {f"{family.name}{suffix}" for family in families for suffix in suffixes[family.type]}
    texts = [path.read_text() for path in (*documents(), *(CHART / "files").glob("*"))]
    named = set(re.findall(r"\bdevbox_secrets_[a-z_]+", "\n".join(texts)))
    assert named - exposed == set()


def test_each_alert_links_to_its_section_and_there_are_no_others() -> None:
    page = OPERATIONS / "monitoring.md"
    sections = re.findall(r"^### (Devbox\w+)\n\n(Critical|Warning)\b", section(page, "## Alerts"), re.MULTILINE)
    rules = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"][0]["rules"]
    assert sorted((alert, severity.lower()) for alert, severity in sections) == sorted(
        (rule["alert"], rule["labels"]["severity"]) for rule in rules
    )
    for rule in rules:
        path, _, anchor = rule["annotations"]["runbook_url"].partition("/blob/main/")[2].partition("#")
        assert (ROOT / path, anchor) == (page, rule["alert"].lower())


def test_every_value_of_the_chart_that_is_named_exists() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    parents = "|".join(name for name, value in values.items() if isinstance(value, dict))
    table = rows(section(OPERATIONS / "install.md", "## Chart values"))
    named = {name.strip("`") for row in table for name in row[0].split(", ")}
    pages = [page for page in documents() if page != CONTRIBUTING]  # which names Python modules
    for piece in (piece for page in pages for piece in code(page.read_text())):
        named |= set(re.findall(rf"(?<![\w./-])((?:{parents})(?:\.[a-zA-Z]+)+)\b", piece))
    assert len(named) > len(table)
    for name in named - {"keys.backup"}:  # a file in docs/sessions.md
        here = values
        for key in name.split("."):
            assert key in here, name
            here = here[key]


def test_exactly_the_dependencies_have_a_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = [
        project["project"]["dependencies"],
        *project["project"]["optional-dependencies"].values(),
        *project["dependency-groups"].values(),
    ]
    needed = {re.split(r"[^\w-]", requirement)[0] for group in groups for requirement in group}
    text = section(CONTRIBUTING, "## Dependencies").partition("### ")[0]
    assert {row[0]: bool(row[1]) for row in rows(text)} == dict.fromkeys(needed, True)


def test_exactly_the_programs_of_the_cluster_have_a_reason() -> None:
    table = rows(section(CONTRIBUTING, "### Programs of the cluster"))
    assert {name for row in table for name in row[1].split(", ") if name} == set(TOOLS)
    modules = {path.parent.name for path in (ROOT / "tests" / "harness" / "tools").glob("*/go.mod")}
    assert {name.strip("`") for row in table for name in row[0].split(", ") if name} == modules


def test_each_example_is_in_the_list_of_examples() -> None:
    examples = ROOT / "examples"
    listed = {link for link in links(examples / "README.md") if link.endswith(".yaml")}
    assert listed == {path.name for path in tracked() if path.parent == examples and path.suffix == ".yaml"}


# --- Traces of one machine: the hosts of its packages, and its folders.


def _hosts(text: str) -> set[str]:
    found = {urlsplit(url).hostname or "" for url in re.findall(r"https?://[^\s,'\"|\]]+", text)}
    return {host for host in found if "." in host and not _is_loopback(host)}


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _output_of(*command: str) -> str:
    if shutil.which(command[0]) is None:
        return ""
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False).stdout


def _apt() -> str:
    folder = Path("/etc/apt")
    sources = [*folder.glob("sources.list"), *folder.glob("sources.list.d/*"), *folder.glob("apt.conf.d/*proxy*")]
    return "\n".join(path.read_text(errors="replace") for path in sources if path.is_file())


def _variables() -> str:
    name = re.compile(r"(INDEX|INDEX_URL|PROXY|REGISTRY|MIRROR)$", re.IGNORECASE)
    return "\n".join(value for variable, value in os.environ.items() if name.search(variable))


SOURCES: dict[str, Callable[[], str]] = {
    "pip": lambda: _output_of(sys.executable, "-m", "pip", "config", "list"),
    "go": lambda: _output_of("go", "env", "GOPROXY", "GOSUMDB"),
    "npm": lambda: _output_of("npm", "config", "get", "registry"),
    "apt": _apt,
    "environment variables": _variables,
}


def places() -> dict[str, Path]:
    """Return folders with names that only this machine may have; /src, for example, may be in a container, too."""
    return {
        what: path
        for what, path in {
            "the user's home": Path.home(),
            "the checkout": ROOT,
            "temporary files": Path(tempfile.gettempdir()),
        }.items()
        if len(path.parts) > (2 if path == ROOT else 1)
    }


def where(pattern: str) -> list[str]:
    """Return the files of the project that contain a pattern."""
    return [name_of(path) for path in tracked() if re.search(pattern.encode(), path.read_bytes())]


def host_pattern(host: str) -> str:
    return rf"(?<![\w.-]){re.escape(host)}(?![\w-])"


@pytest.mark.parametrize("source", SOURCES)
def test_no_file_names_a_host_that_this_machine_gets_packages_from(source: str) -> None:
    hosts = _hosts(SOURCES[source]())
    if not hosts:
        pytest.skip("no host is configured")
    assert {host: found for host in hosts if (found := where(host_pattern(host)))} == {}


@pytest.mark.parametrize("what", ["the user's home", "the checkout", "temporary files"])
def test_no_file_names_a_folder_of_this_machine(what: str) -> None:
    if what not in places():
        pytest.skip("other machines may have this folder, too")
    assert where(rf"(?<![\w.-]){re.escape(str(places()[what]))}/") == []


def test_a_host_in_a_file_is_found() -> None:
    hosts = _hosts("index-url='https://user@packages.example.org:8443/simple', off, http://127.0.0.1:3128")
    assert hosts == {"packages.example.org"}
    named = "registry.example"  # in the documents
    assert where(host_pattern(named))
    assert not where(host_pattern(named[1:]))
