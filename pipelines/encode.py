"""`recsys encode`: write the embeddings of every user, or of every item, to Parquet, resumable and verified."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
import pyarrow as pa

from recsys.artifacts import load_model
from recsys.batch.encoding import EncodingPlan, EncodingWriter, about, join_shards, parent_of, read_vectors
from recsys.batch.engines import BatchJob, Execution, write_shards
from recsys.batch.output import open_output, record_shards, refuse_output, remove_output, write_manifest
from recsys.batch.plan import ENCODING_FOLDERS
from recsys.batch.rules import ListRules
from recsys.batch.shards import WORKER_PEAK
from recsys.batch.targets import Targets, fingerprint, item_targets, make_targets
from recsys.data.interactions import Interactions
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import ReadingOptions
from recsys.errors import ArtifactError, StorageError
from recsys.latent.index import IndexQuality, Metric, VectorIndex, require_index
from recsys.models.embeddings import Embedder
from recsys.models.trained import TrainedModel
from recsys.system.storage import Location, as_location, folder_at, local_copy
from recsys.system.text import plural

from .cli.exit_notice import exit_notice
from .cli.interrupts import resumable
from .cli.models import ModelType
from .cli.options import LocationType, options_from, setting
from .cli.output import as_json, listed, print_json, say, wrapped
from .cli.progress import activity, watch
from .cli.reading import read_histories
from .cli.unknown import SHOWN

CLUSTER_LOST = (
    "Error: the command was ended from outside, by Ray if its node on this machine stopped. What is written stays: run "
    "the same command with --resume to continue."
)
PARTS = ".parts"  # folder of shards beside a single file, until they are joined


@dataclass(frozen=True)
class EncodeJob:
    """Which model, whose embeddings, and where they go."""

    model: Location
    ratings: tuple[Location, ...]
    output: Location = setting(
        Path("embeddings.parquet"),
        "A file that ends in .parquet, or a folder or address for files in shards.",
        "--output",
        "-o",
    )
    items: bool = setting(False, "Embeddings of the items; needs no RATINGS.")
    vectors: Literal["embeddings", "scores"] = setting(
        "embeddings", "Embeddings, or vectors whose inner products are the model's scores, for a vector database."
    )
    size: int | None = setting(
        None, "Size of the factorization, for models of items x items weights; 200 by default there."
    )
    compress: Literal["none", "int8"] = setting("none", "int8: one byte an element, and a scale for each vector.")
    index: Path | None = setting(None, "Also write an index of nearest neighbors to this file.")
    shard_users: int = setting(65_536, "Rows in each file, before they are joined.")
    engine: Literal["local", "ray"] = setting("local", "This machine's cores, or a Ray cluster.")
    workers: int | None = setting(None, "Threads (local) or actors (ray); all that there are by default.")
    ray_address: str | None = setting(None, "Address of a running Ray cluster; one is started here by default.")
    resume: bool = setting(False, "Continue an interrupted job; the output is the same, byte for byte.")
    overwrite: bool = setting(False, "Replace an existing output.")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        _ = self.execution  # refuses what is out of range

    @property
    def execution(self) -> Execution:
        """How the library runs the job."""
        return Execution(self.engine, self.workers, self.ray_address, device=self.device)

    @property
    def single_file(self) -> bool:
        """Whether the output is one file."""
        return str(self.output).endswith(".parquet")

    @property
    def directory(self) -> Location:
        """Folder of the shards."""
        return as_location(f"{self.output}{PARTS}") if self.single_file else self.output


@dataclass(frozen=True)
class Encoded:
    """The file or folder, rows, what the vectors are, seconds, the account of RATINGS, who was left out, the index.

    resumed: the file was complete already. unknown: interactions with items that the model does not know.
    """

    output: Location
    rows: int
    left_out: int
    first_left_out: tuple[str, ...]
    vectors: Mapping[str, Any]
    seconds: float
    ledger: str
    unknown: int
    resumed: bool
    index: IndexQuality | None


def run(job: EncodeJob) -> Encoded:
    """Write the embeddings. What can be refused is refused before the data are read."""
    refuse_existing_output(job)
    saved = load_model(job.model, job.device)
    refuse_model(job, saved)
    interactions, histories = make_histories(job, saved)
    targets = item_targets(saved) if histories is None else make_targets(histories, saved)
    plan = make_plan(job, saved, targets)
    started = time.perf_counter()
    resumed = job.resume and is_complete(job, plan)
    if not resumed:
        write(job, BatchJob(plan, saved, job.model, targets, ListRules(), job.execution, EncodingWriter))
    seconds = time.perf_counter() - started
    cold = targets.cold
    with written(job, plan) as files:
        vectors = about(files[0])
        index = None if job.index is None else write_index(job.index, files, vectors)
    return Encoded(
        output=job.output,
        rows=len(targets) - int(cold.sum()),
        left_out=int(cold.sum()),
        first_left_out=tuple(str(one) for one in targets.ids.filter(pa.array(cold))[: SHOWN + 1].to_pylist()),
        vectors=vectors,
        seconds=seconds,
        ledger="" if interactions is None else interactions.ledger.line(),
        unknown=0 if histories is None else histories.unknown,
        resumed=resumed,
        index=index,
    )


def refuse_existing_output(job: EncodeJob) -> None:
    """Raise ArtifactError where something is in the way, ConfigError where a package is missing."""
    if job.index is not None:
        require_index()
        if job.index.exists() and not (job.overwrite or job.resume):
            raise ArtifactError(f"{job.index} already exists: choose another place, or set overwrite.")
    if job.single_file and isinstance(job.output, Path) and job.output.is_dir():
        raise ArtifactError(f"Expected a file to write to, found the folder {job.output}: choose another place.")
    if job.single_file and not (job.overwrite or job.resume):
        parent, name = parent_of(job.output)
        if folder_at(parent).is_file(name):
            raise ArtifactError(f"{job.output} already exists: choose another place, or set overwrite.")
    refuse_output(job.directory, job.resume, job.overwrite)


def refuse_model(job: EncodeJob, saved: TrainedModel) -> None:
    """Raise UnsupportedError or ConfigError where the model has no such vectors; factorizations are made later."""
    if job.vectors == "scores":
        saved.model.item_scoring_vectors()
    elif saved.model.item_weights() is None:
        Embedder.of(saved.model, job.size)


def make_histories(job: EncodeJob, saved: TrainedModel) -> tuple[Interactions | None, UserItemMatrix | None]:
    """Read the ratings, and make histories of them; neither for embeddings of items."""
    if job.items:
        return None, None
    interactions = read_histories(saved, job.ratings, job.reading)
    return interactions, saved.to_matrix(interactions)


def make_plan(job: EncodeJob, saved: TrainedModel, targets: Targets) -> EncodingPlan:
    """Decide what the job will write."""
    return EncodingPlan(
        model=saved.digest,
        inputs=fingerprint(targets),
        users=len(targets),
        of="items" if job.items else "users",
        vectors=job.vectors,
        size=job.size,
        compress=job.compress,
        shard_users=job.shard_users,
        device=job.execution.device_type,
        tile=job.execution.tile,
    )


def is_complete(job: EncodeJob, plan: EncodingPlan) -> bool:
    """Whether a single file is there already, of this very job."""
    parent, name = parent_of(job.output)
    if not job.single_file or not folder_at(parent).is_file(name):
        return False
    with local_copy(job.output) as file:
        if about(file).get("plan_hash") != plan.hash:
            raise ArtifactError(
                f"{job.output} holds the output of another job (other model, histories or settings): choose another "
                "place, or overwrite it instead of resuming."
            )
    return True


def write(job: EncodeJob, batch: BatchJob[EncodingPlan]) -> None:
    """Write all shards, and join them where one file is asked for."""
    plan = batch.plan
    output = open_output(job.directory, plan, job.resume, job.overwrite)
    shards = write_shards(batch, output.location, job.execution.most_workers(plan.tile), output.finished)
    recorded = record_shards(output.location, plan, output.finished, shards)
    summaries = dict(watch(recorded, len(plan.shards), "encoding", "file"))
    for summary in summaries.values():
        summary.pop(WORKER_PEAK, None)  # of an actor: no property of the output
    facts = {"model": {"name": batch.saved.model.name, "digest": batch.saved.digest}}
    write_manifest(output.location, plan, summaries, facts)
    output.publish()
    if job.single_file:
        with activity(f"joining {plural(len(plan.shards), 'file')}"):
            join_shards(job.directory, plan, job.output)
        remove_output(job.directory)


@contextmanager
def written(job: EncodeJob, plan: EncodingPlan) -> Iterator[list[Path]]:
    """The Parquet files, on this machine."""
    with ExitStack() as copies:
        if job.single_file:
            yield [copies.enter_context(local_copy(job.output))]
        else:
            folder = folder_at(job.output)
            yield [copies.enter_context(folder.local(plan.files(shard)[0])) for shard in plan.shards]


def write_index(path: Path, files: Sequence[Path], vectors: Mapping[str, Any]) -> IndexQuality:
    """Write the index of nearest neighbors of the rows of the files, and measure it against exact search."""
    metric: Metric = "cosine" if vectors["vectors"] == "embeddings" else "inner product"
    every = np.concatenate([part for file in files for _, part in read_vectors(file)])
    with activity(f"indexing {plural(len(every), 'vector')}"):
        index = VectorIndex.build(every, metric)
    with activity("comparing with exact search"):
        quality = index.compare(every)
    index.save(path, {key: vectors[key] for key in ("model_digest", "of", "vectors")})
    return quality


@click.command("encode")
@click.argument("model", type=ModelType())
@click.argument("ratings", type=LocationType(), nargs=-1)
@options_from(EncodeJob)
def command(job: EncodeJob) -> None:
    """Write the embeddings of every user in RATINGS, or of every item, by the model directory MODEL.

    One row a user: user_id, embedding (a list of numbers), and deviation for a variational autoencoder.
    """
    if bool(job.ratings) == job.items:
        raise click.UsageError("Expected RATINGS, or --items without them.")
    notice = exit_notice(CLUSTER_LOST) if job.engine == "ray" else nullcontext()
    with resumable(lambda: resume_hint(job.directory), job.output), notice:
        found = run(job)
    report(found, job)


def resume_hint(directory: Location) -> str:
    """How many files are there, and how to continue after them; empty where the job has not begun."""
    try:
        folder = folder_at(directory)
        if not folder.is_file("plan.json"):
            return ""
        files = plural(len(folder.names(ENCODING_FOLDERS[0])), "file of embeddings is", "files of embeddings are")
    except StorageError:  # an object store that is away cannot be asked what it has
        return "When it is back, run the same command with --resume to continue after the files that are there."
    return f"{files} in {directory}: run the same command with --resume to continue after them."


def report(found: Encoded, job: EncodeJob) -> None:
    """Print what was written."""
    if as_json():
        print_json(asdict(found))
        return
    if found.ledger:
        say(found.ledger)
    if found.unknown:
        say(f"{plural(found.unknown, 'interaction is', 'interactions are')} with items that the model does not know")
    if found.left_out:
        users = plural(found.left_out, "user is", "users are")
        say(wrapped(f"{users} left out, without an item that the model knows: {listed(found.first_left_out, SHOWN)}"))
    what, size = found.vectors, found.vectors["size"]
    kind = "vector of scores" if what["vectors"] == "scores" else "embedding"
    kinds = "vectors of scores" if what["vectors"] == "scores" else "embeddings"
    if found.resumed:
        say("The file was complete already.")
    else:
        numbers = "bytes with a scale" if what["compress"] == "int8" else "numbers"
        say(f"{plural(found.rows, kind, kinds)} of {size} {numbers} in {found.seconds:.1f} s")
    if what["factorized"]:
        note = f"{what['model']} has weights of items x items: the embeddings are their truncated factorization."
        say(wrapped(note))
    say(f"{kinds.capitalize()}: {found.output}{'' if job.single_file else '/' + ENCODING_FOLDERS[0]}")
    if found.index is not None:
        say(wrapped(f"Index: {job.index} ({found.index})"))
