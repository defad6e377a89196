"""`recsys download NAME`: a public data set, verified against its publisher's checksum."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

import click
from tqdm import tqdm

from recsys.data.download import DATA_SETS, MOVIELENS_URL, DataSet, archive_url, download
from recsys.system.disk import require_writable

from .cli.options import options_from, setting
from .cli.output import as_json, print_json, program, say


@dataclass(frozen=True)
class DownloadJob:
    """The data set to download, and its folder."""

    name: str
    output: Path | None = setting(None, "Folder of the data set; data/raw/NAME by default.", "-o", "--output")
    overwrite: bool = setting(False, "Replace an earlier download.")
    base_url: str = setting(MOVIELENS_URL, "Address of a mirror that holds NAME.zip and NAME.zip.md5.")

    @property
    def data(self) -> DataSet:
        """The description of the data set."""
        return DATA_SETS[self.name]

    @property
    def target(self) -> Path:
        """The folder to write."""
        return self.output or Path("data/raw") / self.name


def run(job: DownloadJob) -> Path:
    """Download, verify and unpack the data set; return the path of its ratings file."""
    require_writable(job.target)
    with tqdm(desc=job.name, unit="B", unit_scale=True, disable=None) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        return download(job.data, job.target, job.base_url, job.overwrite, advance)


@click.command("download")
@click.argument("name", metavar="NAME", type=click.Choice(list(DATA_SETS)))
@options_from(DownloadJob)
def command(job: DownloadJob) -> None:
    """Download the public data set NAME, verify its checksum and unpack it.

    NAME is ml-latest-small, ml-100k, ml-1m, ml-20m, ml-25m or ml-32m: MovieLens, by number of ratings.
    """
    quiet = as_json()
    if not quiet:
        _announce(job)
    ratings = run(job)
    if quiet:
        print_json({"name": job.name, "ratings": str(ratings), "license": job.data.license})
    else:
        say(f"ratings  {ratings}, verified against the publisher's MD5 checksum")
        say(f"next     {program()} check {shlex.quote(str(ratings))}")


def _announce(job: DownloadJob) -> None:
    data = job.data
    say(f"{data.name}: {data.rows:,} ratings of {data.items:,} films by {data.users:,} users")
    say(f"from     {archive_url(data, job.base_url)}")
    say(f"license  {data.license}")
    say(f"         full text in the README of the data set, in {job.target}")
