"""Where the work of a batch job is done: on the cores of this process, or by the actors of a Ray cluster.

Ray's own retries do what a dead worker or node left undone. Plain actors and tasks are enough: the shards are cut
before, each is written by the actor that takes it, and only its summary comes back (Ray Data would add blocks of its
own, and has no commit of this kind).
"""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import Any, Generic, Literal

from typing_extensions import TypeVar

from recsys.artifacts import load_model
from recsys.batch.output import ShardSummary
from recsys.batch.plan import GPU_TILE, TILE, BatchPlan, ScoringPlan
from recsys.batch.rules import ListRules
from recsys.batch.shards import WORKER_PEAK, ShardInput, ShardWriter, WriterMaker, shard_inputs
from recsys.batch.targets import Targets
from recsys.data.item_features import ItemTable
from recsys.errors import ConfigError, EngineError
from recsys.models.trained import TrainedModel
from recsys.system.hardware import gpus, usable_cores
from recsys.system.memory import now_and_peak
from recsys.system.packages import missing_package
from recsys.system.storage import Location, absolute
from recsys.training.context import TrainingContext

_A = TypeVar("_A")
_B = TypeVar("_B")
PlanT = TypeVar("PlanT", bound=BatchPlan, default=ScoringPlan)

_RETRIES = 5  # of a shard whose worker died; a shard that kills five workers has a reason


