"""`recsys download NAME`: a public data set, verified against its publisher's checksum."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import click
from tqdm import tqdm

from recsys.data.download import DATA_SETS, MOVIELENS_URL, DataSet, archive_url, download

from .cli.options import options_from, setting
from .cli.output import as_json


@dataclass(frozen=True)
class DownloadJob:
    """Which data set goes where."""

    name: str
    output: Path | None = setting(None, "Folder of the data set; data/raw/NAME unless given.", "-o", "--output")
    overwrite: bool = setting(False, "Replace an earlier download.")
    base_url: str = setting(MOVIELENS_URL, "Address of a mirror that holds NAME.zip and NAME.zip.md5.")

    @property
    def data(self) -> DataSet:
        """The data set of that name."""
        return DATA_SETS[self.name]

    @property
    def target(self) -> Path:
        """The folder to be."""
        return self.output or Path("data/raw") / self.name


def run(job: DownloadJob) -> Path:
    """Fetch, verify and unpack; the path of the ratings file. A progress bar on a terminal, silence elsewhere."""
    with tqdm(desc=job.name, unit="B", unit_scale=True, disable=None) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        return download(job.data, job.target, job.base_url, job.overwrite, advance)


@click.command("download")
@click.argument("name", metavar="NAME", type=click.Choice(list(DATA_SETS)))
@options_from(DownloadJob)
def command(job: DownloadJob) -> None:
    """Fetch the public data set NAME, verify its checksum and unpack it.

    NAME is ml-latest-small, ml-100k, ml-1m, ml-20m, ml-25m or ml-32m: MovieLens, by number of ratings.
    """
    quiet = as_json()
    if not quiet:
        _announce(job)
    ratings = run(job)
    if quiet:
        click.echo(json.dumps({"name": job.name, "ratings": str(ratings), "license": job.data.license}))
    else:
        click.echo(f"ratings  {ratings}, verified against the publisher's md5")
        click.echo(f"next     recsys check {ratings}")


def _announce(job: DownloadJob) -> None:
    data = job.data
    click.echo(f"{data.name}: {data.rows:,} ratings by {data.users:,} users of {data.items:,} films")
    click.echo(f"from     {archive_url(data, job.base_url)}")
    click.echo(f"license  {data.license}")
    click.echo(f"         in full: the README that comes with it, in {job.target}")
