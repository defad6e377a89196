"""Pieces of Markdown: tables, first sentences of docstrings, links to papers."""

from __future__ import annotations

import inspect
import re
from typing import Any


def first_sentence(thing: Any) -> str:
    """The first sentence of a docstring."""
    return re.split(r"(?<!et al)(?<=[\w)])\.\s", summary(thing))[0].removesuffix(".") + "."


def summary(thing: Any) -> str:
    """The first paragraph of a docstring."""
    text = re.split(r"\n\s*\n", inspect.getdoc(thing) or "")[0]
    return " ".join(text.split())


def linked(text: str) -> str:
    """Text with links to the papers it names by their arXiv numbers."""
    return re.sub(r"arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in line) + " |" for line in lines
    )


def first_table(text: str) -> list[str]:
    """Return the lines of the first table of a Markdown text."""
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("|"))
    stop = next((number for number in range(start, len(lines)) if not lines[number].startswith("|")), len(lines))
    return lines[start:stop]
