"""Who does the work of a batch job: this process, or the actors of a Ray cluster.

Ray's own retries do what a dead worker or node left undone. Plain actors and tasks are enough: the pieces are cut
before, each is written by whoever takes it, and only its note comes back (Ray Data would add its own blocks, and no
commit of its own).
"""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

from recsys.errors import ArtifactError, ConfigError, MissingPackageError
from recsys.system.hardware import usable_cores

_A = TypeVar("_A")
_B = TypeVar("_B")

CLIENT_BYTES = 80_000_000  # main memory that Ray adds to the command and to each actor, about
_RETRIES = 5  # of a piece whose worker died; a piece that kills five has a reason


def on_ray(
    make: Callable[[], Callable[[_A], _B]], pieces: Iterable[_A], workers: int | None, address: str | None, gpu: bool
) -> Iterator[_B]:
    """Results of `make()(piece)` as they come, by actors that each call `make` once.

    `address`: of a running cluster; None starts one on this machine, which ends with the job. Errors of the work are
    raised as they are; one of Ray's own becomes ArtifactError.
    """
    with _cluster(address, workers) as ray:
        most = max(1, int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1)))
        # A cluster of machines may grow when more actors ask for room; here they would wait for ever.
        count = workers if workers and address else min(workers or most, most)
        worker = ray.remote(_Worker).options(num_cpus=1, num_gpus=int(gpu), max_restarts=-1, max_task_retries=_RETRIES)
        actors = [worker.remote(make) for _ in range(count)]
        try:
            yield from _share_out(ray, actors, iter(pieces))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except ray.exceptions.RayError as error:
            raise ArtifactError(f"Ray gave up: {error}. What is written stays: go on with --resume.") from error


class _Worker:
    """An actor: its work is made when it starts, and again should it have to start again."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]):
        self.work = make()

    def do(self, piece: Any) -> Any:
        return self.work(piece)


def _share_out(ray: Any, actors: list[Any], pieces: Iterator[Any]) -> Iterator[Any]:
    """Two pieces an actor under way, a new one for each that is done."""
    under_way = {actor.do.remote(piece): actor for actor in actors * 2 for piece in islice(pieces, 1)}
    while under_way:
        (done,), _ = ray.wait(list(under_way), num_returns=1)
        actor = under_way.pop(done)
        for piece in islice(pieces, 1):
            under_way[actor.do.remote(piece)] = actor
        yield ray.get(done)


def _require_answer(address: str | None) -> None:
    """Raise ConfigError at once where nobody listens: Ray itself would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?([^\]]+?)\]?:(\d+)", address or "")
    if found:
        try:
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        except OSError as error:
            raise ConfigError(
                f"Expected a Ray cluster at {address}, found: {error}. Start one: ray start --head."
            ) from error


@contextmanager
def _cluster(address: str | None, workers: int | None) -> Iterator[Any]:
    """Ray, connected; a cluster of our own is stopped at the end."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError("ray", "ray") from error
    if ray.is_initialized():  # somebody else's: used, and left running
        yield ray
        return
    _require_answer(address)
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address is None:
            ray.init(num_cpus=workers or usable_cores(), include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"Expected a Ray cluster at {address or 'this machine'}, found: {error}") from error
    try:
        yield ray
    finally:
        ray.shutdown()
