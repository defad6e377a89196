"""The whole road on the sample ratings: compare, train, score, recommend, all tracked."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import click

from recsys.reading import read_interactions

from . import compare, recommend, score, train
from .options import options_from, setting
from .output import WIDTH
from .settings import TrackingOptions


@dataclass(frozen=True)
class DemoJob:
    """Which ratings, and where the results go."""

    ratings: Path = setting(Path("data/sample/ratings.csv"), "Ratings to use.")
    titles: Path = setting(Path("data/sample/items.csv"), "Titles of their items.")
    output: Path = setting(Path("demo"), "Folder for the results.", "--output", "-o")
    tracking: TrackingOptions = field(default_factory=TrackingOptions)


def run(job: DemoJob) -> None:
    """Do the job, telling what happens."""
    heading("1. Compare a variational autoencoder with matrix factorisation and popularity")
    comparison = compare.CompareJob(
        (job.ratings,), job.output / "comparison", "popularity,als,vae", overwrite=True, tracking=job.tracking
    )
    compare.report(compare.run(comparison))
    heading("2. Train one to keep")
    training = train.TrainJob((job.ratings,), job.output / "model", overwrite=True, tracking=job.tracking)
    train.report(train.run(training), training)
    heading("3. Write the ten best items of every user")
    model = job.output / "model"
    scoring = score.ScoreJob(model, (job.ratings,), job.output / "lists", overwrite=True, tracking=job.tracking)
    score.report(score.run(scoring), scoring)
    heading("4. Look at three of them")
    for user in some_users(job.ratings):
        one = recommend.RecommendJob(model, user, job.ratings, n=5, titles=job.titles)
        click.echo(f"{recommend.text(recommend.run(one), f'User {user} ')}\n")
    heading("Where everything is")
    click.echo(f"Leaderboard  {job.output}/comparison/leaderboard.csv")
    click.echo(f"Model        {model}")
    click.echo(f"Lists        {job.output}/lists/recommendations")
    uri = job.tracking.open().uri
    if uri is not None:
        click.echo(f"Runs         mlflow ui --backend-store-uri {uri}")


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
