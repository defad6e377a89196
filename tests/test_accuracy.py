"""benchmarks/accuracy: how a table comes about, and ranks against listed negatives."""

import argparse
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recsys import splitting
from recsys.interactions import Interactions, Vocabulary
from recsys.models import create_model

FOLDER = Path(__file__).parents[1] / "benchmarks" / "accuracy"
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
    for name in ("accuracy", "ml1m_leave_one_out"):
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
    division = accuracy.Division(
        split, accuracy.ranked(split.test, ["recall@1", "ndcg@2"]), split.train if final else None
    )
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


def test_fits_are_kept_for_the_blend_and_for_the_next_run(scripts, tmp_path, monkeypatch):
    first = table_of(scripts, tmp_path, monkeypatch, True).read_text()
    monkeypatch.setattr("recsys.models.base.Recommender.fit", lambda *_: pytest.fail("fitted again"))
    again = table_of(scripts, tmp_path, monkeypatch, True).read_text()
    assert metrics(first) == metrics(again)


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
    found = script.against_negatives(train, users, items, negatives)(model)
    assert found["hr@10"].tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(found["ndcg@10"], [1 / np.log2(4), 1 / np.log2(3), 1, 0])
