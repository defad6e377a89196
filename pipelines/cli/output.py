"""What people read on the terminal: tables of 80 columns, or JSON for machines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import click

from recsys.evaluation.averages import Interval
from recsys.system.atomic import json_text

WIDTH = 80


def table(rows: Sequence[Sequence[Any]], header: Sequence[str], left: int = 1) -> str:
    """Columns aligned under their header: the first `left` of them to the left, numbers to the right."""
    texts = [[str(cell) for cell in row] for row in (header, *rows)]
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
    """A line a metric: mean, 95 % interval, users behind it."""
    rows = [(label, f"{m.mean:.4f}", f"{m.low:.4f} – {m.high:.4f}", f"{m.n_users:,}") for label, m in metrics.items()]
    return table(rows, ("metric", "mean", "95 % interval", "users"))


def cells_text(counts: Mapping[Any, Any]) -> str:
    """How many held-out cells predicted ratings were measured on, to stand after the users; nothing for lists."""
    if "cells" not in counts:
        return ""
    without = counts["cells_without_prediction"]
    more = f"; {without:,} more have no prediction, their item or user being unknown" if without else ""
    return f", {counts['cells']:,} held-out cells{more}"


def shorten(text: str, width: int) -> str:
    """The text, cut with an ellipsis where it is longer than `width`."""
    return text if len(text) <= width else text[: width - 1] + "…"


def wrapped(text: str, indent: str = "") -> str:
    """The text in lines of at most `WIDTH`, all but the first after `indent`."""
    return click.wrap_text(text, WIDTH, subsequent_indent=indent)


def print_json(value: Mapping[str, Any]) -> None:
    """One JSON document on standard output."""
    click.echo(json_text(value))


def as_json() -> bool:
    """Whether the person asked for JSON (`recsys --json COMMAND`)."""
    ctx = click.get_current_context(silent=True)
    return bool(ctx and ctx.find_root().params.get("as_json"))
