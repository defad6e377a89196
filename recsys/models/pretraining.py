"""Pre-training: the first layers of an autoencoder over a large implicit log begin a network over few ratings.

The log says who took what, for every user; ratings are known of a part of it. An encoder trained on the log has learned
which items belong together, and a network over ratings has the same layers: from the items of a user to a hidden layer,
and on to a code.

    log        items a user took      -> encoder -> posterior -> hidden -> which items
    ratings    items a user rated     -> encoder -> posterior -> hidden -> which ratings
                                         (the layers of equal name and shape are taken over, as far as they reach)

Erhan et al.: Why Does Unsupervised Pre-training Help Deep Learning?, JMLR 11, 2010.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from recsys.data.matrix import UserItemMatrix
from recsys.errors import ConfigError, UnsupportedError
from recsys.models import Recommender, create_model
from recsys.models.autoencoders.mult_vae import DAE, VAE
from recsys.models.autoencoders.plain import AE, SparseAE
from recsys.models.ratings.kernel_ae import KernelAE
from recsys.models.ratings.masked_autoencoder import MaskedAutoencoder
from recsys.models.trained import TrainedModel
from recsys.models.warm_start import items_between
from recsys.training.context import WarmStart

ENCODERS = (VAE, DAE, AE, SparseAE)
_LAYERS = ("posterior", "hidden")  # after the first, in order


@dataclass(frozen=True)
class PretrainedEncoder:
    """A trained autoencoder whose first layers a network over ratings begins with.

    Attributes
    ----------
    trained : TrainedModel
        `vae`, `dae`, `ae` or `sparse-ae`.

    Raises
    ------
    UnsupportedError
        For another model.
    """

    trained: TrainedModel

    def __post_init__(self) -> None:
        if not isinstance(self.trained.model, ENCODERS):
            names = ", ".join(kind.name for kind in ENCODERS)
            raise UnsupportedError(f"Expected an encoder of {names}, found {self.trained.model.name}.")

    def create(self, name: str = "", settings: Mapping[str, Any] | None = None) -> Recommender:
        """Create the model of ratings to fit: by users, with layers as wide as the encoder's.

        Parameters
        ----------
        name : str
            `rating-vae`, `rating-dae`, `deep-autorec` or `autorec`; `rating-vae` for a `vae` by default, otherwise
            `rating-dae`.
        settings : mapping, optional
            Those that the encoder decides (side, hidden, and latent where that layer is taken over) may be left out.

        Returns
        -------
        Recommender
            Not fitted.

        Raises
        ------
        ConfigError
            If a setting is given that does not fit the encoder.
        UnsupportedError
            If the model is none of these.
        """
        state, is_vae = self.trained.model.get_state(), isinstance(self.trained.model, VAE)
        name = name or ("rating-vae" if is_vae else "rating-dae")
        decided: dict[str, Any] = {"side": "user", "hidden": int(_first_layer(state)[0].shape[1])}
        if is_vae and name == "rating-vae":
            decided["latent"] = self.trained.model.config.latent
        model = create_model(name, settings)
        if not isinstance(model, MaskedAutoencoder) or isinstance(model, KernelAE):
            raise UnsupportedError(
                f"Expected rating-vae, rating-dae, deep-autorec or autorec to begin with an encoder, found {name}."
            )
        wrong = [key for key in settings or {} if key in decided and getattr(model.config, key) != decided[key]]
        if wrong or not model.config.presence:
            told = ", ".join(f"{key} {decided[key]}" for key in wrong) or "presence above 0"
            raise ConfigError(f"Expected settings that fit the encoder of {self.trained.model.name}: {told}.")
        return type(model)(dataclasses.replace(model.config, **decided))

    def start(self, model: Recommender, train: UserItemMatrix) -> WarmStart:
        """Return what the fit of a model on ratings begins with; the schedule is that of any fit.

        The first layer of the encoder takes histories scaled to length 1. Its rows become the weights of which ratings
        exist, divided so that a history of mean length gives the same hidden layer.

        Parameters
        ----------
        model : Recommender
            From `create`.
        train : UserItemMatrix
            What it will be fitted on.

        Returns
        -------
        WarmStart

        Raises
        ------
        DataError
            If the encoder knows none of the items.
        """
        items, state = items_between(self.trained.items, train), self.trained.model.get_state()
        cells = max(1.0, train.matrix.nnz / max(1, train.matrix.shape[0]))
        weight, bias = _first_layer(state)
        rows = items.carry(weight) / (model.config.presence * math.sqrt(cells))
        layers = {"encoder.places.weight": rows, "encoder.bias": bias}
        shapes = {key: spec.shape for key, spec in model._state_spec(len(train.items), {}).tensors.items()}
        for layer in _LAYERS:
            own = {key: state[key] for key in (f"{layer}.weight", f"{layer}.bias") if key in state}
            if not own or any(tuple(w.shape) != shapes.get(f"members.0.{key}") for key, w in own.items()):
                break
            layers |= own
        members = range(model.config.members)
        begun: dict[str, Tensor] = {f"members.{m}.{key}": torch.clone(w) for m in members for key, w in layers.items()}
        return WarmStart(begun, share=1.0, patience=None)

    def record(self, train: UserItemMatrix) -> dict[str, Any]:
        """Return what a model's record says of its encoder, plain texts and numbers."""
        source = self.trained.items.positions(train.items.ids)
        facts = {
            "model": self.trained.digest or None,
            "name": self.trained.model.name,
            "known_items": int((source >= 0).sum()),
            "new_items": int((source < 0).sum()),
        }
        return {"encoder_from": facts}


def _first_layer(state: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Weights (items, width) and biases of the first layer; of a VAE without hidden layers those of the mean alone."""
    weight, bias = state["encoder.weight"], state["encoder.bias"]
    width = state["decoder.weight"].shape[1]  # that of the last layer, which is as wide as the first in all the others
    return weight[:, :width].contiguous(), bias[:width].clone()
