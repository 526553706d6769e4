"""A hook of mkdocs: links from docs/ to other files of the repository become absolute, as the site lacks those."""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.pages import Page

_UPWARD_LINK = re.compile(r"(?<=\]\()\.\./[^()\s]+(?=\))")


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs passes it
    """Return a page's text with absolute links to what isn't in docs/."""
    docs = Path(config.docs_dir)

    def absolute(link: re.Match[str]) -> str:
        target = Path(os.path.normpath(docs / Path(page.file.src_uri).parent / link[0]))
        if target.is_relative_to(docs):
            return link[0]
        return f"{config.extra['source']}/blob/main/{target.relative_to(docs.parent).as_posix()}"

    return _UPWARD_LINK.sub(absolute, markdown)
