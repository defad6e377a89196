"""Progress that people can watch: a bar or a clock on a terminal, a quiet line every ten seconds elsewhere.

What takes long runs inside `activity(label)`. On a terminal it is shown with the time elapsed; elsewhere a line says
every ten seconds what is being done. Of activities inside others, the innermost speaks.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from tqdm import tqdm

from recsys.system.text import plural, printable

if TYPE_CHECKING:
    from recsys.training.context import Epoch
    from recsys.tuning import Budget, Trial, Tuned

from .output import decimal, say

_T = TypeVar("_T")

QUIET = 10.0  # seconds without a line, at most, where no terminal shows a bar
REFRESH = 0.5  # seconds between two states of the clock
_active: list[Activity] = []


def on_terminal() -> bool:
    """Whether somebody watches standard error."""
    return sys.stderr.isatty()


class Activity:
    """Something that takes long: its label, how far it is (`state`), and its bar where there is a terminal."""

    def __init__(self, label: str, bar: Any = None):
        self.label, self.state, self.bar = printable(label), "", bar
        self.started = self.said = time.monotonic()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def start(self) -> None:
        """Begin to tell."""
        _active.append(self)
        self._thread.start()

    def end(self) -> None:
        """Tell no more."""
        self._ended.set()
        self._thread.join()
        _active.remove(self)
        if _active:
            _active[-1].said = time.monotonic()
        if self.bar is not None:
            self.bar.close()

    def say(self, text: str) -> None:
        """A line that stays, above the bar where there is one."""
        self.said = time.monotonic()
        if self.bar is None:
            say(text, err=True)
        else:
            self.bar.write(printable(text), file=sys.stderr)

    def _tick(self) -> None:
        while not self._ended.wait(REFRESH if self.bar is not None else min(QUIET, 1.0)):
            if self.bar is not None:
                self.bar.refresh()
            elif _active and _active[-1] is self and time.monotonic() - self.said >= QUIET:
                state = f"{self.state}, " if self.state else ""
                self.say(f"{self.label}: {state}{time.monotonic() - self.started:.0f} s")


@contextmanager
def activity(label: str) -> Iterator[Activity]:
    """Tell that something is being done while the block runs, if it takes longer than a second."""
    bar = None
    if on_terminal():
        bar = tqdm(desc=printable(label), bar_format="{desc}{postfix} [{elapsed}]", leave=False, delay=1)
    yield from _run(Activity(label, bar))


def _run(working: Activity) -> Iterator[Activity]:
    working.start()
    try:
        yield working
    finally:
        working.end()


def watch(steps: Iterable[_T], total: int, label: str, unit: str = "it") -> Iterator[_T]:
    """The same steps, with a bar on a terminal."""
    bar = tqdm(total=total, desc=printable(label), unit=unit, leave=False) if on_terminal() else None
    for working in _run(Activity(label, bar)):
        for number, step in enumerate(steps, start=1):
            yield step
            working.state = f"{number:,} of {plural(total, unit)}"
            if bar is not None:
                bar.update()


class FitProgress:
    """Called by the training loop: shows steps, epochs, loss and validation metric, or the phases of a closed form."""

    def __init__(self, working: Activity, metric: str):
        self.working, self.metric = working, metric
        self.epochs: list[Epoch] = []
        self.total = 0

    def phase(self, name: str, done: int, total: int) -> None:
        """A part of a fit without epochs begins, or one of its `total` parts is done."""
        self.working.state = f"{name} {done}/{total}" if total > 1 else name
        bar = self.working.bar
        if bar is not None:
            bar.n, bar.total = done, max(total, 1)
            bar.set_postfix_str(printable(name))

    def step(self, step: int, steps: int) -> None:
        """One batch is done."""
        self.working.state = f"epoch {len(self.epochs) + 1}, step {step}/{steps}"
        if self.working.bar is not None:
            self.working.bar.update(1 / steps)

    def resume(self, epochs: Sequence[Epoch], planned: int) -> None:
        """Training goes on after these epochs."""
        self.epochs, self.total = list(epochs), planned
        done = f"after epoch {len(epochs)} of {planned}" if epochs else "within the first epoch"
        self.working.say(f"{self.working.label}: goes on {done}")

    def epoch(self, epoch: Epoch, epochs: int) -> None:
        """One epoch is done."""
        self.epochs.append(epoch)
        self.total = epochs
        text = f"loss {epoch.loss:.4g}"
        if epoch.value is not None:
            text += f"  {self.metric} {self._value(epoch.value)}{' *' if epoch.best else ''}"
        bar = self.working.bar
        if bar is not None:
            bar.total = epochs
            bar.n = epoch.number
            bar.set_postfix_str(text)
        elif epoch.number == 1 or epoch.number % 10 == 0 or time.monotonic() - self.working.said >= QUIET:
            self.working.say(f"{self.working.label}: epoch {epoch.number}/{epochs}  {text}")

    def conclusion(self) -> str:
        """Where training ended and which weights it kept; empty where nothing was validated."""
        best = next((epoch for epoch in reversed(self.epochs) if epoch.best), None)
        if best is None or best.value is None:
            return ""
        last = self.epochs[-1].number
        waited = last - best.number
        ended = (
            f"stopped after epoch {last} of {self.total}: no better {self.metric} for {plural(waited, 'epoch')}"
            if last < self.total
            else f"all {plural(self.total, 'epoch')} done"
        )
        return f"{self.working.label}: {ended}; kept epoch {best.number} ({self.metric} {self._value(best.value)})"

    def _value(self, value: float) -> str:
        from recsys.evaluation.metrics import goodness

        return decimal(goodness(self.metric, value))


@contextmanager
def fit_progress(label: str, metric: str) -> Iterator[FitProgress]:
    """Progress of a fit; at its end a line says where it stopped and what it kept."""
    shape = "{l_bar}{bar}| {n:.0f}/{total_fmt} [{elapsed}<{remaining}] {postfix}"
    bar = None
    if on_terminal():
        bar = tqdm(total=1, desc=printable(label), bar_format=shape, leave=False)
    progress = None
    for working in _run(Activity(label, bar)):
        progress = FitProgress(working, metric)
        yield progress
    if progress is not None and progress.conclusion():
        say(progress.conclusion(), err=True)


@contextmanager
def trials_progress(model: str, budget: Budget) -> Iterator[Callable[[Trial, Tuned], None]]:
    """A function to call after every trial: a bar with the best so far on a terminal, else a line for each trial."""
    total = None if budget.minutes else budget.trials
    bar = tqdm(total=total, desc=f"tune {printable(model)}", unit="trial", leave=False) if on_terminal() else None
    for working in _run(Activity(f"tune {model}", bar)):

        def after(trial: Trial, so_far: Tuned, working: Activity = working) -> None:
            text = _best_so_far(so_far)
            working.state = f"trial {trial.number + 1}"
            if bar is not None:
                bar.n = trial.number
                bar.set_postfix_str(text)
                return
            value = trial.reason if trial.value is None else f"{so_far.metric} {decimal(trial.value)}"
            count = trial.number if total is None else f"{trial.number}/{total}"
            ended = "" if trial.state == "complete" else f" ({trial.state})"
            working.say(f"{model}: trial {count}  {value}{ended}  {trial.seconds:.1f} s  {text}")

        yield after


def _best_so_far(so_far: Tuned) -> str:
    best = so_far.leader
    return "" if best is None or best.value is None else f"best {decimal(best.value)} (trial {best.number})"
