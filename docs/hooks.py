"""What mkdocs does with links that leave docs/: they can be followed in the repository, but not on the site."""

import os
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
LINK = re.compile(r"\[(?P<text>[^\]]+)\]\((?P<target>[^)\s#:]+)(?:#[^)\s]*)?\)")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page. A line that is only a link to a page elsewhere becomes that page, other links
    out of docs/ become their text.
    """
    pages = re.compile(r"^\[[^\]]+\]\((\.\./.+\.md)\)$", re.MULTILINE)
    markdown = pages.sub(lambda found: _page(DOCS / found[1]), markdown)
    return LINK.sub(lambda link: link[0] if _is_ours(link["target"]) else link["text"], markdown)


def _page(path: Path) -> str:
    """A page from elsewhere, its links seen from docs/."""

    def moved(link: re.Match[str]) -> str:
        target = (path.parent / link["target"]).resolve()
        return link[0].replace(link["target"], os.path.relpath(target, DOCS)) if target.exists() else link[0]

    return LINK.sub(moved, path.read_text(encoding="utf-8"))


def _is_ours(target: str) -> bool:
    path = (DOCS / target).resolve()
    return path.is_relative_to(DOCS) and path.exists()
