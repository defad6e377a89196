"""benchmarks/accuracy: how a table comes about, and ranks against listed negatives."""

import argparse
import importlib
import sys

import numpy as np
import pytest
import torch
from paths import ROOT
from scipy.sparse import csr_matrix

from recsys import splitting
from recsys.artifacts import load_model
from recsys.data.interactions import Interactions, Vocabulary
from recsys.models import create_model

FOLDER = ROOT / "benchmarks" / "accuracy"
TABLE = """
title = "Two tastes"
validation = "ndcg@2"
metrics = ["recall@1", "ndcg@2"]
blend = ["ease", "wide"]
pairs = [["blend", "popularity"]]

[models.popularity]

[models.ease]
l2 = 1.0

[models.wide]
model = "dae"
latent = 4
epochs = 2
learning_rate = 0.02

[[published]]
name = "Somebody's"
"recall@1" = 0.5
source = "Somebody 2020"
"""


@pytest.fixture
def scripts(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in ("table", "accuracy", "ml1m_leave_one_out", "gowalla"):
        sys.modules.pop(name, None)


def tastes():
    """Users 0-9 and items 0-9, each user all items of one half."""
    user = np.repeat(np.arange(10), 5).astype(np.int32)
    item = (np.tile(np.arange(5), 10) + 5 * (user // 5)).astype(np.int32)
    names = Vocabulary.of(np.arange(10))
    return Interactions(names, names, user, item)


def flags(tmp_path, **others):
    return argparse.Namespace(
        **{"seeds": 2, "only": "", "cache": tmp_path / "kept", "device": "cpu", "choose": False, **others}
    )


def table_of(scripts, tmp_path, monkeypatch, final, **others):
    accuracy = scripts("accuracy")
    monkeypatch.setattr(accuracy, "HERE", tmp_path)
    (tmp_path / "tiny.toml").write_text(TABLE)
    split = splitting.weak(tastes(), share=0.2)
    division = accuracy.Division(split, accuracy.ranked(split.test), split.train if final else None)
    accuracy.run("tiny", division, flags(tmp_path, **others))
    return tmp_path / "results" / "tiny.md"


@pytest.mark.parametrize("final", [False, True])
def test_a_table_has_a_row_a_model_the_blend_the_pairs_and_the_published_rows(scripts, tmp_path, monkeypatch, final):
    text = table_of(scripts, tmp_path, monkeypatch, final).read_text()
    for row in ("`popularity`", "`ease`", "`wide`", "`blend`", "Somebody's | 0.5", "blend - popularity | recall@1"):
        assert f"| {row} |" in text
    assert "± " in next(line for line in text.splitlines() if "`wide`" in line)  # two seeds
    assert "± " not in next(line for line in text.splitlines() if "`ease`" in line)  # nothing in it is drawn
    assert "Weights of the blend: ease" in text


def test_stated_weights_are_not_searched(scripts, tmp_path, monkeypatch):
    monkeypatch.setattr("recsys.models.blend.search_weights", lambda *_: pytest.fail("searched"))
    monkeypatch.setitem(globals(), "TABLE", TABLE.replace("pairs =", "weights = [3, 1]\npairs ="))
    text = table_of(scripts, tmp_path, monkeypatch, True).read_text()
    assert "Weights of the blend: ease 0.75, wide 0.25." in text


def test_a_part_in_which_items_stand_together_is_spread_more_than_a_random_draw(scripts):
    gowalla, rng = scripts("gowalla"), np.random.default_rng(0)
    rows = csr_matrix(np.ones((60, 400), dtype=np.float32))
    random = csr_matrix((rng.random(rows.shape) < 0.2).astype(np.float32))
    by_item = csr_matrix((rng.random(rows.shape) < np.where(np.arange(400) < 200, 0.1, 0.3)).astype(np.float32))
    assert gowalla.spread(rows - random, random) == pytest.approx(1, abs=0.1)
    deviation = np.sqrt(0.1**2 + (0.1 * 0.9 + 0.3 * 0.7) / 2 / 60)  # of the shares, around .1 and .3
    assert gowalla.spread(rows - by_item, by_item) == pytest.approx(deviation / np.sqrt(0.2 * 0.8 / 60), abs=0.15)


def test_fits_are_kept_for_the_blend_and_for_the_next_run(scripts, tmp_path, monkeypatch):
    first = table_of(scripts, tmp_path, monkeypatch, True).read_text()
    monkeypatch.setattr("recsys.models.base.Recommender.fit", lambda *_: pytest.fail("fitted again"))
    again = table_of(scripts, tmp_path, monkeypatch, True).read_text()
    assert metrics(first) == metrics(again)


def test_a_model_is_fitted_again_on_all_rows_for_the_epochs_that_were_best(scripts, tmp_path):
    accuracy = scripts("accuracy")
    (tmp_path / "tiny.toml").write_text(TABLE.replace("epochs = 2", "epochs = 4"))
    table = accuracy.RankingTable.read(tmp_path / "tiny.toml")
    choosing, final = splitting.weak(tastes(), share=0.2), splitting.everybody(tastes()).train
    division = accuracy.Division(choosing, accuracy.ranked(choosing.test), final)
    first = accuracy.fit(table, "wide", division, 0, flags(tmp_path))
    again = accuracy.final_fit(table, "wide", division, 0, flags(tmp_path))
    assert again.minutes > first.minutes  # those of both
    assert len(again.model.epochs) == first.best_epoch
    kept = [load_model(place) for place in sorted((tmp_path / "kept" / "tiny").glob("wide-0-*/**/model"))]
    assert [saved.item_counts.sum() for saved in kept] == [50, choosing.train.matrix.nnz]  # final/model, model


def metrics(text):
    """Rows without the minutes of the blend's search."""
    return [line.rsplit("|", 2)[0] for line in text.splitlines() if line.startswith("| `")]


def test_choosing_reads_validation_and_writes_no_results(scripts, tmp_path, monkeypatch, capsys):
    file = table_of(scripts, tmp_path, monkeypatch, False, choose=True)
    assert not file.exists()
    assert "ndcg@100" in capsys.readouterr().out


def test_the_rank_among_listed_negatives_counts_ties_against_the_test_item(scripts):
    script = scripts("ml1m_leave_one_out")
    train = splitting.everybody(tastes()).train
    model = create_model("popularity").fit(train.matrix)
    scores = torch.tensor([[5.0, 4, 3, 3, 2, 1, 0, 0, 0, 0]])
    model._score = lambda history, users: scores.repeat(history.shape[0], 1)
    users, items = np.array([0, 1, 2, 3]), np.array([2, 2, 0, -1])
    negatives = np.array([[0, 1, 4], [3, -1, -1], [1, 2, 3], [1, 2, 3]])  # ranks 2, 1 (a tie), 0; not to be found
    found = script.against_negatives(train, users, items, negatives)(model, ["hr@10", "ndcg@10"])
    assert found["hr@10"].each.tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(found["ndcg@10"].each, [1 / np.log2(4), 1 / np.log2(3), 1, 0])
