"""Requests that wait are scored together: one product of matrices for many users costs little more than for one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, TypeVar

from recsys.errors import RecsysError

QueryT = TypeVar("QueryT")
AnswerT = TypeVar("AnswerT")


class QueueFullError(RecsysError):
    """As many requests wait as may wait."""


class MicroBatcher(Generic[QueryT, AnswerT]):
    """Answers queries on one thread, all that wait at a time. No query waits for others to come.

    Parameters
    ----------
    answer : callable
        From some queries to their answers, in the same order.
    largest : int
        Queries answered at once, at most.
    waiting : int
        Queries that may wait, at most.
    """

    def __init__(self, answer: Callable[[Sequence[QueryT]], Sequence[AnswerT]], largest: int = 64, waiting: int = 1024):
        self._answer, self._largest, self._most = answer, largest, waiting
        self._waiting: deque[tuple[QueryT, Future[AnswerT]]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="scoring", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._waiting)

    def submit(self, query: QueryT) -> Future[AnswerT]:
        """Queue a query.

        Parameters
        ----------
        query : object

        Returns
        -------
        Future
            Its answer, or what `answer` raised for it.

        Raises
        ------
        QueueFullError
            If too many wait already, or after `close`.
        """
        future: Future[AnswerT] = Future()
        with self._changed:
            if self._closed or len(self._waiting) >= self._most:
                raise QueueFullError(f"Expected fewer than {self._most} waiting requests, found as many: try again.")
            self._waiting.append((query, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._next()) is not None:
            wanted = [(query, future) for query, future in batch if future.set_running_or_notify_cancel()]
            self._settle(wanted)

    def _next(self) -> list[tuple[QueryT, Future[AnswerT]]] | None:
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            if not self._waiting:
                return None
            return [self._waiting.popleft() for _ in range(min(self._largest, len(self._waiting)))]

    def _settle(self, batch: Sequence[tuple[QueryT, Future[AnswerT]]]) -> None:
        """Answer a batch; where it fails, each query alone, so that one of them cannot fail the others."""
        if not batch:
            return
        try:
            answers = self._answer([query for query, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][1].set_exception(error)
            else:
                for one in batch:
                    self._settle([one])
            return
        for (_, future), answer in zip(batch, answers, strict=True):
            future.set_result(answer)
