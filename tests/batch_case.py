"""What the tests of batch outputs share: a small model, a job of ten users in five shards, and what it wrote."""

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

from recsys.artifacts import load_model, save_model
from recsys.batch.output import open_output, record_shards, write_manifest
from recsys.batch.plan import ScoringPlan
from recsys.batch.rules import ListRules
from recsys.batch.shards import ShardWriter, shard_inputs
from recsys.batch.targets import make_targets
from recsys.data.interactions import Vocabulary
from recsys.data.matrix import UserItemMatrix
from recsys.models import create_model
from recsys.models.trained import TrainedModel

USERS = [f"{number:03}" for number in range(10)]  # "007" must come back as "007"
ITEMS = ["a", "b", "c", "d", "e", "f"]
TAKEN = csr_matrix((np.random.default_rng(5).random((10, 6)) < 0.5).astype(np.float32))


def save_small(folder, name="ease", taken=TAKEN, users=USERS, items=ITEMS):
    settings = {"bpr": {"factors": 2, "iterations": 2}, "ease": {"l2": 1.0}}
    counts = np.asarray((taken != 0).sum(axis=0)).ravel()
    model = create_model(name, settings.get(name, {})).fit(taken)
    return load_model(
        save_model(folder, TrainedModel(model, Vocabulary.of(items), counts, Vocabulary.of(users))), device="cpu"
    )


def histories_of(taken=TAKEN, users=USERS, items=ITEMS):
    return UserItemMatrix(taken, Vocabulary.of(users), Vocabulary.of(items))


def job(saved, histories=None, **settings):
    """Plan and targets, five shards of two users where ten are scored."""
    targets = make_targets(histories or histories_of(), saved)
    return ScoringPlan(saved.digest, "inputs", len(targets), **{"n": 3, "shard_users": 2, **settings}), targets


def write(folder, saved, plan, targets, resume=False, overwrite=False, limit=None):
    """Run the job; `limit`: stop after so many new shards, as if it were killed there. Returns the manifest."""
    output = open_output(folder, plan, resume, overwrite)
    missing = [shard for shard in plan.shards if shard.name not in output.finished]
    written = map(ShardWriter(output.location, plan, saved, ListRules()), shard_inputs(targets, missing[:limit]))
    summaries = dict(record_shards(output.location, plan, output.finished, written))
    if limit is not None:
        return None
    manifest = write_manifest(output.location, plan, summaries, {})
    output.publish()
    return manifest


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


def lists(folder):
    return pd.read_parquet(folder / "recommendations")


def short_lists(folder):
    return pd.read_parquet(folder / "short_lists")
