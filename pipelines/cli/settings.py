"""Groups of options that several jobs share, and what each becomes in the library."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import click

from recsys import splitting
from recsys.data.interactions import Interactions
from recsys.data.reading import ReadingOptions
from recsys.errors import ConfigError
from recsys.evaluation.tasks import Task
from recsys.splitting.holdout import Split
from recsys.system.storage import Location
from recsys.tracking.mlflow_tracker import open_tracker
from recsys.tracking.tracker import Tracker
from recsys.training.data_parallel import ALONE, Group

from .options import setting
from .reading import read_further


class _OneOf(click.Choice[str]):
    """A choice whose values are in the help text: too many for the line of the flag."""

    def get_metavar(self, param: click.Parameter, ctx: click.Context) -> str:
        return "NAME"


@dataclass(frozen=True)
class SplitOptions:
    """What is held out."""

    protocol: str | None = setting(
        None,
        f"What is held out, one of {', '.join(splitting.PROTOCOLS)}; by default users (strong) for lists, random rows "
        "(cells) for ratings.",
        kind=_OneOf(list(splitting.PROTOCOLS)),
    )
    held_out: float = setting(
        0.1, "Share of users (strong), rows (weak, cells, temporal) or items (cold-items) in each held-out part."
    )
    test: Location | None = setting(None, "Test file of a published split (protocol given).")
    validation: Location | None = setting(
        None,
        "Validation file; its rows belong to the histories of the test. For ratings, a part of RATINGS by default.",
    )

    mask: Literal["seen", "history"] = setting(
        "seen",
        "What is never recommended: all items a user has rated (seen), or only those of the history, as in many "
        "publications; items rated below --min-rating may then be listed.",
    )

    repeats: bool = setting(False, "leave-last-out: lists may hold items of the history.")

    newest: bool = setting(False, "cold-items: the newest items by time are cold, instead of random ones.")

    def __post_init__(self) -> None:
        if self.validation is not None and self.test is None:
            raise ConfigError("Expected --test FILE beside --validation FILE, found only the latter.")
        if self.protocol == "given" and self.test is None:
            raise ConfigError("Expected --test FILE for the protocol given, found none.")

    def split(self, interactions: Interactions, reading: ReadingOptions, seed: int, task: Task) -> Split:
        """Split the interactions as asked, else as is usual for the task; `--test FILE` means the given protocol."""
        interactions, ratings, share = self._masked(interactions), task.ratings, self.held_out
        if self.test is not None:
            validation = None
            if self.validation is not None:
                validation = self._masked(read_further(task, self.validation, reading, "validation"))
            test = self._masked(read_further(task, self.test, reading, "test"))
            rest = share if ratings else 0
            return splitting.given(interactions, test, validation, share=rest, seed=seed, ratings=ratings)
        make = splitting.PROTOCOLS[self.protocol or task.protocol]
        takes = inspect.signature(make).parameters
        options = {"share": share, "seed": seed, "ratings": ratings, "repeats": self.repeats}
        options["newest"] = self.newest
        return make(interactions, **{name: value for name, value in options.items() if name in takes})

    def _masked(self, interactions: Interactions) -> Interactions:
        return interactions if self.mask == "seen" else replace(interactions, seen_only=None)

    def folds(self, interactions: Interactions, count: int, seed: int, task: Task) -> Iterator[tuple[str, Split]]:
        """Make the splits that test every user, or every cell, once; by name."""
        make = splitting.FOLDS[self.protocol or task.protocol]
        return make(self._masked(interactions), folds=count, seed=seed, ratings=task.ratings)


@dataclass(frozen=True)
class FittingOptions:
    """How models are fitted."""

    metric: str = setting(
        "", "Validation metric, for early stopping and ranking; ndcg@100 for lists and rmse for ratings by default."
    )
    patience: int = setting(10, "Early stopping: epochs without a better validation value.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "Of training; auto is bf16 where the chip has it and the model learns as well, otherwise fp32."
    )

    def with_task_defaults(self, task: Task) -> FittingOptions:
        """Fill in the task's metric where none was given. Raises ConfigError for a metric of another task."""
        task.check(self.metric or task.metric)
        return replace(self, metric=self.metric or task.metric)


@dataclass(frozen=True)
class TrackingOptions:
    """Where runs are tracked."""

    track: bool = setting(True, "Track the run in MLflow (MLFLOW_TRACKING_URI, else sqlite:///mlflow.db).")
    experiment: str = setting("recsys", "MLflow experiment.")

    def open(self, group: Group = ALONE) -> Tracker:
        """Open the tracker asked for; of several processes only the main one tracks."""
        return open_tracker(self.track and group.is_main, self.experiment)


def comma_list(texts: Sequence[str] | str) -> list[str]:
    """`"a,b"` or `("a,b", "c")` -> `["a", "b", "c"]`, each once, empty ones left out."""
    parts = [part.strip() for text in ([texts] if isinstance(texts, str) else texts) for part in text.split(",")]
    return list(dict.fromkeys(part for part in parts if part))
