"""What people read on the terminal: printable text, tables of 80 columns, or JSON for machines."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from recsys.system.text import plural, printable

if TYPE_CHECKING:
    from recsys.data.interactions import ColumnUse
    from recsys.evaluation.averages import Interval

WIDTH = 80


def say(text: str = "", err: bool = False, style: str | None = None) -> None:
    """Print one text for a person. Nothing reaches the terminal by another way: ids and titles may hold anything."""
    shown = printable(text)
    click.echo(shown if style is None else click.style(shown, bold=style == "bold"), err=err)


NOTES = "recsys.notes"  # of the running command, for its JSON


def note(text: str, about: str = "") -> None:
    """Say something beside the result, on the file `about`: on standard error, or under "notes" of the JSON."""
    whole = f"{about}: {text}" if about else text
    if as_json():
        click.get_current_context().meta.setdefault(NOTES, []).append(whole)
    else:
        say(wrapped(whole, "  "), err=True)


def note_columns(columns: ColumnUse | None, about: str = "") -> None:
    """Say which columns of a file were read, and which were not, where that is known."""
    if columns is not None:
        note(columns.line(), about)


def as_json() -> bool:
    """Whether `--json` was given."""
    context = click.get_current_context(silent=True)
    return context is not None and bool(context.find_root().params.get("as_json"))


def print_json(content: Mapping[str, Any]) -> None:
    """Print one JSON document, with the notes made on the way."""
    from recsys.system.atomic import json_text

    context = click.get_current_context(silent=True)
    notes = context.meta.get(NOTES) if context else None
    text = json_text({**content, "notes": notes} if notes else content)
    click.echo(re.sub(r"[^ -~\n]", _json_escape, text))


def _json_escape(found: re.Match[str]) -> str:
    """A control character as JSON may write it inside a string, any other character as it is."""
    return found[0] if printable(found[0]) == found[0] else f"\\u{ord(found[0]):04x}"


def program() -> str:
    """How this command was called, for the next command a person is told to type."""
    context = click.get_current_context(silent=True)
    name = (context.find_root().info_name if context else None) or "recsys"
    called = Path(sys.argv[0])
    on_path = name != called.name or not called.is_file() or shutil.which(name) is not None
    return name if on_path else sys.argv[0]


def table(rows: Sequence[Sequence[Any]], header: Sequence[str], left: int = 1) -> str:
    """Columns aligned under their header: the first `left` of them to the left, numbers to the right."""
    texts = [[printable(str(cell), single_line=True) for cell in row] for row in (header, *rows)]
    widths = [max(len(row[i]) for row in texts) for i in range(len(header))]
    lines = [
        "  ".join(
            cell.ljust(w) if i < left else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in texts
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def metrics_table(metrics: Mapping[str, Interval]) -> str:
    """One line for each metric: mean, 95 % confidence interval, number of users."""
    rows = [
        (label, decimal(m.mean), f"{decimal(m.low)} – {decimal(m.high)}", f"{m.n_users:,}")
        for label, m in metrics.items()
    ]
    return table(rows, ("metric", "mean", "95 % interval", "users"))


def decimal(value: float, digits: int = 4) -> str:
    """A number with so many digits behind the point; never -0.0000."""
    return f"{value:z.{digits}f}"


def listed(names: Sequence[object], shown: int = 3) -> str:
    """The first few names, and how many more there are."""
    first = ", ".join(shorten(str(name), 40) for name in names[:shown])
    return f"{first}, ..." if len(names) > shown else first


def files_text(places: object) -> str:
    """The files of a job in a few words, for a line of progress."""
    names = [str(place) for place in places] if isinstance(places, (list, tuple)) else [str(places)]
    return names[0] if len(names) == 1 else f"{names[0]} and {plural(len(names) - 1, 'more file')}"


def cells_text(counts: Mapping[Any, Any]) -> str:
    """How many held-out cells predicted ratings were measured on, to follow the users; empty for lists."""
    if "cells" not in counts:
        return ""
    without = counts["cells_without_prediction"]
    have = "has" if without == 1 else "have"
    more = f"; {without:,} more {have} no prediction because the item or the user is unknown" if without else ""
    return f", {plural(counts['cells'], 'held-out cell')}{more}"


def shorten(text: str, width: int) -> str:
    """The text, cut with an ellipsis where it is longer than `width`."""
    return text if len(text) <= width else text[: width - 1] + "…"


def wrapped(text: str, indent: str = "") -> str:
    """The text in lines of at most `WIDTH`, all but the first after `indent`."""
    return click.wrap_text(text, WIDTH, subsequent_indent=indent)
