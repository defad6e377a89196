"""NetworkRecommender: a Recommender around a torch network trained by gradients."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Protocol, Self, cast

import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix
from torch import Tensor, nn
from typing_extensions import TypeVar

from recsys.errors import UnsupportedError
from recsys.models.autoencoders.attribution import integrated_gradients
from recsys.models.autoencoders.layers import ItemOutput, SparseInput
from recsys.models.autoencoders.likelihood import Likelihood, check_cells
from recsys.models.autoencoders.optimizers import make_optimizer, outputs_of
from recsys.models.autoencoders.reconstruction import Reconstruction
from recsys.models.autoencoders.sampled_softmax import ItemTable
from recsys.models.autoencoders.training_memory import TrainingMemory
from recsys.models.base import Recommender
from recsys.models.contributions import Method
from recsys.models.embeddings import Embeddings
from recsys.models.state import StateSpec, module_spec
from recsys.training.batches import SparseBatch, SparseRows
from recsys.training.context import TrainingContext
from recsys.training.data_parallel import DataParallelOptimizer
from recsys.training.loop import Optimizer, one_pass, steps_per_epoch, train
from recsys.training.optimizer_state import FallingRate, OptimizerState
from recsys.training.parts import Counter, Part
from recsys.training.precision import choose_precision


class Network(nn.Module):
    """A network over sparse batches whose scores are a linear function of its last hidden layer.

    A subclass implements `last` and `loss`, and has the layer `decoder`.
    """

    decoder: ItemOutput
    likelihood: Likelihood | None = None  # what the scores mean; None: their order is all they have
    parts: Mapping[str, Part] = {}  # what training changes besides the weights

    def last(self, batch: SparseBatch) -> Tensor:
        """Return the last hidden layer, (rows, width)."""
        raise NotImplementedError

    def forward(self, batch: SparseBatch) -> Tensor:
        """Return scores (rows, items)."""
        scores: Tensor = self.decoder(self.last(batch))
        return scores

    def blocks(self, batch: SparseBatch, width: int) -> Iterator[Tensor]:
        """Yield scores of up to `width` items at a time."""
        return self.decoder.blocks(self.last(batch), width)

    def embed(self, batch: SparseBatch) -> Embeddings:
        """Return the codes of rows: the last hidden layer, unless a network has a narrower one."""
        return Embeddings(self.last(batch))

    def from_code(self, code: Tensor) -> Tensor:
        """Return the last hidden layer (rows, width) of codes (rows, size) that `embed` returns."""
        return code

    def output(self) -> tuple[Tensor, Tensor]:
        """Return the vectors (items, width) and biases (items,) that make scores of the last hidden layer."""
        return self.decoder.vectors(), self.decoder.bias

    def loss(self, batch: SparseBatch, progress: float) -> Tensor:
        """Return the training loss, mean over rows. `progress` runs from 0 to 1 over all planned updates."""
        raise NotImplementedError

    def item_tables(self) -> list[nn.Parameter]:
        """Return the weights whose gradients are sparse: none without a sampled softmax."""
        return []

    def sample_output(self, rows: SparseRows, items: int, batch_size: int) -> list[ItemTable]:
        """Prepare a sampled softmax if the settings ask for one; return the tables with sparse gradients."""
        return []


def default_batch_size(users: int) -> int:
    """Return a twentieth of the users, within 32..500: small data need many updates per epoch, large data fast ones."""
    return min(500, max(32, users // 20))


def with_autocast(context: TrainingContext, loss: Callable[[SparseBatch], Tensor]) -> Callable[[SparseBatch], Tensor]:
    """Return the loss with its matrix products in the precision of the context."""

    def in_precision(batch: SparseBatch) -> Tensor:
        with torch.autocast(batch.values.device.type, torch.bfloat16, enabled=context.precision == "bf16"):
            return loss(batch)

    return in_precision


def with_weight_averaging(
    one_epoch: Callable[[], float], trained: nn.Module, averaged: nn.Module, decay: float, held: Counter | None = None
) -> Callable[[], float]:
    """Return an epoch function that keeps a running average of the weights; it reduces noise from the final steps.

    After epoch n the average moves max(1 / n, 1 - decay) of the way to the trained weights: at first it is their mean.

    Parameters
    ----------
    one_epoch : callable
        Trains `trained` for one epoch and returns its loss.
    trained, averaged : Module
        Networks of the same shape; `averaged` is updated in place.
    decay : float
        Share of the average that is kept at each epoch, in [0, 1).
    held : Counter, optional
        Epochs that the average holds already; it counts on.

    Returns
    -------
    callable

    References
    ----------
    Izmailov et al.: Averaging Weights Leads to Wider Optima and Better Generalization, UAI 2018.
    """
    done = held or Counter()

    def epoch() -> float:
        loss = one_epoch()
        step = max(1 / (done.next() + 1), 1 - decay)
        with torch.no_grad():
            for average, weight in zip(averaged.parameters(), trained.parameters(), strict=True):
                average.lerp_(weight, step)
        return loss

    return epoch


class NetworkConfig(Protocol):
    """The settings that every NetworkRecommender needs; `average` and `beta2` are optional."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def epochs(self) -> int:
        """Planned number of epochs."""

    @property
    def batch_size(self) -> int | None:
        """Rows in a batch; None for `default_batch_size`."""

    @property
    def learning_rate(self) -> float:
        """Step size of Adam."""

    @property
    def l2(self) -> float | None:
        """Weight decay: the gradient of each weight w gets l2 * w."""


