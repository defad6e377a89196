"""Memory of a batch job: what is expected, and how a limit reduces the workers."""

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix
from scoring_case import save_popularity, save_vae, score, write_ratings

from pipelines.score import ScoreJob, make_batch, make_histories
from recsys.artifacts import load_model
from recsys.batch.memory import parse_size, plan_memory, shard_bytes
from recsys.batch.plan import ScoringPlan
from recsys.batch.targets import Targets
from recsys.errors import ConfigError


@pytest.fixture
def case(tmp_path):
    ratings = write_ratings(tmp_path / "ratings.csv", {"ann": "abcd", "bob": "abc", "cat": "ab", "dan": "a"})
    return save_popularity(tmp_path, ratings), ratings, tmp_path / "lists"


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    return save_vae(tmp_path_factory.mktemp("vae"))


def test_memory_is_stated_and_a_limit_too_small_is_refused_before_any_work(case):
    with pytest.raises(ConfigError, match="Expected max_memory of at least"):
        score(*case, max_memory="1MB")
    assert not case[2].exists()
    memory = score(*case, max_memory="64GB").manifest["memory"]
    assert memory["limit_bytes"] == 64_000_000_000


def planned_memory(vae, **settings):
    """Workers, expected bytes and scope of the limit of a job that is planned only, by a program of 1 GB."""
    job = ScoreJob(vae[0], (vae[1],), n=5, shard_users=100, device="cpu", **settings)
    saved = load_model(job.model, "cpu")
    memory = plan_memory(make_batch(job, saved, make_histories(job, saved)[1]), 10**9)
    return memory.workers, memory.expected_bytes, memory.limit_is_for


def test_on_ray_the_memory_of_every_actor_counts(vae):
    one, two, three = (planned_memory(vae, engine="ray", workers=workers) for workers in (1, 2, 3))
    assert two[1] - one[1] > 10**9 and two[2] == "the command and its actors"
    limit = f"{(two[1] + three[1]) / 2e9}GB"
    assert planned_memory(vae, engine="ray", workers=3, max_memory=limit)[0] == 2


def test_on_a_cluster_the_limit_is_for_each_actor(vae):
    cluster = {"engine": "ray", "ray_address": "10.0.0.1:6379"}
    assert planned_memory(vae, **cluster)[0] is None  # as many as the cluster has
    assert planned_memory(vae, **cluster, workers=8)[1:] == planned_memory(vae, **cluster, workers=1)[1:]
    with pytest.raises(ConfigError, match="Expected max_memory of at least 1"):
        planned_memory(vae, **cluster, max_memory="1GB")


@pytest.mark.parametrize("text, size", [("2GB", 2 * 10**9), ("1.5 gb", 1.5 * 10**9), ("1MiB", 2**20), ("3K", 3000)])
def test_sizes_are_read_as_people_write_them(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["2", "lots", "-1GB", ""])
def test_other_sizes_are_refused(text):
    with pytest.raises(ConfigError, match="size such as 2GB"):
        parse_size(text)


def test_a_shard_larger_than_any_number_of_users_is_one_of_them_all(tmp_path):
    history = csr_matrix(np.ones((3, 4), dtype=np.float32))
    targets = Targets(pa.array(["u", "v", "w"]), history)
    sizes = [shard_bytes(targets, ScoringPlan("", "", users=3, shard_users=users)) for users in (3, 10**20)]
    assert sizes[0] == sizes[1]
