"""The documentation site: it builds without a warning, and loads nothing from other hosts."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
#: What a browser loads by itself: scripts, images and frames; styles and icons; files that a style names.
LOADED = re.compile(r"""\ssrc="([^"]+)"|<link\s[^>]*href="([^"]+)"|url\(["']?([^"')]+)""")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    # The theme's notice about the next version of mkdocs isn't a warning about the site.
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    log = done.stdout + done.stderr
    assert (done.returncode, [line for line in log.splitlines() if not line.startswith("INFO ")]) == (0, [])
    return folder


def test_each_document_has_a_page(site: Path) -> None:
    documents = {path.relative_to(ROOT / "docs").with_suffix("") for path in (ROOT / "docs").rglob("*.md")}
    pages = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    assert pages == documents | {Path("404")}


def test_nothing_is_loaded_from_other_hosts(site: Path) -> None:
    texts = {path: path.read_text() for path in site.rglob("*") if path.suffix in {".html", ".css"}}
    loaded = {(path.name, "".join(found)) for path, text in texts.items() for found in LOADED.findall(text)}
    assert len(loaded) > len(texts)
    assert {each for each in loaded if re.match(r"(https?:)?//", each[1])} == set()


def test_links_to_other_files_lead_to_the_repository(site: Path) -> None:
    source = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Source"]
    assert f'href="{source}/blob/main/README.md"' in (site / "index.html").read_text()
    assert f'href="{source}/blob/main/tests/vectors/README.md"' in (site / "concepts.html").read_text()
    assert yaml.safe_load((ROOT / "mkdocs.yml").read_text())["extra"]["source"] == source
