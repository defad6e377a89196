"""The training loop: which weights are kept, when it stops, what it reports; and its batches."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from recsys.errors import ConfigError, DataError
from recsys.models import create_model
from recsys.training.batches import SparseRows
from recsys.training.context import TrainingContext
from recsys.training.loop import one_pass, steps_per_epoch, train

CPU = torch.device("cpu")


class Counter(torch.nn.Module):
    """Its one weight is the number of epochs it has seen."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def epoch(self):
        assert self.training
        with torch.no_grad():
            self.weight += 1
        return 0.5


def run(values=None, epochs=10, **context):
    """Train a Counter; validation gives `values` one after another. Returns its last weight and the history."""
    network, left = Counter(), iter(values or ())

    def validate(score):
        assert not network.training
        return next(left)

    context = TrainingContext(validate=validate if values else None, **context)
    history = train(network, network.epoch, lambda history: None, epochs, context)
    assert not network.training
    return network.weight.item(), history


# Stopping and keeping


def test_without_validation_all_epochs_run_and_the_last_weights_stay():
    weight, history = run(epochs=4)
    assert weight == 4
    assert [(epoch.number, epoch.loss, epoch.value, epoch.best) for epoch in history] == [
        (number, 0.5, None, False) for number in (1, 2, 3, 4)
    ]


def test_the_weights_of_the_best_epoch_are_restored():
    weight, history = run([1, 3, 2, 0], epochs=4)
    assert weight == 2
    assert [epoch.value for epoch in history] == [1, 3, 2, 0]
    assert [epoch.best for epoch in history] == [True, True, False, False]


@pytest.mark.parametrize(
    ("values", "patience", "epochs_run", "kept"),
    [
        ([5, 4, 6, 5, 4, 9], 2, 5, 3),  # two epochs without a better value than that of epoch 3
        ([5, 4, 6], 1, 2, 1),
        ([1, 2, 3, 4], 1, 4, 4),  # always better: never stopped
        ([1, 0, 0, 2, 0], 3, 5, 4),  # patience starts anew with each better value
        ([0, 0, 0], 2, 3, 1),  # an equal value is no better one
        ([-3, -2, -5], 5, 3, 2),  # values may be negative
    ],
)
def test_patience_counts_epochs_without_a_better_value(values, patience, epochs_run, kept):
    weight, history = run(values, epochs=len(values), patience=patience)
    assert (len(history), weight) == (epochs_run, kept)


def test_stop_after_ends_early_and_not_late():
    assert run(epochs=4, stop_after=3)[0] == 3
    assert run(epochs=4, stop_after=9)[0] == 4


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_is_an_error_that_says_what_to_do(loss):
    with pytest.raises(ConfigError, match=f"finite loss, found {loss} in epoch 1: lower the learning_rate"):
        train(Counter(), lambda: loss, lambda history: None, 3, TrainingContext())


def test_a_validation_value_of_nan_is_an_error():
    with pytest.raises(DataError, match="validation value, found NaN"):
        run([math.nan])


def test_errors_in_validation_are_raised():
    def validate(score):
        raise ZeroDivisionError("in the metric")

    with pytest.raises(ZeroDivisionError, match="in the metric"):
        train(Counter(), lambda: 0.0, lambda history: None, 3, TrainingContext(validate=validate))


def test_validation_is_given_the_score_function():
    given_to = []
    context = TrainingContext(validate=lambda score: given_to.append(score) or 0.0)
    score = object()
    train(Counter(), lambda: 0.0, score, 1, context)
    assert given_to == [score]


def test_on_epoch_is_called_with_each_epoch_and_the_planned_number():
    reported = []
    _, history = run([1, 2, 0], epochs=3, patience=5, on_epoch=lambda epoch, epochs: reported.append((epoch, epochs)))
    assert reported == [(epoch, 3) for epoch in history]
    assert all(epoch.train_seconds >= 0 and epoch.validate_seconds >= 0 for epoch in history)


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [({"patience": 0}, "patience"), ({"stop_after": 0}, "stop_after"), ({"precision": "fp8"}, "fp32 or bf16")],
)
def test_invalid_contexts_are_refused(settings, complaint):
    with pytest.raises(ConfigError, match=complaint):
        TrainingContext(**settings)


def test_auto_is_the_gpu_where_there_is_one():
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert TrainingContext(device="auto").resolve_device().type == expected
    assert TrainingContext(device="cpu").resolve_device() == CPU


@pytest.mark.parametrize("device", ["abacus", "cuda:99", "cpu:x"])
def test_an_unavailable_device_is_refused(device):
    with pytest.raises(ConfigError, match=f"'{device}' cannot be used here"):
        TrainingContext(device=device).resolve_device()


# In a model


def preferences(users=10, items=6):
    return csr_matrix((np.random.default_rng(0).random((users, items)) < 0.5).astype(np.float32))


