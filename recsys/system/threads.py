"""Work shared out to threads, its results in order, and no thread left behind by Ctrl-C.

Python raises KeyboardInterrupt wherever the main thread stands. In Thread.start or Thread.join it leaves a thread that
nobody waits for any more, and the process aborts when that thread asks for the interpreter after its end. So there, and
only there, it is made to wait.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from recsys.system.hardware import usable_cores

SIGNALS = (signal.SIGINT, signal.SIGTERM)

_A = TypeVar("_A")
_B = TypeVar("_B")


def in_order(
    work: Callable[[_A], _B],
    things: Iterable[_A],
    threads: int | None = None,
    ahead: int | None = None,
    prepare: Callable[[], Any] = lambda: None,
) -> Iterator[_B]:
    """Results of `work`, in the order of the things.

    threads: as many as this process may use processors, 8 at most, if None. ahead: results waiting to be taken, at
    most; two a thread and one more if None. prepare: called by each thread before its first work.
    """
    threads = threads or min(8, usable_cores())
    pool = ThreadPoolExecutor(threads, initializer=prepare)
    waiting: deque[Future[_B]] = deque()
    try:
        for thing in things:
            with held_back():
                waiting.append(pool.submit(work, thing))
            if len(waiting) >= (ahead or 2 * threads + 1):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        with held_back():
            pool.shutdown(cancel_futures=True)


@contextmanager
def held_back() -> Iterator[None]:
    """Ctrl-C (or a request to end) waits until the block is left; a second one does not.

    Only the main thread is told of signals: in others nothing is held back. No `yield` within the block: a generator
    that nobody goes on with would hold it for ever.
    """
    told = SIGNALS if threading.current_thread() is threading.main_thread() else ()
    usual = {int(signum): handler for signum in told if callable(handler := signal.getsignal(signum))}
    pressed: list[int] = []

    def hold(signum: int, frame: Any) -> None:
        if pressed:
            usual[signum](signum, frame)
        pressed.append(signum)

    for signum in usual:
        signal.signal(signum, hold)
    try:
        yield
    finally:
        for signum, handler in usual.items():
            signal.signal(signum, handler)
        if pressed:
            usual[pressed[0]](pressed[0], None)
