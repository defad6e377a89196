"""Masked autoencoders over ratings: input and loss cover the observed ratings only.

A row is an item with its ratings by all users, or a user with the ratings of all items; columns are the other of the
two. Time and memory follow the number of ratings, not rows x columns: in training neither input nor predictions are
dense. By items, users (new ones too) are folded in by ridge regression on the codes of the items they rated; by users,
the network predicts.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from typing_extensions import TypeVar

from recsys.errors import UnsupportedError
from recsys.models.config import require
from recsys.models.embeddings import Embeddings
from recsys.models.ratings.base import RatingConfig, RatingRecommender, fold_in, rate_by_codes
from recsys.models.ratings.cell_products import cell_products
from recsys.models.search_space import Range, tunable
from recsys.models.state import StateSpec, TensorSpec, module_spec
from recsys.training.adam import Adam
from recsys.training.batches import SparseBatch, SparseRows, weighted_sum
from recsys.training.context import Epoch, TrainingContext
from recsys.training.loop import one_pass, steps_per_epoch, train
from recsys.training.optimizer_state import OptimizerState, RateState
from recsys.types import ScoreFunction

_FINAL_RATE = 0.05  # the learning rate decays linearly to this share of itself
_LEAST_SHRINKAGE = 0.1  # of a new item's code, in ratings: without any the regression may be singular


@dataclass(frozen=True)
class TrainingConfig(RatingConfig):
    """Settings of the training of a network over ratings."""

    epochs: int = 50
    batch_size: int | None = None  # None: a third of the rows, at most 500
    learning_rate: float = tunable(2e-3, Range(3e-4, 1e-2, log=True))

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.epochs >= 1, f"Expected epochs of at least 1, found {self.epochs}.")
        size = self.batch_size
        require(size is None or size >= 1, f"Expected batch_size of at least 1, found {size}.")
        require(self.learning_rate > 0, f"Expected learning_rate above 0, found {self.learning_rate}.")


@dataclass(frozen=True)
class MaskedConfig(TrainingConfig):
    """The settings of all autoencoders over ratings. Each l2 has the unit of a sum of squared errors."""

    side: Literal["item", "user"] = "item"  # what a row of the input is
    members: int = 1  # size of the ensemble: independent networks whose predictions are averaged
    hidden: int = tunable(400, Range(50, 500, log=True))
    dropout: float = tunable(0.8, Range(0.0, 0.9))  # share of a row's ratings hidden from the encoder
    code_dropout: float = tunable(0.5, Range(0.0, 0.8))  # dropout of the code
    presence: float = tunable(
        2.0, Range(0.0, 4.0)
    )  # weight of the second input: which ratings exist, whatever their value
    l2: float = tunable(30.0, Range(1.0, 300.0, log=True))  # of the output table
    input_l2: float = tunable(8.0, Range(0.1, 100.0, log=True))  # of all other weights
    fold_l2: float = tunable(40.0, Range(5.0, 200.0, log=True))  # of the ridge regression that folds users in

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.side in ("item", "user"), f"Expected side item or user, found {self.side!r}.")
        for name in ("members", "hidden"):
            require(getattr(self, name) >= 1, f"Expected {name} of at least 1, found {getattr(self, name)}.")
        for name in ("dropout", "code_dropout"):
            require(0 <= getattr(self, name) < 1, f"Expected {name} in [0, 1), found {getattr(self, name)}.")
        for name in ("presence", "l2", "input_l2"):
            require(getattr(self, name) >= 0, f"Expected {name} of 0 or more, found {getattr(self, name)}.")
        require(self.fold_l2 > 0, f"Expected fold_l2 above 0, found {self.fold_l2}.")


class Embedding(nn.Module):
    """A table of vectors (rows, width) with Xavier initialization."""

    def __init__(self, rows: int, width: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_uniform_(torch.empty(rows, width)))

    def read(self) -> Tensor:
        """Return the vectors, (rows, width)."""
        return self.weight

    def penalty(self) -> Tensor:
        """Return the sum of squared weights."""
        return self.weight.square().sum()


class MaskedInput(nn.Module):
    """First layer: values @ V + presence * (1 where a value exists) @ P + b -> (rows, width).

    Which ratings exist is as informative as their values (Koren 2008, SVD++). Dropout hides a rating and its presence.

    Parameters
    ----------
    columns, width : int
        Shape of V and P.
    dropout : float
        Probability of hiding a rating in training.
    presence : float
        Weight of the presence input; 0 for none.
    table : callable
        Creates V and P.
    """

    def __init__(
        self,
        columns: int,
        width: int,
        dropout: float,
        presence: float,
        table: Callable[[int, int], Embedding] = Embedding,
    ):
        super().__init__()
        self.dropout, self.presence = dropout, presence
        self.values = table(columns, width)
        self.places = table(columns if presence else 0, width)
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, batch: SparseBatch) -> Tensor:
        """Return (rows, width) for a batch (rows, columns)."""
        kept = F.dropout(torch.ones_like(batch.values), self.dropout, self.training)
        sums = weighted_sum(SparseBatch(batch.items, kept * batch.values, batch.offsets), self.values.read())
        if self.presence:
            observed = SparseBatch(batch.items, self.presence * kept, batch.offsets)
            sums = sums + weighted_sum(observed, self.places.read())
        return sums + self.bias

    def dense(self, rows: Tensor) -> Tensor:
        """Return the same for dense rows (rows, columns), without dropout."""
        sums = F.linear(rows, self.values.read().T, self.bias)
        return sums + self.presence * self.places.read().sum(0)

    def penalty(self) -> Tensor:
        """Return the penalty of both tables."""
        return self.values.penalty() + self.places.penalty()


class ItemRatings(nn.Module):
    """Last layer: codes (rows, width) @ table (columns, width)' + bias, for all cells or for the observed ones."""

    def __init__(self, table: Embedding):
        super().__init__()
        self.table = table
        self.bias = nn.Parameter(torch.zeros(len(table.weight)))

    def forward(self, codes: Tensor) -> Tensor:
        """Return predictions of all cells, (rows, columns)."""
        return F.linear(codes, self.table.read(), self.bias)

    def at(self, codes: Tensor, batch: SparseBatch) -> Tensor:
        """Return predictions of the cells of the batch, (cells,)."""
        return cell_products(codes, self.table.read(), batch) + self.bias[batch.items]


