"""What is said of a training run when it ends."""

from contextlib import nullcontext

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from recsys.models import create_model
from recsys.training.context import Epoch, TrainingContext, describe_training

MATRIX = csr_matrix(np.float32([[1, 1, 0], [0, 1, 1], [1, 0, 1]]))


def epochs(values):
    """Epochs with these validation values."""
    best, done = -np.inf, []
    for number, value in enumerate(values, start=1):
        better = value is not None and value > best
        best = value if better else best
        done.append(Epoch(number, 1.0, value, 0.0, 0.0, better))
    return done


@pytest.mark.parametrize(
    ("values", "planned", "text"),
    [
        ([], 3, ""),
        ([None, None], 2, "trained for 2 of 2 epochs without validation; the weights of the last epoch are kept"),
        (
            [0.1, 0.3, 0.2, 0.2],
            9,
            "stopped after epoch 4 of 9: no better validation value since epoch 2, whose weights are kept",
        ),
        ([0.1, 0.3, 0.2], 3, "trained for all 3 epochs; the weights of epoch 2, the best on validation, are kept"),
    ],
)
def test_the_sentence_names_the_last_epoch_and_the_one_whose_weights_are_kept(values, planned, text):
    assert describe_training(epochs(values), planned) == text


def test_a_model_says_where_its_training_stopped():
    values = iter([0.5, 0.4, 0.3])
    model = create_model("dae", {"latent": 2, "epochs": 9})
    assert model.stopped == ""
    model.fit(MATRIX, TrainingContext(device="cpu", patience=2, validate=lambda score: next(values)))
    assert model.stopped.startswith("stopped after epoch 3 of 9: no better validation value since epoch 1")
    assert create_model("ease").fit(MATRIX).stopped == ""


# The phases of each fit without epochs.
PHASES = {
    "ease": ["Gram matrix", "matrix inverse"],
    "edlae": ["Gram matrix", "matrix inverse"],
    "sparse-ease": ["items"],
    "item-knn": ["similarities of items"],
    "svd": ["singular vectors"],
    "bspm": ["singular vectors", "filter"],
    "chebycf": ["singular vectors", "filter"],
    "ials": ["iterations"],
    "biased-mf": ["iterations"],
    "rating-knn": ["similarities of items"],
}


@pytest.mark.parametrize("name", PHASES)
def test_fits_without_epochs_report_their_phases(name):
    reported = []
    create_model(name).fit(MATRIX, TrainingContext(device="cpu", on_phase=lambda *phase: reported.append(phase)))
    assert list(dict.fromkeys(phase for phase, _, _ in reported)) == PHASES[name]
    for phase in PHASES[name]:
        done = [(finished, total) for other, finished, total in reported if other == phase]
        assert done[0][0] == 0 and done[-1][0] == done[-1][1]


def test_a_blend_reports_its_members_and_their_phases():
    reported = []
    settings = {"members": "ease,svd", "weights": "1,1", "svd.factors": 1}
    context = TrainingContext(device="cpu", on_phase=lambda *phase: reported.append(phase))
    create_model("blend", settings).fit(MATRIX, context)
    assert list(dict.fromkeys(phase for phase, _, _ in reported)) == [
        "member ease",
        "Gram matrix",
        "matrix inverse",
        "member svd",
        "singular vectors",
        "weights",
    ]


def test_the_allocator_of_the_process_is_left_alone_unless_asked(monkeypatch):
    calls = []

    monkeypatch.setattr("recsys.training.loop.keep_freed_memory", lambda: calls.append("kept") or nullcontext())
    model = create_model("dae", {"latent": 2, "epochs": 1})
    model.fit(MATRIX, TrainingContext(device="cpu"))
    assert calls == []
    model.fit(MATRIX, TrainingContext(device="cpu", keep_freed_memory=True))
    assert calls == ["kept"]