@pytest.mark.parametrize("name", ["dae", "vae"])
def test_validation_changes_only_when_training_stops(name):
    settings = {"latent": 3, "epochs": 6, "batch_size": 4}
    values = iter([1, 2, 5, 4, 3, 2])
    matrix = preferences()

    def validate(score):
        score(matrix)
        return next(values)

    watched = create_model(name, settings).fit(matrix, TrainingContext(validate=validate))
    stopped = create_model(name, settings).fit(matrix, TrainingContext(stop_after=3))
    assert torch.equal(watched.score(matrix), stopped.score(matrix))
    assert len(watched.epochs) == 6


def test_a_learning_rate_far_too_high_ends_in_a_clear_error():
    with pytest.raises(ConfigError, match="lower the learning_rate"):
        create_model("vae", {"hidden": 4, "latent": 2, "learning_rate": 1e6, "epochs": 50}).fit(preferences())


# One pass over the rows


def numbered(rows):
    """A matrix whose row i holds i in its only cell."""
    return SparseRows(csr_matrix(np.arange(1, rows + 1, dtype=np.float32)[:, None]), CPU)


def pass_over(rows, batch_size, context=None):
    """What one_pass shows of each batch, and what it returns."""
    weight = torch.nn.Parameter(torch.zeros(()))
    seen = []

    def loss(batch):
        seen.append(batch.values.tolist())
        return batch.values.mean() + weight

    mean = one_pass(rows, batch_size, loss, torch.optim.SGD([weight], lr=1.0), context or TrainingContext())
    return seen, mean, weight.item()


@pytest.mark.parametrize(("rows", "batch_size", "sizes"), [(7, 3, [3, 3, 1]), (6, 3, [3, 3]), (2, 5, [2]), (1, 1, [1])])
def test_every_row_is_seen_once_an_epoch_the_partial_last_batch_included(rows, batch_size, sizes):
    seen, _, weight = pass_over(numbered(rows), batch_size)
    assert [len(batch) for batch in seen] == sizes
    assert sorted(row for batch in seen for row in batch) == list(range(1, rows + 1))
    assert weight == -len(sizes)  # a step of the optimizer a batch, each from a fresh gradient of 1
    assert steps_per_epoch(rows, batch_size) == len(sizes)


def test_the_loss_of_an_epoch_is_the_mean_over_rows_not_over_batches():
    rows = numbered(7)
    weight = torch.nn.Parameter(torch.zeros(()))
    unmoved = torch.optim.SGD([weight], lr=0.0)
    mean = one_pass(rows, 3, lambda batch: batch.values.mean() + 0 * weight, unmoved, TrainingContext())
    assert mean == pytest.approx((1 + 2 + 3 + 4 + 5 + 6 + 7) / 7)


def test_steps_are_counted_from_one():
    reported = []
    pass_over(numbered(7), 3, TrainingContext(on_step=lambda step, steps: reported.append((step, steps))))
    assert reported == [(1, 3), (2, 3), (3, 3)]


def test_each_epoch_has_its_own_order_and_a_seed_repeats_them():
    def two_epochs():
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return [[batch.values.tolist() for batch in rows.shuffled(4)] for _ in range(2)]

    rows = numbered(20)
    first, second = two_epochs()
    assert first != second
    assert two_epochs() == [first, second]


# Sparse batches

CASES = st.integers(1, 8).flatmap(
    lambda rows: st.tuples(
        st.lists(st.lists(st.integers(0, 3), min_size=5, max_size=5), min_size=rows, max_size=rows),
        st.lists(st.integers(0, rows - 1), max_size=12),
        st.integers(1, 9),
    )
)


def dense(batch, items=5):
    table = torch.zeros(len(batch), items)
    table[batch.rows, batch.items] = batch.values
    return table.numpy()


@given(CASES)
def test_a_cut_is_the_rows_of_the_matrix_in_the_order_asked(case):
    values, wanted, _ = case
    matrix = csr_matrix(np.float32(values))
    batch = SparseRows(matrix, CPU).cut(torch.tensor(wanted, dtype=torch.long))
    assert len(batch) == len(wanted)
    np.testing.assert_array_equal(dense(batch), np.float32(values)[wanted])
    np.testing.assert_array_equal(batch.lengths, np.diff(matrix.indptr)[wanted])
    np.testing.assert_array_equal(batch.row_sums(batch.values), np.float32(values)[wanted].sum(axis=1))
    assert (batch.items.dtype, batch.offsets.dtype) == (torch.int64, torch.int64)


@given(CASES)
def test_blocks_of_a_batch_are_the_batch_in_pieces(case):
    values, _, size = case
    batch = SparseRows(csr_matrix(np.float32(values)), CPU).everything()
    blocks = list(batch.blocks(size))
    np.testing.assert_array_equal(np.concatenate([dense(part) for _, _, part in blocks]), values)
    assert [len(part) for _, _, part in blocks[:-1]] == [size] * (len(blocks) - 1)
    assert [row for rows, _, _ in blocks for row in range(len(values))[rows]] == list(range(len(values)))
    assert all(torch.equal(batch.items[cells], part.items) for _, cells, part in blocks)
