"""Do items that a model puts near each other share genres? MovieLens-1M: `vae` beside `svd`, and the maps of both.

For each item with a genre: its 10 nearest items by the cosine of the embeddings. Accuracy: the genre that most of them
have is one of the item's. Similarity: shared genres / genres of either, mean over the ten. Intervals and differences:
bootstrap over items.

    python benchmarks/maps.py [--data DIR] [--cache DIR]
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from generated_users import VAE
from numpy.typing import NDArray
from table import flag_parser, kept, measured_on

from recsys.data.reading import ReadingOptions, read_groups, read_interactions
from recsys.evaluation.averages import Average
from recsys.latent.maps import MapSettings, map_items
from recsys.models import create_model
from recsys.models.embeddings import Embedder
from recsys.models.queries import nearest
from recsys.splitting import strong
from recsys.training.context import TrainingContext

K = 10
POPULAR = 100  # users


def genre_matrix(ids: Sequence[object], genres: Mapping[str, Sequence[str]]) -> NDArray[np.float64]:
    """Genres of the items, 0 or 1 (items, genres)."""
    names = sorted({name for own in genres.values() for name in own})
    return np.array([[name in genres.get(str(one), ()) for name in names] for one in ids], dtype=np.float64)


def agreement(vectors: torch.Tensor, own: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Accuracy and similarity of each item, (items,); NaN for items without a genre."""
    positions = nearest(vectors, np.arange(len(own)), K + 1)[0][:, 1:]
    votes = own[positions].sum(1)
    accuracy = own[np.arange(len(own)), votes.argmax(1)]
    shared = np.einsum("ig,ikg->ik", own, own[positions])
    either = np.maximum(own, own[positions].transpose(1, 0, 2)).sum(2).T
    similarity = (shared / np.maximum(either, 1)).mean(1)
    known = own.any(1)
    return np.where(known, accuracy, np.nan), np.where(known, similarity, np.nan)


def main() -> None:
    """Print the tables."""
    flags = flag_parser(__doc__ or "", Path(__file__).parent).parse_args()
    split = strong(read_interactions(flags.data / "ml-1m" / "ratings.csv", ReadingOptions(min_rating=4)))
    ids, counts = split.train.items.to_list(), split.train.item_counts
    own = genre_matrix(ids, read_groups(flags.data / "ml-1m" / "item_features.csv"))
    vae = kept(flags.cache / "generated_users" / "vae", create_model("vae", VAE), split.train, TrainingContext()).model
    models = {"vae": vae} | {
        f"svd, {size}": create_model("svd", {"factors": size}).fit(split.train.matrix) for size in (50, 200, 600)
    }
    vectors = {name: Embedder.of(model).items for name, model in models.items()}
    vectors["chance"] = torch.from_numpy(np.random.default_rng(0).standard_normal((len(ids), 50)))
    print(f"MovieLens-1M, {len(ids):,} items, {int(own.any(1).sum()):,} of them with genres; {measured_on()}\n")
    print(f"| embedding | size | accuracy | similarity | accuracy, {POPULAR}+ users | similarity, {POPULAR}+ users |")
    print("| --- | ---: | --- | --- | --- | --- |")
    found = {}
    for name, each in vectors.items():
        parts = agreement(each, own)
        known = [np.where(counts >= POPULAR, part, np.nan) for part in parts]
        found[name] = [Average.of(part) for part in (*parts, *known)]
        cells = " | ".join(str(average.interval(0)) for average in found[name])
        print(f"| {name} | {each.shape[1]} | {cells} |", flush=True)
    print(f"\nAlways the most frequent genre: accuracy {own.sum(0).max() / own.any(1).sum():.4f}\n")
    for other in (name for name in found if name.startswith("svd")):
        gaps = [str(mine.difference(its)) for mine, its in zip(found["vae"], found[other], strict=True)]
        print(f"vae - {other}: {', '.join(gaps)}", flush=True)
    print("\n| map | neighbors kept | by chance | trustworthiness |\n| --- | ---: | ---: | ---: |")
    for method in ("pca", "tsne"):
        trust = map_items(Embedder.of(vae), counts, MapSettings(method)).trust
        print(f"| {method} | {trust.kept:.1%} | {trust.by_chance:.1%} | {trust.trustworthiness:.3f} |", flush=True)


if __name__ == "__main__":
    main()
