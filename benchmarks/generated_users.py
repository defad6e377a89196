"""Generated users of MovieLens-1M: what a model learns from them, how like real ones they are, whether they are copies.

A VAE is fitted on the training users (ratings of 4 and 5; a tenth of the users validate, a tenth test). Users are drawn
from it like the training users. EASE is then trained on real and on generated users; its l2 is chosen for each of them
on the same real validation users, and the test users are read once.

    python benchmarks/generated_users.py [--data DIR] [--cache DIR]
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix, vstack
from table import flag_parser, kept, measured_on

from recsys.data.reading import ReadingOptions, read_interactions
from recsys.evaluation.evaluate import Evaluation, evaluate
from recsys.evaluation.generated import check_membership, compare_evaluations, compare_users
from recsys.latent.generate import Source
from recsys.models import create_model
from recsys.splitting import strong
from recsys.splitting.holdout import Split
from recsys.training.context import TrainingContext

VAE = {  # those of accuracy/ml1m_strong.toml, chosen on validation users
    "hidden": 600,
    "latent": 200,
    "gamma": 0.002,
    "anneal": 0,
    "smoothing": 0.1,
    "average": 0.8,
    "learning_rate": 2e-3,
    "epochs": 40,
}
L2 = (100.0, 300.0, 1000.0, 3000.0)
METRIC = "ndcg@100"
PLANTED = 0.02  # share of generated users who are replaced by real ones


def trained(split: Split, users: csr_matrix) -> tuple[Evaluation, float]:
    """EASE trained on some users: its evaluation on the test users, and the l2 that was best in validation."""
    assert split.validation is not None and split.test is not None
    models = {l2: create_model("ease", {"l2": l2}).fit(users) for l2 in L2}
    found = {l2: evaluate(model.score, split.validation, (METRIC,)).means()[METRIC] for l2, model in models.items()}
    best = max(found, key=lambda l2: found[l2])
    return evaluate(models[best].score, split.test, (METRIC,)), best


def with_copies(generated: csr_matrix, real: csr_matrix) -> csr_matrix:
    """The generated users, the first of them replaced by real ones."""
    count = round(PLANTED * generated.shape[0])
    rows = np.random.default_rng(0).choice(real.shape[0], count, replace=False)
    return csr_matrix(vstack([real[rows], generated[count:]]))


def main() -> None:
    """Print the tables."""
    flags = flag_parser(__doc__ or "", Path(__file__).parent).parse_args()
    split = strong(read_interactions(flags.data / "ml-1m" / "ratings.csv", ReadingOptions(min_rating=4)))
    real = split.train.matrix
    model = kept(
        flags.cache / "generated_users" / "vae", create_model("vae", VAE), split.train, TrainingContext()
    ).model
    count = real.shape[0]
    print(f"MovieLens-1M: {count:,} training users, {len(split.train.items):,} items; {measured_on()}\n")
    draws = {
        "fitted codes": (Source.fitted(model, real), count),
        "fitted codes, four times as many": (Source.fitted(model, real), 4 * count),
        "prior": (Source.prior(model, real), count),
    }
    reference, l2 = trained(split, real)
    print(f"| EASE trained on | l2 | {METRIC} | of the real one, 95 % interval |")
    print("| --- | ---: | ---: | --- |")
    print(f"| real users | {l2:g} | {reference.means()[METRIC]:.4f} | 100 % |")
    drawn = {}
    for name, (source, users) in draws.items():
        drawn[name] = csr_matrix(vstack(list(source.draw(users, seed=0))))
        found, l2 = trained(split, drawn[name])
        ratio = compare_evaluations("ease", METRIC, reference, found)
        interval = f"{ratio.ratio:.1%} ({ratio.low:.1%} to {ratio.high:.1%})"
        print(f"| {name} | {l2:g} | {ratio.generated:.4f} | {interval} |", flush=True)
    print("\n| users | popularity | pairs | catalog | mean items | unusually near | real users | copies | check |")
    print("| --- | ---: | ---: | ---: | ---: | --- | ---: | ---: | --- |")
    for name, users in {**drawn, f"{PLANTED:.0%} real users planted": with_copies(drawn["fitted codes"], real)}.items():
        like, check = compare_users(real, users), check_membership(real, users)
        near = f"{check.generated:.2%} ({check.low:.2%} to {check.high:.2%})"
        what = f"{like.popularity:.3f} | {like.together:.3f} | {like.catalog[1]:.1%} | {like.mean_items[1]:.1f}"
        verdict = "passed" if check.passed else "FAILED"
        print(f"| {name} | {what} | {near} | {check.real:.2%} | {check.copies} | {verdict} |", flush=True)


if __name__ == "__main__":
    main()
