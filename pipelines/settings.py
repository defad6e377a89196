"""Groups of options that several jobs share, and what each becomes in the library."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal

import click

from recsys import splitting
from recsys.errors import ConfigError, DataError
from recsys.interactions import Interactions
from recsys.places import Place
from recsys.processes import ALONE, Group
from recsys.reading import ReadingOptions, read_interactions
from recsys.splitting import Split
from recsys.tasks import Task
from recsys.tracking import Tracker, open_tracker

from .options import setting


@dataclass(frozen=True)
class SplitOptions:
    """Who is held out."""

    protocol: Literal["strong", "weak", "cells", "leave-one-out", "temporal", "given"] | None = setting(
        None, "What is held out: people (strong, the default for lists), random rows (cells, for ratings), ..."
    )
    held_out: float = setting(0.1, "Share of users (strong) or of rows (weak, cells, temporal) in each held-out part.")
    test: Place | None = setting(None, "Test file of a published division (protocol given).")
    validation: Place | None = setting(
        None, "Validation file; it belongs to the history at test time. For ratings, a part of RATINGS without one."
    )

    def __post_init__(self) -> None:
        if self.validation is not None and self.test is None:
            raise ConfigError("Expected --test FILE beside --validation FILE, found only the latter.")
        if self.protocol == "given" and self.test is None:
            raise ConfigError("Expected --test FILE for the protocol given, found none.")

    def split(self, interactions: Interactions, reading: ReadingOptions, seed: int, task: Task) -> Split:
        """The interactions divided as asked, else as is usual for the task; `--test FILE` means the given protocol."""
        ratings, share = task.ratings, self.held_out
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

    def folds(self, interactions: Interactions, count: int, seed: int, task: Task) -> Iterator[tuple[str, Split]]:
        """Splits that test every user, or every cell, once, by name."""
        make = splitting.FOLDS[self.protocol or task.protocol]
        return make(interactions, folds=count, seed=seed, ratings=task.ratings)


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


def read_for(task: Task, places: Sequence[Place] | Place, reading: ReadingOptions) -> Interactions:
    """The interactions of a job. Refuses what makes no sense of ratings: a table without them, and --min-rating."""
    if task.ratings and reading.min_rating is not None:
        raise ConfigError(
            "Expected no --min-rating for the rating task: it sets apart what was liked, and a model that never sees a "
            "low rating predicts none. Leave it out."
        )
    interactions = read_interactions(places, reading)
    if task.ratings and interactions.rating is None:
        raise DataError(
            "Expected a column of ratings to learn to predict them, found none: name it with --rating-column, "
            "or make lists (--task ranking)."
        )
    return interactions


def read_beside(task: Task, place: Place, reading: ReadingOptions, name: str) -> Interactions:
    """The interactions of a further file of a job; its account, which no result carries, is said at once."""
    interactions = read_for(task, place, reading.beside(name))
    click.echo(f"{name}: {interactions.ledger.line()}", err=True)
    return interactions


def typed_again(places: Sequence[Place], reading: ReadingOptions) -> str:
    """RATINGS with the flags they were read with, for the next command a person is told to type."""
    words = [str(place) for place in places]
    for item in fields(reading):
        value, flag = getattr(reading, item.name), item.name.replace("_", "-")
        if value != item.default and item.name != "rejects":
            words += (
                [f"--{flag}" if value else f"--no-{flag}"] if isinstance(value, bool) else [f"--{flag}", str(value)]
            )
    return shlex.join(words)


def comma_list(texts: Sequence[str] | str) -> list[str]:
    """`"a,b"` or `("a,b", "c")` -> `["a", "b", "c"]`, each once, blanks left out."""
    parts = [part.strip() for text in ([texts] if isinstance(texts, str) else texts) for part in text.split(",")]
    return list(dict.fromkeys(part for part in parts if part))
