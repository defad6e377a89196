"""How commands read ratings: what is read as the task wants it, and what was done with it is said."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import fields
from typing import Any

from recsys.data.interactions import Interactions
from recsys.data.order import for_models, order_line
from recsys.data.reading import ReadingOptions
from recsys.data.reading.for_task import read_for_task
from recsys.evaluation.tasks import Task
from recsys.models import Recommender
from recsys.models.trained import READING, TrainedModel
from recsys.system.storage import Location

from .output import files_text, note, note_columns
from .progress import activity


def read_for(task: Task, places: Sequence[Location] | Location, reading: ReadingOptions) -> Interactions:
    """Read the interactions of a job, with progress."""
    with activity(f"reading {files_text(places)}"):
        interactions = read_for_task(task.name, places, reading)
    note_columns(interactions.columns)
    return interactions


def read_further(task: Task, place: Location, reading: ReadingOptions, name: str) -> Interactions:
    """Read a further file of a job; the account of its rows, which no result carries, is said at once."""
    with activity(f"reading {files_text(place)}"):
        interactions = read_for_task(task.name, place, reading.beside(name))
    note_columns(interactions.columns, name)
    note(interactions.ledger.line(), name)
    return interactions


def remembered_reading(interactions: Interactions) -> dict[str, Any]:
    """What model.json keeps of how the ratings of a training were read: see TrainedModel.read_histories."""
    return {name: interactions.policies.get(name) for name in READING} | {"order": interactions.order}


def in_order_for(interactions: Interactions, models: Sequence[Recommender]) -> Interactions:
    """The interactions in order where a model uses it; says what decides it."""
    ordered = for_models(interactions, models)
    if any(model.uses_order for model in models):
        note(order_line(ordered))
    return ordered


def read_histories(
    saved: TrainedModel, places: Sequence[Location] | Location, reading: ReadingOptions, name: str = ""
) -> Interactions:
    """Read histories for a saved model, as its training was read where no flag says otherwise; say what was taken.

    `name`: of a further file, see `read_further`.
    """
    remembered = saved.remembered(reading)
    if remembered:
        note(f"Read as in training: {typed_again((), ReadingOptions(**remembered))}", name)
    with activity(f"reading {files_text(places)}"):
        interactions = saved.read_histories(places, reading.beside(name) if name else reading)
    note_columns(interactions.columns, name)
    if "min_rating" in remembered and interactions.rating is None:
        note("There are no ratings to compare with --min-rating: every row counts.", name)
    if name:
        note(interactions.ledger.line(), name)
    return interactions


def typed_again(places: Sequence[Location], reading: ReadingOptions) -> str:
    """RATINGS with the flags they were read with, for the next command a person is told to type."""
    words = [str(place) for place in places]
    for item in fields(reading):
        value, flag = getattr(reading, item.name), item.name.replace("_", "-")
        if value != item.default and item.name != "rejects":
            words += (
                [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", _typed(value)]
            )
    return shlex.join(words)


def _typed(value: Any) -> str:
    """A value as people write it: 4, not 4.0."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)