NetworkConfigT = TypeVar("NetworkConfigT", bound=NetworkConfig, default=Any)


class NetworkRecommender(Recommender[NetworkConfigT], Reconstruction):
    """A model trained with Adam on shuffled batches; a subclass implements `_build`.

    With a setting `average` above 0 the model is the running average of the weights after each epoch (see
    `with_weight_averaging`); `beta2` is Adam's.
    """

    explained_by: Method = "integrated gradients"
    learns_in_bf16: ClassVar[bool] = False  # as well as in float32: measured by benchmarks/precision.py
    network: Network

    def __init__(self, config: NetworkConfigT | None = None):
        super().__init__(config)
        if getattr(self.config, "output", "linear") == "cosine":
            # A code turns sharply where a history is almost empty, which the integral would have to follow.
            self.explained_by = "leave-one-out"

    @abstractmethod
    def _build(self, items: int) -> Network:
        """A fresh network for a catalog of `items`, weights drawn from torch's current generator."""

    def _checked_start(self, context: TrainingContext, items: int) -> TrainingContext:
        context = super()._checked_start(context, items)
        where = context.resolve_device(), items, self.learns_in_bf16, context.group.size
        return replace(context, precision=choose_precision(context.precision, *where))

    def _fit(self, matrix: csr_matrix, context: TrainingContext) -> None:
        config, device = self.config, context.resolve_device()
        network = self.network = self._build(matrix.shape[1]).to(device)
        rows = self._rows(matrix, device)
        for output in outputs_of(network):
            check_cells(output.likelihood, matrix)
        if context.start is None:
            self._initialize(rows)
        else:
            network.load_state_dict(context.start.state)
        if context.group.size > 1:
            self._prepare_process(matrix, context)
        average = getattr(config, "average", 0.0)
        averaged = copy.deepcopy(network) if average else network
        one_epoch = self._one_epoch(rows, config.batch_size or default_batch_size(len(rows)), context)
        if average:
            self.network, held = averaged, Counter(int(context.start is not None))
            one_epoch = with_weight_averaging(one_epoch, network, averaged, average, held)
            context.checkpoints.keep(trained=network, held=held)
        self.epochs = train(averaged, one_epoch, self.score, context.planned(config.epochs), context)
        for output in outputs_of(network):
            output.working = None

    def _initialize(self, rows: SparseRows) -> None:
        """Set weights of the new network that depend on the data; none by default."""

    def untrained(self, n_items: int) -> Self:
        """Initialize the model with random weights, without training, for tests and benchmarks.

        Parameters
        ----------
        n_items : int
            Size of the catalog.

        Returns
        -------
        Self
            The model itself, ready to score. Weights are drawn from torch's current generator.
        """
        self.n_items, self.epochs = n_items, []
        self.network = self._build(n_items)
        self.network.eval()
        return self

    def _one_epoch(self, rows: SparseRows, batch_size: int, context: TrainingContext) -> Callable[[], float]:
        """A function that trains for one epoch, here one pass over all rows, and returns the mean loss."""
        network, config = self.network, self.config
        tables = network.sample_output(rows, cast(int, self.n_items), batch_size)
        steps = steps_per_epoch(len(rows), batch_size)
        optimizer = self._optimizer(network, tables, context, context.planned(config.epochs) * steps)
        planned = config.epochs * steps
        updates = Counter(0 if context.start is None else planned)
        context.checkpoints.keep(optimizer=OptimizerState(optimizer, network), updates=updates, **network.parts)

        def loss(batch: SparseBatch) -> Tensor:
            return network.loss(batch, min(1.0, updates.next() / planned))

        return lambda: one_pass(rows, batch_size, with_autocast(context, loss), optimizer, context)

    def _optimizer(
        self, part: nn.Module, tables: list[ItemTable], context: TrainingContext, steps: int, name: str = "rate"
    ) -> Optimizer:
        """The optimizer of a part of the network, by the config; in a warm start its rate falls to 0 over `steps`."""
        optimizer = self._constant_optimizer(part, tables, context)
        if context.start is None:
            return optimizer
        context.checkpoints.keep(**{name: (done := Counter())})
        return FallingRate(optimizer, steps, done)

    def _constant_optimizer(self, part: nn.Module, tables: list[ItemTable], context: TrainingContext) -> Optimizer:
        """An optimizer by the config; data-parallel in a group of processes."""
        on_cpu = context.resolve_device().type == "cpu"
        mixed = (
            context.precision == "bf16" and on_cpu and context.group.size == 1
        )  # several processes add up float32 gradients
        config, beta2 = self.config, getattr(self.config, "beta2", 0.999)
        optimizer = make_optimizer(part, tables, config.learning_rate, self._weight_decay(), mixed, beta2)
        if context.group.size == 1:
            return optimizer
        if tables:
            raise UnsupportedError(
                f"Expected softmax=full in {context.group.size} processes, found sampled: its sparse gradients cannot "
                "be added up over processes. Train it in one process."
            )
        return DataParallelOptimizer(optimizer, part, context.group)

    def _weight_decay(self) -> float:
        return self.config.l2 or 0.0

    def training_memory(self, items: int) -> TrainingMemory:
        """Return the memory that training on a catalog of `items` will hold, without allocating it."""
        with torch.device("meta"):
            return TrainingMemory.of(self._build(items), getattr(self.config, "average", 0.0) > 0)

    def _prepare_process(self, matrix: csr_matrix, context: TrainingContext) -> None:
        group = context.group
        group.require_same((*matrix.shape, matrix.nnz, int(matrix.indices.sum(dtype="int64"))), "ratings")
        if not group.is_main:  # its own dropout and noise; order and weights come from the main process
            torch.manual_seed(context.seed + group.rank)

    def _rows(self, matrix: csr_matrix, device: torch.device) -> SparseRows:
        """The rows to cut batches from."""
        return SparseRows(matrix, device)

    def _batch(self, history: csr_matrix) -> SparseBatch:
        return SparseRows(history, next(self.network.parameters()).device).everything()

    def _score(self, history: csr_matrix, users: NDArray[Any] | None) -> Tensor:
        scores: Tensor = self.network(self._batch(history))
        return scores

    def _score_blocks(self, history: csr_matrix, users: NDArray[Any] | None, width: int) -> Iterator[Tensor]:
        return self.network.blocks(self._batch(history), width)

    def _score_some(self, history: csr_matrix, items: NDArray[Any]) -> Tensor:
        last, (weight, bias) = self.network.last(self._batch(history)), self.network.output()
        wanted = torch.as_tensor(items, device=weight.device)
        return nn.functional.linear(last.to(weight.dtype), weight[wanted], bias[wanted])

    def _contributions(self, history: csr_matrix, items: NDArray[Any]) -> Tensor:
        if self.explained_by != "integrated gradients":
            return super()._contributions(history, items)
        layer = next(part for part in self.network.modules() if isinstance(part, SparseInput))
        batch = self._batch(history)
        return integrated_gradients(self.network, layer, batch, torch.as_tensor(items, device=batch.items.device))

    def _embed_items(self) -> Tensor:
        """The weights of the items less their mean: what all items share changes the order of no list."""
        weight = self.network.output()[0]
        return weight - weight.mean(dim=0)

    def _embed_users(self, history: csr_matrix, users: NDArray[Any] | None) -> Embeddings:
        return self.network.embed(self._batch(history))

    def _item_scoring_vectors(self) -> Tensor:
        weight, bias = self.network.output()
        return torch.cat([weight, bias[:, None]], dim=1)

    def _user_scoring_vectors(self, history: csr_matrix, users: NDArray[Any] | None) -> Tensor:
        last = self.network.last(self._batch(history))
        return torch.cat([last, last.new_ones(len(last), 1)], dim=1)

    def to_bf16(self) -> None:
        """Score with weights and products in bfloat16 from now on, in half the memory."""
        self.network.to(torch.bfloat16)

    def _get_state(self) -> dict[str, Tensor]:
        return dict(self.network.state_dict())

    def _set_state(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        assert self.n_items is not None
        self.network = self._on_meta(self.n_items)
        self.network.load_state_dict(state, assign=True)
        self.network.to(device).eval()

    def _state_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return module_spec(self._on_meta(n_items))

    def _start_spec(self, n_items: int, state: Mapping[str, Tensor]) -> StateSpec:
        return self._state_spec(n_items, state)

    def _on_meta(self, n_items: int) -> Network:
        """A network without memory: no weights are drawn only to be replaced."""
        with torch.device("meta"):
            return self._build(n_items)
