"""Models of sequences: what is special to each."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix

from recsys.data.matrix import OrderedMatrix
from recsys.errors import ConfigError, DataError
from recsys.models import create_model
from recsys.models.blend import Blend
from recsys.models.sequential.rows import SequenceRows, in_order, padded
from recsys.training.context import TrainingContext


def matrix_of(*sequences, items=4):
    """Places in time of sequences of item positions, oldest first."""
    cells = [(row, item, place) for row, one in enumerate(sequences) for place, item in enumerate(one, 1)]
    row, column, place = map(np.array, zip(*cells, strict=True))
    return OrderedMatrix((place.astype(np.float32), (row, column)), shape=(len(sequences), items))


def circles(users=40, items=8):
    """Each user walks round a circle of items, from another item on."""
    return matrix_of(*[[(user + step) % items for step in range(3 + user % 4)] for user in range(users)], items=items)


def test_sequences_are_the_cells_by_their_places_and_may_be_cut_at_their_newest():
    sequences = in_order(matrix_of([3, 0, 2], [1]))
    assert sequences.indices.tolist() == [3, 0, 2, 1]
    last = in_order(matrix_of([3, 0, 2], [1]), 2)
    assert (last.indices.tolist(), last.indptr.tolist()) == ([0, 2, 1], [0, 2, 3])


def test_batches_are_padded_at_their_end():
    items, filled = padded(SequenceRows(matrix_of([3, 0, 2], [1]), torch.device("cpu")).everything())
    assert items.tolist() == [[3, 0, 2], [1, 0, 0]]
    assert filled.tolist() == [[True, True, True], [True, False, False]]


def test_an_epoch_has_every_row_once_and_rows_of_like_length_together():
    rows = SequenceRows(circles(400), torch.device("cpu"))
    torch.manual_seed(0)
    batches = list(rows.shuffled(20))
    assert sorted(torch.cat([batch.lengths for batch in batches]).tolist()) == sorted(rows.lengths.tolist())
    spread = [int(batch.lengths.max() - batch.lengths.min()) for batch in batches]
    assert sum(spread) < len(batches)  # 3 in batches of random rows
    torch.manual_seed(0)
    again = list(rows.shuffled(20, done=3))
    assert torch.equal(again[0].items, batches[3].items)


def test_last_item_counts_what_followed_and_falls_back_on_popularity():
    model = create_model("last-item", {"smoothing": 1.0}).fit(matrix_of([0, 1, 2], [0, 1], [3, 1, 2]))
    scores = model.score(matrix_of([2, 1], [1, 2]))
    popularity = np.array([2, 3, 2, 1]) / 8
    assert scores[0].tolist() == pytest.approx(((np.array([0, 0, 2, 0]) + popularity) / 3).tolist())  # after 1
    assert scores[1].tolist() == pytest.approx(popularity.tolist())  # nothing followed 2


def test_recent_popularity_counts_the_last_items_of_each_user():
    model = create_model("recent-popularity", {"last": 1}).fit(matrix_of([0, 1, 2], [0, 2], [3, 1]))
    assert model.score(matrix_of([0])).tolist() == [[0, 1, 2, 0]]


def test_recent_popularity_counts_days_back_from_the_newest_interaction():
    matrix = matrix_of([0, 1, 2], [0, 3])
    matrix.sort_indices()
    matrix.days = np.array([1, 5, 9, 8, 10], dtype=np.float32)
    assert create_model("recent-popularity", {"days": 2.5}).fit(matrix).score(matrix)[0].tolist() == [1, 0, 1, 1]
    with pytest.raises(DataError, match="with times for recent-popularity with days"):
        create_model("recent-popularity", {"days": 2.5}).fit(csr_matrix(np.eye(3, dtype=np.float32)))


@pytest.mark.parametrize("settings", [{}, {"gate": True, "heads": 2}, {"softmax": "sampled", "negatives": 3}])
def test_sasrec_learns_what_comes_next_and_not_what_is_near(settings):
    given = {"width": 16, "layers": 1, "dropout": 0.0, "epochs": 60, "learning_rate": 0.01, "batch_size": 10}
    model = create_model("sasrec", given | settings).fit(circles())
    best = model.score(matrix_of([0, 1, 2], [2, 1, 0], [6, 7], items=8)).argmax(dim=1)
    assert best.tolist() == [3, 1, 0]


networks = pytest.mark.parametrize("name", ["sasrec", "svae"])


@networks
def test_a_score_depends_on_the_order_of_a_history_and_not_on_its_neighbors_in_the_batch(name):
    torch.manual_seed(0)
    model = create_model(name, {"width": 8, "length": 3}).untrained(8)
    together = model.score(matrix_of([0, 1, 2], [2, 1, 0], [5], items=8))
    assert not torch.allclose(together[0], together[1])
    torch.testing.assert_close(model.score(matrix_of([5], items=8))[0], together[2])


@networks
def test_the_last_items_of_a_long_history_are_seen_only(name):
    torch.manual_seed(0)
    model = create_model(name, {"width": 8, "length": 2}).untrained(8)
    found = model.score(matrix_of([0, 1, 2], [7, 1, 2], items=8))
    torch.testing.assert_close(found[0], found[1])


@networks
def test_a_place_does_not_see_what_comes_after_it(name):
    torch.manual_seed(0)
    network = create_model(name, {"width": 8}).untrained(8).network
    lengths = torch.tensor([3])
    one, other = (network.hidden(torch.tensor([items]), lengths) for items in ([0, 1, 2], [0, 1, 5]))
    torch.testing.assert_close(one[:, :2], other[:, :2])


@networks
def test_sequences_of_one_item_have_nothing_to_learn_from(name):
    model = create_model(name, {"width": 8, "epochs": 1}).fit(matrix_of([0], [1], [2]))
    assert model.score(matrix_of([0])).isfinite().all()


def test_the_catalog_decides_the_softmax_unless_it_is_given():
    config = create_model("sasrec").config
    assert not config.is_sampled(50_000)
    assert config.is_sampled(50_001)
    assert create_model("sasrec", {"softmax": "sampled"}).config.is_sampled(10)
    with pytest.raises(ConfigError, match="multiple of heads, found 64, 3"):
        create_model("sasrec", {"heads": 3})


def test_a_blend_gives_places_to_the_members_that_use_them_and_ones_to_the_others():
    matrix = circles()
    ease, last = create_model("ease", {"l2": 1.0}).fit(matrix), create_model("last-item").fit(matrix)
    blend = Blend.of([ease, last], matrix, [1, 1])
    assert blend.uses_order
    plain = csr_matrix(((matrix.data > 0).astype(np.float32), matrix.indices, matrix.indptr), shape=matrix.shape)
    parts = [ease.score(plain) / blend.scales[0], last.score(matrix) / blend.scales[1]]
    torch.testing.assert_close(blend.score(matrix), sum(parts) / 2)


def test_reasons_of_the_last_item_are_the_last_item():
    model = create_model("last-item").fit(circles())
    found = model.contributions(matrix_of([0, 1, 2], items=8), [3])
    assert found.history.tolist() == [0, 1, 2]
    assert found.values[:2, 0].tolist() == [0, 0]
    assert found.values[2, 0] > 0


def test_a_training_goes_on_where_it_was_interrupted(tmp_path):
    from recsys.training.checkpoint import Checkpoints

    settings = {"width": 8, "layers": 1, "epochs": 4, "batch_size": 10}
    whole = create_model("sasrec", settings).fit(circles())

    def stop(step, steps):
        if step == 2 and len(seen) == 2:
            raise KeyboardInterrupt

    seen = []
    first = TrainingContext(
        checkpoints=Checkpoints(tmp_path, every=0), on_step=stop, on_epoch=lambda epoch, _: seen.append(epoch)
    )
    with pytest.raises(KeyboardInterrupt):
        create_model("sasrec", settings).fit(circles(), first)
    again = create_model("sasrec", settings).fit(circles(), TrainingContext(checkpoints=Checkpoints(tmp_path, every=0)))
    assert torch.equal(again.score(circles()), whole.score(circles()))