class MaskedModule(nn.Module):
    """A network whose loss is a sum over the cells of a batch."""

    def loss(self, batch: SparseBatch) -> Tensor:
        """Return the loss over the cells of the batch, such as a sum of squared errors."""
        raise NotImplementedError

    def penalty(self) -> Tensor:
        """Return the penalty of the weights, in the unit of the loss."""
        raise NotImplementedError


class MaskedNetwork(MaskedModule):
    """An autoencoder: `encode` returns codes, `self.decoder` predicts residuals from them."""

    decoder: ItemRatings

    def encode(self, batch: SparseBatch) -> Tensor:
        """Return codes (rows, width) of sparse rows of residuals."""
        raise NotImplementedError

    def loss(self, batch: SparseBatch) -> Tensor:
        """Return the sum of squared errors: the Gaussian negative log-likelihood up to constants."""
        return self.errors(self.encode(batch), batch)

    def embed(self, batch: SparseBatch) -> Embeddings:
        """Return the narrowest layer, from which the others follow; here the codes."""
        return Embeddings(self.encode(batch))

    def errors(self, codes: Tensor, batch: SparseBatch) -> Tensor:
        """Return the sum of squared errors over the cells of predictions from codes."""
        return (self.decoder.at(codes, batch) - batch.values).square().sum()


class Ensemble(MaskedModule):
    """Independent autoencoders whose predictions are averaged."""

    def __init__(self, each: list[MaskedNetwork]):
        super().__init__()
        self.each = each
        self.members = nn.ModuleList(each)

    def encode(self, batch: SparseBatch) -> Tensor:
        """Return codes (rows, members x width), scaled so that products are means of the members' products."""
        return torch.cat([member.encode(batch) for member in self.each], dim=1) / math.sqrt(len(self.each))

    def embed(self, batch: SparseBatch) -> Embeddings:
        """Return the members' embeddings side by side."""
        parts = [member.embed(batch) for member in self.each]
        deviations = [part.deviation for part in parts if part.deviation is not None]
        return Embeddings(torch.cat([p.mean for p in parts], 1), torch.cat(deviations, 1) if deviations else None)

    def forward(self, batch: SparseBatch) -> Tensor:
        """Return residuals (rows, columns), the mean over the members."""
        return torch.stack([member.decoder.forward(member.encode(batch)) for member in self.each]).mean(0)

    def loss(self, batch: SparseBatch) -> Tensor:
        """Return the mean loss of the members."""
        return torch.stack([member.loss(batch) for member in self.each]).mean()

    def penalty(self) -> Tensor:
        """Return the mean penalty of the members."""
        return torch.stack([member.penalty() for member in self.each]).mean()


MaskedConfigT = TypeVar("MaskedConfigT", bound=MaskedConfig, default=Any)


