"""The approximate index of nearest neighbors, exact search, and vectors of one byte an element."""

import json

import numpy as np
import pytest

from recsys.errors import ArtifactError, ConfigError, MissingPackageError
from recsys.latent import index as index_module
from recsys.latent.compression import from_int8, to_int8
from recsys.latent.index import VectorIndex, exact_nearest, unit_vectors

VECTORS = np.random.default_rng(0).standard_normal((500, 8)).astype(np.float32)
ABOUT = {"of": "items"}


@pytest.fixture(scope="module")
def built():
    pytest.importorskip(index_module.PACKAGE)
    return VectorIndex.build(VECTORS)


def test_exact_search_orders_by_cosine_or_by_inner_product_whatever_the_blocks(monkeypatch):
    lengths = np.linalg.norm(VECTORS, axis=1, keepdims=True)
    cosines, products = VECTORS[:3] @ (VECTORS / lengths).T, VECTORS[:3] @ VECTORS.T
    for block in (7, 100_000):
        monkeypatch.setattr(index_module, "_BLOCK", block)
        assert exact_nearest(unit_vectors(VECTORS), VECTORS[:3], 5).tolist() == np.argsort(-cosines)[:, :5].tolist()
        assert exact_nearest(VECTORS, VECTORS[:3], 5).tolist() == np.argsort(-products)[:, :5].tolist()


@pytest.mark.parametrize("metric", ["cosine", "inner product"])
def test_an_index_finds_what_exact_search_finds_with_the_same_similarities(metric):
    pytest.importorskip(index_module.PACKAGE)
    index = VectorIndex.build(VECTORS, metric)
    positions, similarities = index.search(VECTORS[:20], 10)
    exact = exact_nearest(unit_vectors(VECTORS) if metric == "cosine" else VECTORS, VECTORS[:20], 10)
    assert np.mean([len(set(a) & set(b)) for a, b in zip(positions, exact, strict=True)]) >= 9.5
    units = unit_vectors(VECTORS) if metric == "cosine" else VECTORS
    expected = np.take_along_axis(units[:20] @ units.T, positions, axis=1)
    assert similarities == pytest.approx(expected, abs=1e-4)
    quality = index.compare(VECTORS, queries=50)
    assert quality.recall > 0.95
    assert quality.queries == 50
    assert "recall@100 " in str(quality)


@pytest.mark.parametrize("metric", ["cosine", "inner product"])
def test_beyond_so_many_vectors_an_index_is_approximate_and_finds_nearly_all(metric, tmp_path):
    pytest.importorskip(index_module.PACKAGE)
    rng = np.random.default_rng(0)
    centers = rng.standard_normal((50, 7)).astype(np.float32)
    vectors = centers[rng.integers(0, 50, 25_000)] + 0.3 * rng.standard_normal((25_000, 7)).astype(np.float32)
    assert VectorIndex.build(vectors, metric).is_exact
    index = VectorIndex.build(vectors, metric, exact_up_to=0)
    assert not index.is_exact
    quality = index.compare(vectors, queries=50)
    assert 0.9 < quality.recall <= 1
    index.save(tmp_path / "some.index", ABOUT)
    loaded = VectorIndex.load(tmp_path / "some.index")
    assert not loaded.is_exact
    np.testing.assert_array_equal(loaded.search(vectors[:5], 3)[0], index.search(vectors[:5], 3)[0])


def test_an_index_comes_back_from_its_two_files(built, tmp_path):
    built.save(tmp_path / "some.index", ABOUT)
    loaded = VectorIndex.load(tmp_path / "some.index")
    assert (len(loaded), loaded.metric, loaded.about) == (500, "cosine", ABOUT)
    for ours, theirs in zip(loaded.search(VECTORS[:5], 3), built.search(VECTORS[:5], 3), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_file_that_is_missing_changed_or_foreign_is_refused_before_it_is_parsed(built, tmp_path):
    path, beside = tmp_path / "some.index", tmp_path / "some.index.json"
    with pytest.raises(ArtifactError, match=r"found no .*some\.index:"):
        VectorIndex.load(path)
    built.save(path, ABOUT)
    facts = json.loads(beside.read_text())
    beside.unlink()
    with pytest.raises(ArtifactError, match=r"found no .*some\.index\.json:"):
        VectorIndex.load(path)
    for changed in ({**facts, "sha256": "0" * 64}, {**facts, "metric": "distance"}, {}):
        beside.write_text(json.dumps(changed))
        with pytest.raises(ArtifactError, match="damaged: write it again"):
            VectorIndex.load(path)
    beside.write_text(json.dumps(facts))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="damaged: write it again"):
        VectorIndex.load(path)


def test_few_vectors_and_none():
    pytest.importorskip(index_module.PACKAGE)
    one = VectorIndex.build(VECTORS[:1])
    assert one.search(VECTORS[:2], 10)[0].tolist() == [[0], [0]]
    with pytest.raises(ConfigError, match="Expected vectors to index, found none"):
        VectorIndex.build(VECTORS[:0])


def test_without_the_package_the_message_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, index_module.PACKAGE, None)
    with pytest.raises(MissingPackageError, match=r"\[index\]"):
        VectorIndex.build(VECTORS)


def test_int8_is_off_by_half_a_scale_at_most_and_keeps_zeros():
    vectors = np.vstack([VECTORS[:50] * 10.0, np.zeros((1, 8), dtype=np.float32)]).astype(np.float32)
    codes, scales = to_int8(vectors)
    assert codes.dtype == np.int8
    assert np.abs(codes[:50]).max(axis=1).tolist() == [127] * 50
    assert (np.abs(from_int8(codes, scales) - vectors) <= scales[:, None] / 2 + 1e-6).all()
    assert from_int8(codes, scales)[50].tolist() == [0] * 8
