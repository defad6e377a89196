"""Progress that people can watch: a bar on a terminal, a quiet line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click
from tqdm import tqdm

from recsys.evaluation.metrics import goodness
from recsys.training.context import Epoch
from recsys.tuning import Budget, Trial, Tuned

_T = TypeVar("_T")


def on_terminal() -> bool:
    """Whether somebody watches standard error."""
    return sys.stderr.isatty()


def watch(steps: Iterable[_T], total: int, label: str, unit: str = "it") -> Iterator[_T]:
    """The same steps, with a bar on a terminal."""
    yield from tqdm(steps, total=total, desc=label, unit=unit, disable=not on_terminal(), leave=False)


class FitProgress:
    """Told of steps and epochs by the training loop: a bar with loss and validation metric, or every tenth epoch."""

    def __init__(self, label: str, metric: str):
        self.label, self.metric = label, metric
        self.bar: Any = None
        self.done = 0

    def step(self, step: int, steps: int) -> None:
        """One batch is done."""
        if self.bar is not None:
            self.bar.update(1 / steps)

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """One epoch is done."""
        text = f"loss {epoch.loss:.4g}"
        if epoch.value is not None:
            text += f"  {self.metric} {goodness(self.metric, epoch.value):.4f}{' *' if epoch.best else ''}"
        if self.bar is not None:
            self.bar.total = epochs
            self.bar.n = epoch.number
            self.bar.set_postfix_str(text)
        elif epoch.number == 1 or epoch.number % 10 == 0:
            click.echo(f"{self.label}: epoch {epoch.number}/{epochs}  {text}", err=True)


@contextmanager
def fit_progress(label: str, metric: str) -> Iterator[FitProgress]:
    """A FitProgress whose bar is there while the block runs."""
    progress = FitProgress(label, metric)
    if not on_terminal():
        yield progress
        return
    shape = "{l_bar}{bar}| {n:.0f}/{total_fmt} epochs [{elapsed}<{remaining}] {postfix}"
    with tqdm(total=1, desc=label, bar_format=shape, leave=False) as progress.bar:
        yield progress


@contextmanager
def trials_progress(model: str, budget: Budget) -> Iterator[Callable[[Trial, Tuned], None]]:
    """A function to tell every trial to: a bar with the best so far on a terminal, else a line a trial."""
    total = None if budget.minutes else budget.trials
    with tqdm(total=total, desc=f"tune {model}", unit="trial", disable=not on_terminal(), leave=False) as bar:

        def told(trial: Trial, so_far: Tuned) -> None:
            text = _best_so_far(so_far)
            bar.n = trial.number
            bar.set_postfix_str(text)
            if not on_terminal():
                value = trial.reason if trial.value is None else f"{so_far.metric} {trial.value:.4f}"
                count = trial.number if total is None else f"{trial.number}/{total}"
                ended = "" if trial.state == "complete" else f" ({trial.state})"
                click.echo(f"{model}: trial {count}  {value}{ended}  {trial.seconds:.1f} s  {text}", err=True)

        yield told


def _best_so_far(so_far: Tuned) -> str:
    best = so_far.leader
    return "" if best is None else f"best {best.value:.4f} (trial {best.number})"