class MaskedAutoencoder(RatingRecommender[MaskedConfigT]):
    """A masked autoencoder; a subclass implements `_build`.

    By items, the state is a code per item; by users, it is the weights of the networks.
    """

    family = "rating autoencoder"
    network: Ensemble
    codes: Tensor

    @abstractmethod
    def _build(self, columns: int) -> MaskedNetwork:
        """A fresh network for rows of `columns`, weights drawn from torch's current generator."""

    @property
    def by_items(self) -> bool:
        """Whether the rows of the input are items."""
        return self.config.side == "item"

    def _learn(self, matrix: csr_matrix, context: TrainingContext) -> None:
        rows = self.baseline.residual_rows(matrix, transposed=self.by_items)
        self.network = self._ensemble(matrix.shape[0 if self.by_items else 1]).to(rows.offsets.device)
        if context.start is not None:
            self.network.load_state_dict(context.start.state, strict=False)
        keep = self._encode if self.by_items else _keep_nothing
        self.epochs = train_masked(self.network, rows, self.config, context, self.score, keep)
        keep(rows)

    def _ensemble(self, columns: int) -> Ensemble:
        return Ensemble([self._build(columns) for _ in range(self.config.members)])

    @torch.no_grad()
    def _encode(self, rows: SparseRows) -> None:
        self.network.eval()
        self.codes = self.network.encode(rows.everything())

    def _rate(self, ratings: SparseBatch) -> Tensor:
        if self.by_items:
            return rate_by_codes(self.baseline, self.codes, self._fold_l2(ratings), ratings)
        residuals, users = self.baseline.split(ratings)
        return self.baseline.join(self.network(residuals), users)

    def _fold_l2(self, rows: SparseBatch) -> Tensor:
        return torch.full((len(rows),), self.config.fold_l2, device=self.codes.device)

    def check_new_items(self) -> None:
        """Raise UnsupportedError by users, where the network has an input and an output for each training item."""
        if not self.by_items:
            raise UnsupportedError(
                f"{self.name} by users has an input and an output for each training item, so new items cannot be "
                "added: train it again with them, or use side=item."
            )

    def _add_codes(self, known: SparseBatch, new: SparseBatch) -> None:
        users = fold_in(known, self.codes, self._fold_l2(known))
        # Shrinkage as of a bias, in units of ratings by users of average weights.
        more = max(self.config.item_shrinkage, _LEAST_SHRINKAGE)
        l2 = (more * users.square().sum(1).mean()).clamp_min(1e-12).expand(len(new))
        self.codes = torch.cat([self.codes, fold_in(new, users, l2)])

    def _embed_items(self) -> Tensor:
        """The codes of items; by users, the output tables of the networks."""
        if self.by_items:
            return self.codes
        return torch.cat([member.decoder.table.read() for member in self.network.each], dim=1)

    def _embed_ratings(self, ratings: SparseBatch) -> Embeddings:
        """The weights of the ridge regression on the codes of items; by users, what the networks encode."""
        residuals, _ = self.baseline.split(ratings)
        if self.by_items:
            return Embeddings(fold_in(residuals, self.codes, self._fold_l2(ratings)))
        return self.network.embed(residuals)

    def _get_weights(self) -> dict[str, Tensor]:
        return {"codes": self.codes} if self.by_items else dict(self.network.state_dict())

    def _set_weights(self, weights: Mapping[str, Tensor]) -> None:
        if self.by_items:
            self.codes = weights["codes"]
            return
        self.network = self._on_meta(len(self.baseline.items))
        self.network.load_state_dict(weights, assign=True)
        self.network.eval()

    def _weights_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        if self.by_items:
            return StateSpec({"codes": TensorSpec((n_items, self.config.members * self.config.hidden))})
        return module_spec(self._on_meta(n_items))

    def _start_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        if self.by_items:  # the networks are not kept
            return StateSpec()
        return StateSpec({k: spec for k, spec in self._weights_spec(n_items, state).tensors.items() if k in state})

    def _on_meta(self, columns: int) -> Ensemble:
        with torch.device("meta"):
            return self._ensemble(columns)


def _keep_nothing(rows: SparseRows) -> None:
    """Do nothing: networks by users need no codes."""


def train_masked(
    network: MaskedModule,
    rows: SparseRows,
    config: TrainingConfig,
    context: TrainingContext,
    score: ScoreFunction,
    keep: Callable[[SparseRows], None] = _keep_nothing,
) -> list[Epoch]:
    """Train a masked network with Adam on shuffled batches of rows; the loss is a mean over all cells.

    Parameters
    ----------
    network : MaskedModule
    rows : SparseRows
        Residuals.
    config : TrainingConfig
    context : TrainingContext
        Its patience is raised to half of the epochs if it is less.
    score : ScoreFunction
        What is validated.
    keep : callable
        Called with the rows before every validation, to store what `score` needs.

    Returns
    -------
    list of Epoch
    """
    batch_size = config.batch_size or max(1, min(500, -(-len(rows) // 3)))
    epochs = context.planned(config.epochs)
    cells, planned = len(rows.items), epochs * steps_per_epoch(len(rows), batch_size)
    optimizer = Adam(network.parameters(), lr=config.learning_rate, fused=True)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, _FINAL_RATE, planned)
    optimizer.register_step_post_hook(lambda *_: decay.step())
    context.checkpoints.keep(optimizer=OptimizerState(optimizer, network), rate=RateState(decay))

    def loss(batch: SparseBatch) -> Tensor:
        return (network.loss(batch) * (len(rows) / len(batch)) + network.penalty()) / cells

    def one_epoch() -> float:
        found = one_pass(rows, batch_size, loss, optimizer, context)
        if context.validate:
            keep(rows)
        return found

    # Validation is good at first, when users are folded in on almost random codes, then worse, and best once the
    # learning rate has decayed: a patience of less than half of the epochs would keep the first.
    patient = replace(context, patience=max(context.patience, epochs // 2))
    return train(network, one_epoch, score, epochs, patient)
