"""A document as one HTML page that needs nothing from anywhere."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from loadtests.report.document import Document

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #111; background: #fff; max-width: 72em;
       margin: 2em auto; padding: 0 1em; }
table { border-collapse: collapse; margin: 0.5em 0 1.5em; font-variant-numeric: tabular-nums;
        display: block; overflow-x: auto; }
th, td { padding: 0.2em 0.9em; border-bottom: 1px solid #ddd; white-space: nowrap; }
img { max-width: 100%; }
"""


def page(document: Document, title: str) -> str:
    """HTML with its style and pictures inside."""
    sources = {f"{picture.name}.svg": _as_data(picture.svg) for picture in document.pictures}
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")

    def image(
        renderer: Any, tokens: Sequence[Token], place: int, options: Any, environment: Any
    ) -> str:
        token = tokens[place]
        text = renderer.renderInlineAsText(token.children or [], options, environment)
        return f'<img src="{sources[str(token.attrs["src"])]}" alt="{escape(text)}">'

    markdown.add_render_rule("image", image)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"{markdown.render(document.markdown)}</body>\n</html>\n"
    )


def _as_data(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
