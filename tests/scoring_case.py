"""What the tests of batch scoring share: a saved model, ratings on disk, and the bytes of an output."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import torch

from pipelines.cli.settings import TrackingOptions
from pipelines.score import Choice, ScoreJob, run
from recsys.artifacts import save_model
from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.data.reading import read_interactions
from recsys.models import create_model
from recsys.models.trained import TrainedModel


def write_ratings(path: Path, rows: dict[str, str]) -> Path:
    """`{"ann": "abc"}`: ann took the items a, b and c."""
    lines = [f"{user},{item}" for user, items in rows.items() for item in items]
    path.write_text("\n".join(["user_id,item_id", *lines]) + "\n")
    return path


def save_popularity(folder: Path, ratings: Path) -> Path:
    """A model whose scores are counts anybody can check."""
    data = UserItemMatrix.from_interactions(read_interactions(ratings))
    model = create_model("popularity").fit(data.matrix)
    return save_model(folder / "model", TrainedModel(model, data.items, data.item_counts))


def save_vae(folder: Path, users: int = 700, items: int = 3000) -> tuple[Path, Path]:
    """An untrained VAE, whose scores have bits to lose, and ratings of more users than fill a tile."""
    rng = np.random.default_rng(0)
    vae = create_model("vae", {"hidden": 33, "latent": 9})
    torch.manual_seed(0)
    vae.untrained(items)
    names = Vocabulary.of(f"i{i}" for i in range(items))
    save_model(folder / "model", TrainedModel(vae, names, rng.integers(1, 99, items)))
    rows = sorted({(f"u{u}", f"i{i}") for u in range(users) for i in rng.integers(0, items, 1 + u % 9)})
    (folder / "ratings.csv").write_text("\n".join(["user_id,item_id", *map(",".join, rows)]) + "\n")
    return folder / "model", folder / "ratings.csv"


def score(model: Path, ratings: Path | None, output: Path, **settings):
    """Run the job, untracked; settings of any of its parts by name."""
    mine = {field.name for field in dataclasses.fields(Choice)} & set(settings)
    choice = Choice(**{name: settings.pop(name) for name in mine})
    job = ScoreJob(
        model,
        () if ratings is None else (ratings,),
        output,
        choice=choice,
        tracking=TrackingOptions(track=False),
        **{"device": "cpu", **settings},
    )
    return run(job)


def bytes_of(output: Path) -> dict[str, bytes]:
    """Content of every file of lists by name."""
    return {str(file.relative_to(output)): file.read_bytes() for file in sorted(output.glob("*/part-*"))}


def lists_of(output: Path) -> dict[str, str]:
    """`{"ann": "cd"}`: ann's list is c, then d."""
    found: dict[str, str] = {}
    for file in sorted(output.glob("recommendations/part-*.parquet")):
        table = pq.read_table(file)
        for target, item in zip(table.column(0).to_pylist(), table["item_id"].to_pylist(), strict=True):
            found[target] = found.get(target, "") + item
    return found


def short_of(output: Path) -> dict[str, tuple[int, str]]:
    """`{"ann": (2, "why")}`: ann's list has two items only."""
    rows = [row for file in sorted(output.glob("short_lists/part-*")) for row in pq.read_table(file).to_pylist()]
    return {next(iter(row.values())): (row["items"], row["reason"]) for row in rows}
