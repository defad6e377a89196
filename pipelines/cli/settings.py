"""Groups of options that several jobs share, and what each becomes in the library."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import click

from recsys import splitting
from recsys.data.interactions import Interactions
from recsys.data.reading import ReadingOptions
from recsys.errors import ConfigError
from recsys.evaluation.tasks import Task
from recsys.models.trained import READING, TrainedModel, read_for_task
from recsys.splitting.holdout import Split
from recsys.system.storage import Location
from recsys.tracking.mlflow_tracker import open_tracker
from recsys.tracking.tracker import Tracker
from recsys.training.data_parallel import ALONE, Group

from .options import setting
from .output import as_json


@dataclass(frozen=True)
class SplitOptions:
    """Who is held out."""

    protocol: Literal["strong", "weak", "cells", "leave-one-out", "temporal", "given"] | None = setting(
        None, "What is held out: people (strong, the default for lists), random rows (cells, for ratings), ..."
    )
    held_out: float = setting(0.1, "Share of users (strong) or of rows (weak, cells, temporal) in each held-out part.")
    test: Location | None = setting(None, "Test file of a published division (protocol given).")
    validation: Location | None = setting(
        None, "Validation file; it belongs to the history at test time. For ratings, a part of RATINGS without one."
    )

    mask: Literal["seen", "history"] = setting(
        "seen",
        "What lists must not offer: all that a user has had, or (as many publications do) the history alone, so that "
        "items rated below --min-rating may be listed.",
    )

    def __post_init__(self) -> None:
        if self.validation is not None and self.test is None:
            raise ConfigError("Expected --test FILE beside --validation FILE, found only the latter.")
        if self.protocol == "given" and self.test is None:
            raise ConfigError("Expected --test FILE for the protocol given, found none.")

    def split(self, interactions: Interactions, reading: ReadingOptions, seed: int, task: Task) -> Split:
        """The interactions divided as asked, else as is usual for the task; `--test FILE` means the given protocol."""
        interactions, ratings, share = self._masked(interactions), task.ratings, self.held_out
        if self.test is not None:
            validation = None if self.validation is None else read_beside(task, self.validation, reading, "validation")
            test = read_beside(task, self.test, reading, "test")
            rest = share if ratings else 0
            return splitting.given(interactions, test, validation, share=rest, seed=seed, ratings=ratings)
        if self.protocol == "temporal":
            return splitting.temporal(interactions, share=share, ratings=ratings)
        if self.protocol == "leave-one-out":
            return splitting.leave_one_out(interactions, seed=seed, ratings=ratings)
        return splitting.PROTOCOLS[self.protocol or task.protocol](
            interactions, share=share, seed=seed, ratings=ratings
        )

    def _masked(self, interactions: Interactions) -> Interactions:
        return interactions if self.mask == "seen" else replace(interactions, seen_only=None)

    def folds(self, interactions: Interactions, count: int, seed: int, task: Task) -> Iterator[tuple[str, Split]]:
        """Splits that test every user, or every cell, once, by name."""
        make = splitting.FOLDS[self.protocol or task.protocol]
        return make(self._masked(interactions), folds=count, seed=seed, ratings=task.ratings)


@dataclass(frozen=True)
class FittingOptions:
    """How models are fitted."""

    metric: str = setting(
        "", "Validation metric: it stops the epochs and ranks the models; ndcg@100, for ratings rmse, if not given."
    )
    patience: int = setting(10, "Epochs without a better validation value before training stops.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    precision: Literal["fp32", "bf16"] = setting("fp32", "bf16 is faster where the chip has it.")

    def of(self, task: Task) -> FittingOptions:
        """The same with the task's metric where none was given. Raises ConfigError for one of another task."""
        task.check(self.metric or task.metric)
        return replace(self, metric=self.metric or task.metric)


@dataclass(frozen=True)
class TrackingOptions:
    """Where runs are kept."""

    track: bool = setting(True, "Track the run in MLflow (MLFLOW_TRACKING_URI, else sqlite:///mlflow.db).")
    experiment: str = setting("recsys", "MLflow experiment.")

    def open(self, group: Group = ALONE) -> Tracker:
        """The tracker asked for; of several processes only the main one tracks."""
        return open_tracker(self.track and group.is_main, self.experiment)


def read_for(task: Task, places: Sequence[Location] | Location, reading: ReadingOptions) -> Interactions:
    """The interactions of a job."""
    return read_for_task(task.name, places, reading)


def read_beside(task: Task, place: Location, reading: ReadingOptions, name: str) -> Interactions:
    """The interactions of a further file of a job; its account, which no result carries, is said at once."""
    interactions = read_for(task, place, reading.beside(name))
    say_account(interactions, name)
    return interactions


def say_account(interactions: Interactions, name: str) -> None:
    """What became of the rows of a further file."""
    click.echo(f"{name}: {interactions.ledger.line()}", err=True)


def meaning(reading: ReadingOptions) -> dict[str, Any]:
    """What model.json keeps of how the ratings of a training were read: see TrainedModel.read_histories."""
    return {name: getattr(reading, name) for name in READING}


def read_histories(
    saved: TrainedModel, places: Sequence[Location] | Location, reading: ReadingOptions, name: str = ""
) -> Interactions:
    """Histories for a saved model, read as those of its training where no flag says otherwise; says what was taken.

    `name`: of a further file, see `read_beside`.
    """
    remembered = saved.remembered(reading)
    if remembered:
        say(f"Read as in training: {typed_again((), ReadingOptions(**remembered))}", name)
    interactions = saved.read_histories(places, reading.beside(name) if name else reading)
    if "min_rating" in remembered and interactions.rating is None:
        say("No ratings to compare with --min-rating: every row counts.", name)
    if name:
        say_account(interactions, name)
    return interactions


def say(text: str, name: str = "") -> None:
    """A line for a person, on the file `name`; none where a program reads."""
    if not as_json():
        click.echo(f"{name}: {text}" if name else text, err=True)


def typed_again(places: Sequence[Location], reading: ReadingOptions) -> str:
    """RATINGS with the flags they were read with, for the next command a person is told to type."""
    words = [str(place) for place in places]
    for item in fields(reading):
        value, flag = getattr(reading, item.name), item.name.replace("_", "-")
        if value != item.default and item.name != "rejects":
            words += (
                [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", typed(value)]
            )
    return shlex.join(words)


def typed(value: Any) -> str:
    """A value as people write it: 4, not 4.0."""
    return str(value).removesuffix(".0") if isinstance(value, float) else str(value)


def comma_list(texts: Sequence[str] | str) -> list[str]:
    """`"a,b"` or `("a,b", "c")` -> `["a", "b", "c"]`, each once, blanks left out."""
    parts = [part.strip() for text in ([texts] if isinstance(texts, str) else texts) for part in text.split(",")]
    return list(dict.fromkeys(part for part in parts if part))