@dataclass(frozen=True)
class Execution:
    """How a batch job is run. Nothing of it changes a byte of the lists, except the kind of device.

    Parameters
    ----------
    engine : {"local", "ray"}
        Threads of this process, or actors of a Ray cluster.
    workers : int, optional
        Threads or actors; all there are if None.
    ray_address : str, optional
        Address of a running Ray cluster; if None, one is started on this machine and ends with the job.
    batch_size : int, optional
        Users scored at the same time, at most: it reduces the workers.
    max_memory : int, optional
        Limit in bytes: it reduces the workers. For the command and its actors, on a cluster for each actor.
    device : str
        "auto", "cpu", "cuda" or "cuda:N".

    Raises
    ------
    ConfigError
        If a number is below 1.
    """

    engine: Literal["local", "ray"] = "local"
    workers: int | None = None
    ray_address: str | None = None
    batch_size: int | None = None
    max_memory: int | None = None
    device: str = "auto"

    def __post_init__(self) -> None:
        for name in ("workers", "batch_size", "max_memory"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"Expected {name} of at least 1, found {value}.")

    @property
    def device_type(self) -> str:
        """The kind of device the scores are made on, "cpu" or "cuda"."""
        return str(TrainingContext(device=self.device).resolve_device().type)

    @property
    def tile(self) -> int:
        """Users scored in one product on this kind of device."""
        return GPU_TILE if self.device_type == "cuda" else TILE

    @property
    def on_cluster(self) -> bool:
        """Whether the actors have machines of their own."""
        return self.engine == "ray" and self.ray_address is not None

    def most_workers(self, tile: int) -> int | None:
        """Return the number of threads or actors before memory is considered.

        Parameters
        ----------
        tile : int
            Users that one worker scores at the same time.

        Returns
        -------
        int or None
            None: as many as the cluster has.
        """
        on_gpus = self.engine == "ray" and self.device_type == "cuda"
        here = len(gpus()) if on_gpus else usable_cores()
        most = self.workers or (None if self.on_cluster else here)
        return most if self.batch_size is None else min(most or sys.maxsize, max(1, self.batch_size // tile))


@dataclass(frozen=True)
class BatchJob(Generic[PlanT]):
    """A batch of lists to be written.

    Attributes
    ----------
    plan : BatchPlan
        What decides the bytes.
    saved : TrainedModel
        The model, loaded in this process.
    model : Path or str
        Folder or address of the model, from which other processes load it.
    targets : Targets
        Who gets lists.
    rules : ListRules
        What may be in them.
    execution : Execution
        How the job is run.
    writer : callable
        Makes what writes a shard, from folder, plan, model, rules and threads.
    new_items : ItemTable, optional
        Items that `saved` knows by their features and the model in its folder does not; other processes add them too.
    """

    plan: PlanT
    saved: TrainedModel
    model: Location
    targets: Targets
    rules: ListRules
    execution: Execution = field(default_factory=Execution)
    writer: WriterMaker = ShardWriter
    new_items: ItemTable | None = None


def write_shards(
    job: BatchJob[Any], directory: Location, workers: int | None, finished: Mapping[str, ShardSummary]
) -> Iterator[tuple[str, ShardSummary]]:
    """Write the shards that are not finished, with the engine of the job.

    Parameters
    ----------
    job : BatchJob
        What is written, and how.
    directory : Path or str
        Folder of the output.
    workers : int or None
        Threads or actors; None: as many as the cluster has.
    finished : mapping of str to ShardSummary
        Shards that are there already, by name.

    Yields
    ------
    (str, ShardSummary)
        Name and summary of each shard, as it is finished.

    Raises
    ------
    EngineError
        If Ray gives up.
    """
    plan, execution = job.plan, job.execution
    inputs = shard_inputs(job.targets, [shard for shard in plan.shards if shard.name not in finished])
    if execution.engine == "local" or len(finished) == len(plan.shards):
        return map(job.writer(directory, plan, job.saved, job.rules, workers or 1), inputs)
    places = absolute(job.model), execution.device, absolute(directory)
    make = partial(load_shard_writer, *places, plan, job.rules, job.writer, job.new_items)
    return map_on_ray(make, inputs, workers, execution.ray_address, execution.device_type == "cuda")


def load_shard_writer(
    model: Location,
    device: str,
    directory: Location,
    plan: BatchPlan,
    rules: ListRules,
    writer: WriterMaker = ShardWriter,
    new_items: ItemTable | None = None,
) -> Callable[[ShardInput], tuple[str, ShardSummary]]:
    """Make a shard writer in another process, which loads the model itself.

    Parameters
    ----------
    model : Path or str
        Folder or address of the model, as the other process sees it.
    device : str
        Device the other process scores on.
    directory : Path or str
        Folder or address of the output.
    plan : BatchPlan
        What is written.
    rules : ListRules
        What may be in the lists.
    writer : callable
        Makes what writes a shard.
    new_items : ItemTable, optional
        Added to the model, by their features.

    Returns
    -------
    callable
        A shard writer whose summaries also hold the peak memory of the process, in bytes, as `peak_bytes`.
    """
    saved = load_model(model, device)
    if new_items is not None:
        saved = saved.with_new_items(new_items)
    write_shard = writer(directory, plan, saved, rules, 1)

    def write(shard_input: ShardInput) -> tuple[str, ShardSummary]:
        name, summary = write_shard(shard_input)
        return name, summary | {WORKER_PEAK: (now_and_peak() or (0, 0))[1]}

    return write


def map_on_ray(
    make: Callable[[], Callable[[_A], _B]],
    inputs: Iterable[_A],
    workers: int | None,
    address: str | None,
    gpu: bool,
) -> Iterator[_B]:
    """Apply a function to inputs by actors that each make the function once.

    Parameters
    ----------
    make : callable
        Makes the function; called by each actor when it starts.
    inputs : iterable
        What the function is applied to.
    workers : int or None
        Number of actors; None: as many as the cluster has room for.
    address : str or None
        Address of a running cluster; None starts one on this machine, which ends with the job.
    gpu : bool
        Whether each actor needs a GPU.

    Yields
    ------
    object
        Results as they are finished, in any order.

    Raises
    ------
    ConfigError
        If the cluster cannot be reached.
    EngineError
        If Ray itself fails. An error of the function is raised as it is.
    """
    with _cluster(address, workers) as ray:
        try:
            actors = _start_actors(ray, make, workers, address, gpu)
            yield from _distribute(ray, actors, iter(inputs))
        except ray.exceptions.RayTaskError as error:
            raise error.cause from error
        except (ray.exceptions.RayError, ConnectionError) as error:
            raise _gave_up(error) from error


def _start_actors(ray: Any, make: Any, workers: int | None, address: str | None, gpu: bool) -> list[Any]:
    """As many actors as wanted, or as the cluster has room for."""
    available = max(1, int(ray.cluster_resources().get("GPU" if gpu else "CPU", 1)))
    # A cluster of machines may grow when more actors ask for room; here they would wait for ever.
    count = workers if workers and address else min(workers or available, available)
    actor = ray.remote(_Worker).options(num_cpus=1, num_gpus=int(gpu), max_restarts=-1, max_task_retries=_RETRIES)
    return [actor.remote(make) for _ in range(count)]


def _gave_up(error: Exception) -> EngineError:
    """The error for a failure of Ray itself, in one line."""
    reason = " ".join(str(error).split()) or type(error).__name__
    return EngineError(f"Ray stopped working: {reason[:500]}")


class _Worker:
    """An actor: it makes its function when it starts, and again if it has to be restarted."""

    def __init__(self, make: Callable[[], Callable[[Any], Any]]):
        self.function = make()

    def apply(self, value: Any) -> Any:
        """The function's value."""
        return self.function(value)


def _distribute(ray: Any, actors: list[Any], inputs: Iterator[Any]) -> Iterator[Any]:
    """Keep two inputs in progress for each actor; yield results as they are finished."""
    in_progress = {actor.apply.remote(value): actor for actor in actors * 2 for value in islice(inputs, 1)}
    while in_progress:
        (ready,), _ = ray.wait(list(in_progress), num_returns=1)
        actor = in_progress.pop(ready)
        for value in islice(inputs, 1):
            in_progress[actor.apply.remote(value)] = actor
        yield ray.get(ready)


def _require_answer(address: str | None) -> None:
    """Raise ConfigError at once where nothing listens: Ray itself would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?\[?([^\]]+?)\]?:(\d+)", address or "")
    if found:
        try:
            socket.create_connection((found[1], int(found[2])), timeout=10).close()
        except (OSError, OverflowError) as error:
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
        raise missing_package("ray", "ray") from error
    if ray.is_initialized():  # a connection that the caller has made: used, and left open
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
