"""`recsys check`: read ratings, describe them, account for every row, and draw plots if asked."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click

from recsys.data.interactions import Interactions, Ledger
from recsys.data.item_features.features import with_features
from recsys.data.reading import ReadingOptions, read_interactions, text_layout
from recsys.data.reading.hints import hints
from recsys.data.reading.layout import Layout
from recsys.data.store import is_store
from recsys.system.atomic import new_file
from recsys.system.storage import Location, local_copies
from recsys.system.text import plural

from .cli.errors import with_flags
from .cli.features import FeatureFlags, account_of
from .cli.options import LocationType, options_from, setting
from .cli.output import WIDTH, as_json, files_text, print_json, say, shorten, table
from .cli.progress import activity

SEPARATOR_NAMES = {"\t": "tab", " ": "space", ",": "comma", ";": "semicolon", "|": "pipe"}


@dataclass(frozen=True)
class CheckJob:
    """The ratings to describe, and where plots go."""

    ratings: tuple[Location, ...]
    plots: Path | None = setting(None, "Folder for plots: long tail, ratings, activity over time.")
    features: FeatureFlags = field(default_factory=FeatureFlags)
    reading: ReadingOptions = field(default_factory=ReadingOptions)


@dataclass(frozen=True)
class Description:
    """What was found: format, facts, the account of the rows, hints, and the files of plots."""

    source: str
    format: Mapping[str, Any]
    facts: Mapping[str, Any]
    ledger: Ledger
    hints: list[str]
    plots: list[Path]


def run(job: CheckJob) -> Description:
    """Read and describe the ratings."""
    with local_copies(job.ratings) as files, activity(f"reading {files_text(job.ratings)}"):
        layout = text_layout(files, job.reading)
        interactions = with_features(read_interactions(files, job.reading), job.features.read())
    source = " ".join(map(str, job.ratings))
    plots = [] if job.plots is None else _draw(interactions, job.plots)
    ledger, advice = interactions.ledger, hints(interactions)
    if len(job.ratings) == 1 and is_store(Path(job.ratings[0])):
        advice.append("A store counts the rows that recsys prepare left out; prepare --rejects FILE writes them.")
    elif job.reading.rejects is not None:
        advice.append(f"The rows left out, each with its line and reason: {job.reading.rejects}.")
    elif ledger.kept < ledger.read:
        advice.append("--rejects FILE writes every row left out, with its line and reason.")
    return Description(source, _format(layout), interactions.describe(), ledger, advice, plots)


def _format(layout: Layout | None) -> dict[str, Any]:
    if layout is None:
        return {}
    places = {kind: place for kind, place in asdict(layout.columns).items() if place is not None}
    return {
        "separator": SEPARATOR_NAMES.get(layout.separator, layout.separator),
        "skipped_lines": layout.skip - layout.header,
        "header": layout.header,
        "columns": {kind: layout.names[place] for kind, place in places.items()},
        "not_used": [name for place, name in enumerate(layout.names) if place not in places.values()],
    }


def _draw(interactions: Interactions, folder: Path) -> list[Path]:
    from recsys.reporting import plotting

    figures = {"long_tail": plotting.long_tail(interactions)}
    if interactions.rating is not None:
        figures["ratings"] = plotting.ratings_histogram(interactions)
    if interactions.timestamp is not None:
        figures["activity"] = plotting.activity(interactions)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.png" for name in figures]
    for path, figure in zip(paths, figures.values(), strict=True):
        with new_file(path) as draft:
            figure.savefig(draft)
    return paths


@click.command("check")
@click.argument("ratings", type=LocationType(), nargs=-1, required=True)
@options_from(CheckJob)
def command(job: CheckJob) -> None:
    """Describe RATINGS (files, a folder or a prepared store) and account for every row."""
    found = run(job)
    if as_json():
        ledger = {"read": found.ledger.read, "kept": found.ledger.kept, "rejected": dict(found.ledger.rejected)}
        print_json({**asdict(found), "ledger": ledger})
    else:
        command = click.get_current_context().command
        say(_text(replace(found, hints=[with_flags(hint, command) for hint in found.hints])))


def _text(found: Description) -> str:
    parts = [shorten(found.source, WIDTH), _aligned([*_format_lines(found.format), *_fact_lines(found.facts)])]
    parts.append(_account(found.ledger))
    if "features" in found.facts:
        parts.append(_features(found.facts["features"]))
    parts.append(
        "\n".join(textwrap.fill(hint, WIDTH, subsequent_indent="  ") for hint in map("- ".__add__, found.hints))
    )
    parts.append("\n".join(f"plot  {path}" for path in found.plots))
    return "\n\n".join(part for part in parts if part)


def _format_lines(layout: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not layout:
        return []
    columns = ", ".join(kind if kind == name else f"{kind} = {name}" for kind, name in layout["columns"].items())
    lines = [
        ("separator", layout["separator"]),
        ("header", "yes" if layout["header"] else "no: columns are given by number"),
        ("columns", columns),
    ]
    if count := layout["skipped_lines"]:
        lines.insert(1, ("skipped", f"{plural(count, 'line')} above the {'header' if layout['header'] else 'rows'}"))
    return lines + ([("not used", ", ".join(layout["not_used"]))] if layout["not_used"] else [])


def _fact_lines(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = [
        ("users", f"{facts['users']:,}, items each {_spread(facts['rows_per_user'])}"),
        ("items", f"{facts['items']:,}, users each {_spread(facts['rows_per_item'])}"),
        ("pairs", f"{facts['rows']:,}, {facts['density']:.3%} of all user-item pairs"),
    ]
    if facts["scale"] is not None:
        scale = facts["scale"]
        step = "" if scale["step"] is None else f" in steps of {scale['step']:g}"
        lines.append(("ratings", f"{scale['min']:g} to {scale['max']:,g}{step} ({scale['kind']})"))
    if facts["time"] is not None:
        lines.append(("times", " to ".join(facts["time"]).replace("T", " ") + " UTC"))
    return lines


def _spread(spread: Mapping[str, float]) -> str:
    return f"{spread['min']:,} to {spread['max']:,}, median {spread['median']:,g}"


def _account(ledger: Ledger) -> str:
    width = max([len("rows read"), *map(len, ledger.rejected)]) + 2
    digits = len(f"{ledger.read:,}")
    lines = [("rows read", ledger.read), ("kept", ledger.kept), *ledger.rejected.items()]
    return "\n".join(f"{name:<{width}}{count:>{digits},}" for name, count in lines)


def _features(facts: Mapping[str, Any]) -> str:
    """The columns that describe the items, one a line, what became of the rows, and which items have none."""
    rows = [
        (name, each["kind"], f"{each['features']:,}", f"{each['missing']:,}", f"{each['unreadable']:,}")
        for name, each in facts["columns"].items()
    ]
    header = (f"item features ({facts['item_column']})", "kind", "features", "missing", "unreadable")
    columns = table([(shorten(name, 26), *rest) for name, *rest in rows], header, left=2)
    lines = [facts["ledger"], account_of(facts)]
    if facts["unread"]:
        lines.insert(0, f"not read: {', '.join(facts['unread'])}")
    return "\n".join([columns, *(textwrap.fill(line, WIDTH, subsequent_indent="  ") for line in lines)])


def _aligned(lines: list[tuple[str, str]]) -> str:
    return "\n".join(f"{name:<11}{shorten(text, WIDTH - 11)}" for name, text in lines)
