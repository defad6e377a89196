"""Ctrl-C and SIGTERM end a command in the same way: one line, exit code 1, and nothing half-written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .errors import CommandError, CommandInterruptedError, explain

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_received: list[int] = []


def handle_signals() -> None:
    """Turn SIGTERM (a scheduler, `kill`) into KeyboardInterrupt, as Ctrl-C is, and remember that one came."""
    if threading.current_thread() is not threading.main_thread():
        return
    _received.clear()
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) in (usual, _interrupt):  # else the caller has plans of its own, as nohup has
            signal.signal(number, _interrupt)


def was_interrupted() -> bool:
    """Whether a signal came: what is raised after one may be its consequence (an import cut short, for instance)."""
    return bool(_received)


def ignore_signals() -> None:
    """Let the interpreter end undisturbed: there is nothing left to interrupt."""
    if threading.current_thread() is threading.main_thread():
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _interrupt(number: int, frame: Any) -> None:
    _received.append(number)
    raise KeyboardInterrupt


@contextmanager
def resumable(hint: Callable[[], str], output: object = None) -> Iterator[None]:
    """Add how to continue (`hint`) to the message of a job that was interrupted, or whose disk or cluster failed."""
    from recsys.errors import EngineError, StorageError

    try:
        yield
    except KeyboardInterrupt as error:
        raise CommandInterruptedError(hint()) from error
    except BrokenPipeError:  # of what is printed, not of what is written
        raise
    except (OSError, StorageError, EngineError) as error:
        raise CommandError(f"{explain(error, None, output).message} {hint()}".rstrip()) from error
