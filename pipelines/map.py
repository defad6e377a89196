"""`recsys map`: draw the items of a model, or users, on a plane: an HTML page or a picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import click
import numpy as np
from scipy.sparse import csr_matrix

from recsys.artifacts import load_model
from recsys.data.reading import ReadingOptions, read_groups, read_titles
from recsys.errors import ArtifactError, ConfigError
from recsys.latent.clusters import MOST, typical_items, typical_points
from recsys.latent.maps import MOST_POINTS, LatentMap, MapSettings, map_items, map_users
from recsys.latent.projection import Trust
from recsys.models.embeddings import Embedder
from recsys.models.trained import TrainedModel
from recsys.reporting.map_page import MapTexts, judge, render_map
from recsys.reporting.plotting import latent_map
from recsys.system.files import new_file
from recsys.system.packages import versions
from recsys.system.storage import Location
from recsys.system.text import plural

from .cli.models import ModelType
from .cli.options import SEED, options_from, setting
from .cli.output import as_json, print_json, say, shorten, table, wrapped
from .cli.progress import activity
from .cli.reading import read_histories
from .cli.unknown import UnknownIds, find_unknown, note_unknown

FORMATS = (".html", ".png")


@dataclass(frozen=True)
class MapJob:
    """What is drawn, how, and where the map goes."""

    model: Location
    titles: Path | None = setting(None, "File of item titles.")
    groups: Path | None = setting(None, "File of item_id, group (a genre, a brand); several in one field as A|B.")
    users: Location | None = setting(None, "Ratings: draw their users instead of the items.")
    method: Literal["pca", "tsne"] = setting("tsne", "Projection; pca takes seconds and keeps few neighbors.")
    clusters: int | None = setting(None, f"Number of clusters, 1 to {MOST}; by the number of points by default.")
    max_points: int = setting(MOST_POINTS, "Maximum number of points; the most popular items, the most active users.")
    output: Path = setting(Path("map.html"), "File to write: .html or .png.", "--output", "-o")
    overwrite: bool = setting(False, "Replace an existing file.")
    seed: int = setting(0, "Seed of clusters and of t-SNE.", kind=SEED)
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.")
    reading: ReadingOptions = field(default_factory=ReadingOptions)

    def __post_init__(self) -> None:
        if self.output.suffix.lower() not in FORMATS:
            raise ConfigError(f"Expected an output that ends in {' or '.join(FORMATS)}, found {self.output}.")
        if self.max_points < 3:
            raise ConfigError(f"Expected max_points of at least 3, found {self.max_points}.")
        if self.users is not None and self.groups is not None:
            raise ConfigError("Expected --groups FILE without --users RATINGS: groups are those of items.")

    @property
    def settings(self) -> MapSettings:
        """How the library draws."""
        return MapSettings(self.method, self.clusters, self.max_points, self.seed)


@dataclass(frozen=True)
class Mapped:
    """The file, how many points it has and how many were left out, their clusters (titles, size), how far to trust it,
    and ids that the model does not know."""

    file: Path
    noun: str
    points: int
    left_out: int
    clusters: Sequence[Mapping[str, Any]]
    trust: Trust
    verdict: Sequence[str]
    unknown: Mapping[str, UnknownIds]


def run(job: MapJob) -> Mapped:
    """Draw the map. What can be refused is refused before the work."""
    if job.output.exists() and not job.overwrite:
        raise ArtifactError(f"{job.output} already exists: choose another place, or set overwrite.")
    titles = {} if job.titles is None else read_titles(job.titles)
    groups = None if job.groups is None else read_groups(job.groups)
    saved = load_model(job.model, job.device)
    files: dict[str, Mapping[str, object]] = {"titles": titles, "groups": groups or {}}
    unknown = {name: find_unknown(list(ids), saved.items) for name, ids in files.items() if ids}
    drawn, texts = draw_items(job, saved, titles, groups) if job.users is None else draw_users(job, saved, titles)
    with activity(f"writing {job.output}"), new_file(job.output) as file:
        if job.output.suffix.lower() == ".png":
            latent_map(drawn, texts).savefig(file, format="png")
        else:
            file.write_text(render_map(drawn, texts, versions().get("recsys", "")), encoding="utf-8")
    clusters = [
        {"titles": list(named), "points": int(size)}
        for named, size in zip(texts.clusters, drawn.cluster_sizes, strict=True)
    ]
    verdict = judge(drawn.trust, texts.noun)
    return Mapped(
        job.output,
        texts.noun,
        len(drawn.rows),
        drawn.left_out,
        clusters,
        drawn.trust,
        (verdict.title, verdict.measured),
        unknown,
    )


def draw_items(
    job: MapJob, saved: TrainedModel, titles: Mapping[str, str], groups: Mapping[str, Sequence[str]] | None
) -> tuple[LatentMap, MapTexts]:
    """The map of the items, and what its points are called."""
    with phases("drawing items") as show:
        drawn = map_items(Embedder.of(saved.model), saved.item_counts, job.settings, show)
    ids = [str(one) for one in saved.items.take(drawn.rows).to_pylist()]
    names = [titles.get(one) or one for one in ids]
    typical = typical_points(drawn.vectors, drawn.clusters, drawn.popularity)
    clusters = [[names[point] for point in points] for points in typical]
    own = None if groups is None else [groups.get(one, ()) for one in ids]
    return drawn, MapTexts(names, clusters, ids, own, False, saved.model.name, drawn.vectors.shape[1])


def draw_users(job: MapJob, saved: TrainedModel, titles: Mapping[str, str]) -> tuple[LatentMap, MapTexts]:
    """The map of the users of a file; their clusters are named by items that others have less often."""
    assert job.users is not None
    data = saved.to_matrix(read_histories(saved, job.users, job.reading))
    trained = None if saved.users is None else saved.users.positions(data.users.ids).astype(np.int64)
    with phases("drawing users") as show:
        drawn = map_users(Embedder.of(saved.model), data.matrix, job.settings, show, trained)
    ids = [str(one) for one in data.users.take(drawn.rows).to_pylist()]
    clusters = [
        [titles.get(one) or one for one in map(str, saved.items.take(items).to_pylist())]
        for items in typical_items(csr_matrix(data.matrix[drawn.rows]), drawn.clusters)
    ]
    return drawn, MapTexts(ids, clusters, ids, None, True, saved.model.name, drawn.vectors.shape[1])


@contextmanager
def phases(label: str) -> Iterator[Callable[[str], None]]:
    """An activity with a function that says which part of it begins."""
    with activity(label) as working:

        def show(phase: str) -> None:
            working.state = phase

        yield show


@click.command("map")
@click.argument("model", type=ModelType())
@options_from(MapJob)
def command(job: MapJob) -> None:
    """Draw the items of the model directory MODEL, or users, as points on a plane.

    Near points are alike, as far as the map can be trusted, which it says. The page opens offline in any browser.
    """
    found = run(job)
    if as_json():
        print_json(asdict(found))
        return
    note_unknown(found.unknown)
    say(clusters_table(found))
    left = f"; {found.left_out:,} left out (--max-points, or without an embedding)" if found.left_out else ""
    say(f"\n{wrapped(f'{plural(found.points, found.noun)} drawn{left}.')}")
    say(wrapped(" ".join(found.verdict)))
    say(f"Map: {found.file}")


def clusters_table(found: Mapped) -> str:
    """The clusters, largest first, by their typical titles."""
    rows = [
        (number, shorten("; ".join(shorten(title, 30) for title in cluster["titles"]), 60), f"{cluster['points']:,}")
        for number, cluster in enumerate(found.clusters, start=1)
    ]
    return table(rows, ("", "cluster", f"{found.noun}s"), left=2)
