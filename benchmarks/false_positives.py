"""How often does the significance test claim a difference that is not there, and find one that is?

A model is compared with itself under another seed, on a new random split each time: at the 5 % level about one
comparison in twenty may claim a difference. Then the metric of some users is set to 0, and the loss should be found.

    python benchmarks/false_positives.py [RATINGS] [COMPARISONS]
"""

import sys
from pathlib import Path

import numpy as np

from recsys.data.reading import read_interactions
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.significance import LEVEL, effect_size, sign_flip
from recsys.models import create_model
from recsys.splitting.by_user import strong
from recsys.training.context import TrainingContext

METRIC = "ndcg@10"
SETTINGS = {"latent": 20, "epochs": 20, "learning_rate": 0.01}
PLANTED = 0.1  # share of the users whose value is set to 0


def values(split, seed):
    """The metric of every test user, for a model fitted under the seed."""
    model = create_model("dae", SETTINGS).fit(split.train.matrix, TrainingContext(seed))
    return evaluate(model.score, split.test, (METRIC,)).values[METRIC]


def main(ratings: str = "data/sample/ratings.csv", comparisons: int | str = 200) -> None:
    """Run the comparisons and print how often each claim was made."""
    interactions = read_interactions(Path(ratings))
    false, found, sizes = 0, 0, []
    for number in range(int(comparisons)):
        split = strong(interactions, share=0.2, seed=number)
        first, second = values(split, 2 * number), values(split, 2 * number + 1)
        false += sign_flip(first - second, number) <= LEVEL
        spoiled = second * np.where(np.random.default_rng(number).random(len(second)) < PLANTED, 0, 1)
        found += sign_flip(first - spoiled, number) <= LEVEL
        sizes.append(effect_size(first - second))
    users = len(split.test)
    print(f"{comparisons} comparisons of a dae with itself, {users} test users each, {METRIC}")
    print(f"a difference claimed: {false} ({false / int(comparisons):.1%}); at most 8 % is fine")
    print(f"standard deviation of the effect size: {np.std(sizes):.3f}; {1 / np.sqrt(users):.3f} by chance alone")
    print(f"a loss of {PLANTED:.0%} of the value found: {found / int(comparisons):.1%} of the time")


if __name__ == "__main__":
    main(*sys.argv[1:])
