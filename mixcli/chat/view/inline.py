"""Emphasis, code and links inside one line of markdown, as rich's Text."""

from functools import cache
from typing import TYPE_CHECKING

from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from markdown_it import MarkdownIt

CODE = "cyan"
STYLES = {"strong": "bold", "em": "italic", "s": "strike", "link": "underline"}
ADDRESS = "dim"


@cache
def _parser() -> "MarkdownIt":
    from markdown_it import MarkdownIt

    return MarkdownIt("commonmark").enable("strikethrough")


def inline(source: str, style: str = "") -> Text:
    """Draw one line; `style` lies under all of it. What is not closed yet stands as it was typed."""
    text = Text(style=style)
    if not source:
        return text
    tokens = _parser().parseInline(source)[0].children or []
    open_styles: list[str] = []
    addresses: list[str] = []
    for token in tokens:
        kind, _, edge = token.type.rpartition("_")
        if kind in STYLES and edge == "open":
            open_styles.append(STYLES[kind])
            if kind == "link":
                addresses.append(str(token.attrs.get("href", "")))
        elif kind in STYLES and edge == "close":
            open_styles.pop()
            if kind == "link" and (address := addresses.pop()) and not text.plain.endswith(address):
                text.append(f" ({address})", ADDRESS)
        elif token.type == "code_inline":
            text.append(token.content, _over(open_styles, CODE))
        elif token.type == "image":
            text.append(f"{token.content} ({token.attrs.get('src', '')})", _over(open_styles))
        elif token.type in ("softbreak", "hardbreak"):
            text.append("\n")
        else:
            text.append(token.content, _over(open_styles))
    return text


def _over(styles: list[str], last: str = "") -> Style:
    return Style.parse(" ".join(dict.fromkeys([*styles, last])).strip())
