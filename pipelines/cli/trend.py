"""The page of a nightly job: the facts of its last nights, from what each has written down."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.batch.gates import read_gates
from recsys.batch.output import read_json
from recsys.errors import ArtifactError, MissingPackageError, RecsysError, StorageError
from recsys.reporting.trend_page import NightFacts, render_trend
from recsys.system.files import write_text
from recsys.system.packages import versions
from recsys.system.storage import folder_at

from .nights import DONE, TREND, Plan, State, nights, read_current, stored
from .output import note

SHOWN = 30


def write_trend(plan: Plan) -> Path | None:
    """Write the page of the last nights; None, with a note, where it cannot be made."""
    facts = [one for name in nights(plan.output)[-SHOWN:] if (one := facts_of(plan, name)) is not None]
    if not facts:
        return None
    place = plan.flags["score"].get("gates")
    try:
        gates = {} if place is None else read_gates(Path(place), with_previous=True)
        page = render_trend(plan.name, facts, gates, versions().get("recsys", ""))
    except MissingPackageError as error:
        note(f"{plan.output / TREND} is not written: {error}")
        return None
    except RecsysError:  # in the gates: the step that reads them says so
        page = render_trend(plan.name, facts, {}, versions().get("recsys", ""))
    write_text(plan.output / TREND, page)
    return plan.output / TREND


def facts_of(plan: Plan, name: str) -> NightFacts | None:
    """What is known of a night; None where nothing is written down, or what is cannot be read."""
    try:
        found = stored(plan.output / name)
        return None if found is None else _facts(plan, name, found)
    except (ArtifactError, StorageError, AttributeError, KeyError, TypeError, ValueError):
        return None  # a damaged night takes no part, and does not keep others from being published


def _facts(plan: Plan, name: str, found: State) -> NightFacts:
    promotion = found.result("promote")
    published = (plan.output / name / DONE).exists()
    return NightFacts(
        name=name,
        state="published" if published else "refused" if found.refused else "unfinished",
        in_use=read_current(plan.output) == name,
        model=str(found.result("train").get("model", "")),
        promoted=bool(promotion["promoted"]) if promotion else None,
        decision=str(promotion.get("reason", "")),
        refusal="" if published else found.refused,
        gain=_gain(promotion),
        measures=_measures(plan, found),
    )


def _gain(promotion: Mapping[str, Any]) -> tuple[float, float, float] | None:
    """The gain of the challenger, with its interval."""
    measured = promotion.get("found")
    if not measured:
        return None
    interval = measured["difference"]["interval"]
    return float(interval["mean"]), float(interval["low"]), float(interval["high"])


def _measures(plan: Plan, found: State) -> dict[str, float]:
    """Quality of the new model, and the measures of the lists: also of lists that were refused."""
    metrics = found.result("evaluate").get("metrics", {})
    label, value = next(iter(metrics.items()), ("", None))
    quality = {label: value["mean"]} if value else {}
    manifest = found.result("score").get("manifest")
    if manifest is None:
        folder = folder_at(plan.lists(found.folder.name))
        refused = bool(found.refused) and folder.is_file("manifest.json")
        manifest = read_json(folder, "manifest.json") if refused else {}
    counts = {name: manifest[name] for name in ("users", "rows") if name in manifest}
    every = {**quality, **manifest.get("measures", {}), **counts}
    return {name: math.nan if value is None else float(value) for name, value in every.items()}
