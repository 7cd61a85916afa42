"""The frame of a report: one HTML file that opens from disk by itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evaluation.report.text import escaped

_CSS = Path(__file__).with_name("report.css")


def html_page(
    title: str,
    heading: str,
    about: str,
    facts: Mapping[str, object],
    main: str,
    footer: str = "",
    eyebrow: str = "UniAudio evaluation",
) -> str:
    """A whole page.

    Args:
        title: As the browser shows it; plain text, as `heading`, `about` and `facts`.
        heading: The first line.
        about: What it is, beneath.
        facts: What is shown of it at a glance; empty values are left out.
        main: HTML of the body.
        footer: HTML.
        eyebrow: Plain text above the heading.
    """
    listed = "".join(f"<div><dt>{escaped(k)}</dt><dd>{escaped(v)}</dd></div>" for k, v in facts.items() if v)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escaped(title)}</title>
<style>
{_CSS.read_text(encoding="utf-8")}</style>
</head>
<body>
<header>
<div class="eyebrow">{escaped(eyebrow)}</div>
<h1>{escaped(heading)}</h1>
<p class="soft">{escaped(about)}</p>
<dl class="facts">{listed}</dl>
</header>
<main>
{main}
</main>
<footer>{footer}</footer>
</body>
</html>
"""
