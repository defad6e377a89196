"""The whole road on the sample ratings: compare, train, score, recommend, all tracked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import click

from recsys.data.reading import read_interactions

from .cli.main import main
from .cli.options import options_from, setting
from .cli.output import WIDTH
from .cli.settings import TrackingOptions


def sample_folder(module: Path = Path(__file__)) -> Path:
    """The folder of the sample: in an installed package beside the jobs, in a checkout `data/sample`."""
    installed = module.parent / "sample"
    folder = installed if installed.is_dir() else module.parents[1] / "data" / "sample"
    here = Path.cwd()
    return folder.relative_to(here) if folder.is_relative_to(here) else folder


@dataclass(frozen=True)
class DemoJob:
    """Which ratings, and where the results go."""

    ratings: Path | None = setting(None, "Ratings to use instead of the sample.")
    titles: Path | None = setting(None, "Titles of their items.")
    output: Path = setting(Path("demo"), "Folder for the results.", "--output", "-o")
    tracking: TrackingOptions = field(default_factory=TrackingOptions)


def run(job: DemoJob) -> None:
    """Run the commands a person would type, telling what happens."""
    file = job.ratings or sample_folder() / "ratings.csv"
    titles = job.titles or (None if job.ratings else sample_folder() / "items.csv")
    ratings, model = str(file), str(job.output / "model")
    tracking = (*(() if job.tracking.track else ("--no-track",)), "--experiment", job.tracking.experiment)
    heading("1. Compare a variational autoencoder with matrix factorization and popularity")
    comparison = str(job.output / "comparison")
    recsys("compare", ratings, "-m", "popularity,als,vae", "-o", comparison, "--overwrite", *tracking)
    heading("2. Train one to keep")
    recsys("train", ratings, "-o", model, "--overwrite", *tracking)
    heading("3. Write the ten best items of every user")
    recsys("score", model, ratings, "-o", str(job.output / "lists"), "--overwrite", *tracking)
    heading("4. Look at three of them")
    for user in some_users(file):
        named = () if titles is None else ("--titles", str(titles))
        recsys("recommend", model, "--user", user, "--ratings", ratings, "-n", "5", *named)
        click.echo()
    heading("Where everything is")
    click.echo(f"Leaderboard  {comparison}/leaderboard.csv")
    click.echo(f"Model        {model}")
    click.echo(f"Lists        {job.output}/lists/recommendations")
    uri = job.tracking.open().uri
    if uri is not None:
        click.echo(f"Runs         mlflow ui --backend-store-uri {uri}")


def recsys(*words: str) -> None:
    """Run a command as if it were typed."""
    main.main(list(words), standalone_mode=False)


def some_users(ratings: Path, count: int = 3) -> list[str]:
    """A few users, from all over the file."""
    users = read_interactions(ratings).users
    return [str(user) for user in users.to_list()[:: max(1, len(users) // count)][:count]]


def heading(text: str) -> None:
    """A line that parts the steps."""
    click.echo(f"\n{click.style(text, bold=True)}\n{'─' * min(WIDTH, len(text))}")


@click.command("demo")
@options_from(DemoJob)
def command(job: DemoJob) -> None:
    """Run the whole road on the sample ratings."""
    run(job)
