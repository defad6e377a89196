"""Work on several threads, with results in order, and with no thread left running after Ctrl-C.

Python raises KeyboardInterrupt wherever the main thread is. In Thread.start or Thread.join it leaves a thread that is
never joined, and the process aborts when that thread asks for the interpreter after its end. So the interrupt is
delayed there, and only there.
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


def map_in_order(
    work: Callable[[_A], _B],
    inputs: Iterable[_A],
    threads: int | None = None,
    ahead: int | None = None,
    prepare: Callable[[], Any] = lambda: None,
) -> Iterator[_B]:
    """Apply a function to inputs on several threads, and yield the results in the order of the inputs.

    Parameters
    ----------
    work : callable
        Called on any thread. Its first error is raised where its result would have been.
    inputs : iterable
        Read as results are taken, never further than `ahead`.
    threads : int, optional
        As many as this process may use processors, at most 8, if None.
    ahead : int, optional
        Largest number of results that wait to be taken; two a thread and one more if None.
    prepare : callable
        Called by each thread before its first work.

    Yields
    ------
    result
        When the generator ends, is closed or fails, its threads have ended.
    """
    threads = threads or min(8, usable_cores())
    pool = ThreadPoolExecutor(threads, initializer=prepare)
    waiting: deque[Future[_B]] = deque()
    try:
        for each in inputs:
            with delay_interrupts():
                waiting.append(pool.submit(work, each))
            if len(waiting) >= (ahead or 2 * threads + 1):
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        with delay_interrupts():
            pool.shutdown(cancel_futures=True)


@contextmanager
def delay_interrupts() -> Iterator[None]:
    """Delay Ctrl-C and SIGTERM until the block ends; a second one is not delayed.

    Only the main thread receives signals: in other threads nothing happens. There must be no `yield` in the block: a
    generator that is never resumed would delay them for ever.
    """
    is_main = threading.current_thread() is threading.main_thread()
    usual = {int(signum): handler for signum in SIGNALS if is_main and callable(handler := signal.getsignal(signum))}
    received: list[int] = []

    def delay(signum: int, frame: Any) -> None:
        if received:
            usual[signum](signum, frame)
        received.append(signum)

    for signum in usual:
        signal.signal(signum, delay)
    try:
        yield
    finally:
        for signum, handler in usual.items():
            signal.signal(signum, handler)
        if received:
            usual[received[0]](received[0], None)
