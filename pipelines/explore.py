"""`recsys explore`: write the page of a model as one file that opens offline: choose titles, see the list change."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import click

from recsys.artifacts import load_model
from recsys.data.reading import ReadingOptions, read_titles
from recsys.errors import ArtifactError, ConfigError
from recsys.models.trained import TrainedModel
from recsys.serving.explorer import (
    Explorer,
    explorer_page,
    made_up_histories,
    make_explorer,
    measure_overlap,
    some_histories,
)
from recsys.system.files import write_text
from recsys.system.storage import Location
from recsys.system.text import plural

from .cli.models import ModelType
from .cli.options import SEED, options_from, setting
from .cli.output import as_json, print_json, say, wrapped
from .cli.progress import activity
from .cli.reading import read_histories
from .cli.unknown import find_unknown, note_unknown

USERS = 500  # whose lists are compared


@dataclass(frozen=True)
class ExploreJob:
    """Which model, and where its page goes."""

    model: Location
    titles: Path | None = setting(None, "File of item titles.")
    ratings: Location | None = setting(
        None, "Ratings whose users say how far the page agrees with the model; made-up histories by default."
    )
    output: Path = setting(Path("explorer.html"), "File to write.", "--output", "-o")
    overwrite: bool = setting(False, "Replace an existing file.")
    seed: int = setting(0, "Seed of the users who are compared.", kind=SEED)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        if self.output.suffix.lower() != ".html":
            raise ConfigError(f"Expected an output that ends in .html, found {self.output}.")


@dataclass(frozen=True)
class Explored:
    """The file, its size in bytes, how many items and weights of each it has, and how far its lists agree."""

    file: Path
    bytes: int
    items: int
    weights: int
    overlap: float
    note: str


def run(job: ExploreJob) -> Explored:
    """Make the page."""
    if job.output.exists() and not job.overwrite:
        raise ArtifactError(f"{job.output} exists: choose another output, or overwrite=True.")
    titles = {} if job.titles is None else read_titles(job.titles)
    saved = load_model(job.model, job.device)
    if titles:
        note_unknown({"titles": find_unknown(titles, saved.items)})
    with activity("taking the strongest weights"):
        explorer = make_explorer(saved)
    overlap, users = compare(job, saved, explorer)
    text = note(saved, explorer, overlap, users)
    page = explorer_page(saved, explorer, titles, text)
    write_text(job.output, page)
    count, weights = explorer.columns.shape
    return Explored(job.output, len(page.encode()), count, weights, overlap, text)


def compare(job: ExploreJob, saved: TrainedModel, explorer: Explorer) -> tuple[float, str]:
    """How far the lists of the page agree with those of the model, and for whom."""
    if job.ratings is None:
        histories, users = made_up_histories(explorer, len(saved.items), USERS, job.seed), "made-up histories"
    else:
        whole = saved.to_matrix(read_histories(saved, job.ratings, job.reading)).matrix
        histories, users = some_histories(whole, USERS, job.seed), "users of the ratings"
    with activity("comparing lists"):
        return measure_overlap(saved, explorer, histories), f"{histories.shape[0]:,} {users}"


def note(saved: TrainedModel, explorer: Explorer, overlap: float, users: str) -> str:
    """What the page says of its lists."""
    left_out = len(saved.items) - len(explorer.positions)
    rest = f" {plural(left_out, 'unpopular item')} left out." if left_out else ""
    return f"Works without a network. Lists of 10 share {overlap:.0%} of their items with the model's ({users}).{rest}"


@click.command("explore")
@click.argument("model", type=ModelType())
@options_from(ExploreJob)
def command(job: ExploreJob) -> None:
    """Write a page of the model directory MODEL that opens offline: choose titles, see the list and its reasons."""
    made = run(job)
    if as_json():
        print_json(asdict(made))
        return
    say(wrapped(made.note))
    items = f"{plural(made.items, 'item')}, {plural(made.weights, 'weight')} each"
    say(f"Page: {made.file} ({made.bytes / 1e6:.1f} MB; {items})")
