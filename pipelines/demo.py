"""`recsys demo`: the end-to-end demo on the sample ratings: compare, train, score, recommend, all tracked."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

import click

from recsys.data.reading import read_interactions
from recsys.system.text import mask_secrets

from .cli.main import main
from .cli.options import options_from, setting
from .cli.output import WIDTH, program, say
from .cli.settings import TrackingOptions

MODELS = ("popularity", "als", "ials", "ease", "edlae", "vae")
MINUTES = "0.05"  # of trials for each model


def sample_folder(module: Path = Path(__file__)) -> Path:
    """The folder of the sample: in an installed package beside the jobs, in a checkout `data/sample`."""
    installed = module.parent / "sample"
    folder = installed if installed.is_dir() else module.parents[1] / "data" / "sample"
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


@dataclass(frozen=True)
class DemoJob:
    """Which ratings to use, and where the results go."""

    ratings: Path | None = setting(None, "Ratings to use instead of the sample.")
    titles: Path | None = setting(None, "Titles of their items.")
    output: Path = setting(Path("demo"), "Folder for the results.", "--output", "-o")
    tracking: TrackingOptions = field(default_factory=TrackingOptions)


def run(job: DemoJob) -> None:
    """Run the commands that a person would type."""
    file = job.ratings or sample_folder() / "ratings.csv"
    titles = job.titles or (None if job.ratings else sample_folder() / "items.csv")
    ratings, model, comparison = str(file), str(job.output / "model"), str(job.output / "comparison")
    tracking = (*(() if job.tracking.track else ("--no-track",)), "--experiment", job.tracking.experiment)
    heading("1. Compare models, each tuned for a few seconds")
    recsys("compare", ratings, *models_and_budget(), "-o", comparison, "--overwrite", *tracking)
    heading("2. Train a model to keep, chosen by the size of the data")
    recsys("train", ratings, "-o", model, "--overwrite", *tracking)
    heading("3. Write the ten best items of every user")
    recsys("score", model, ratings, "-o", str(job.output / "lists"), "--overwrite", *tracking)
    heading("4. Look at the lists of three users")
    for user in some_users(file):
        named = () if titles is None else ("--titles", str(titles))
        recsys("recommend", model, "--user", user, "--ratings", ratings, "-n", "5", *named)
    heading("Where the results are")
    say(f"Report       {comparison}/report.html")
    say(f"Model        {model}")
    say(f"Lists        {job.output}/lists/recommendations")
    uri = job.tracking.open().uri
    if uri is not None:
        say(f"Runs         mlflow ui --backend-store-uri {mask_secrets(uri)}")


def models_and_budget() -> Sequence[str]:
    """What `compare` is given: models that can be fitted here, and a budget where the search is installed."""
    models = [name for name in MODELS if name != "als" or find_spec("implicit")]
    budget = ("--tune-minutes", MINUTES) if find_spec("optuna") else ()
    return ("-m", ",".join(models), *budget)


def recsys(*words: str) -> None:
    """Run a command as if it were typed."""
    say(f"\n$ {program()} {shlex.join(words)}\n")
    main.main(list(words), prog_name=program(), standalone_mode=False)


def some_users(ratings: Path, count: int = 3) -> list[str]:
    """A few users, from different parts of the file."""
    users = read_interactions(ratings).users
    return [str(user) for user in users.to_list()[:: max(1, len(users) // count)][:count]]


def heading(text: str) -> None:
    """A line that separates the steps."""
    say(f"\n{text}", style="bold")
    say("─" * min(WIDTH, len(text)))


@click.command("demo")
@options_from(DemoJob)
def command(job: DemoJob) -> None:
    """Run the end-to-end demo on the sample ratings: compare, train, score and recommend."""
    run(job)
