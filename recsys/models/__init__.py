"""The models by name. A new one is a file here and a line in MODELS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsys.errors import ConfigError
from recsys.models.autoencoder import AE, SparseAE
from recsys.models.autorec import AutoRec
from recsys.models.base import Recommender
from recsys.models.biased_mf import BiasedMF
from recsys.models.blend import Blend
from recsys.models.deep_autorec import DeepAutoRec
from recsys.models.elsa import ELSA
from recsys.models.factorisation import ALS, BPR, LMF, ItemKNN
from recsys.models.graph_filter import BSPM
from recsys.models.ials import IALS
from recsys.models.kernel_ae import KernelAE
from recsys.models.linear import EASE, EDLAE
from recsys.models.multinomial import DAE, VAE
from recsys.models.popularity import Popularity
from recsys.models.rating import Biases, GlobalMean
from recsys.models.rating_knn import RatingKNN
from recsys.models.rating_rbm import RatingRBM
from recsys.models.rating_vae import RatingDAE, RatingVAE
from recsys.models.rbm import RBM
from recsys.models.recvae import RecVAE
from recsys.models.sparse_linear import SparseEASE
from recsys.models.svd import SVD

MODELS: dict[str, type[Recommender]] = {
    model.name: model
    for model in (
        Popularity,
        ItemKNN,
        ALS,
        BPR,
        LMF,
        IALS,
        SVD,
        EASE,
        EDLAE,
        SparseEASE,
        ELSA,
        BSPM,
        DAE,
        VAE,
        RecVAE,
        AE,
        SparseAE,
        RBM,
        Blend,
    )
} | {
    model.name: model
    for model in (
        GlobalMean,
        Biases,
        RatingKNN,
        BiasedMF,
        AutoRec,
        DeepAutoRec,
        RatingDAE,
        RatingVAE,
        KernelAE,
        RatingRBM,
    )
}


def create_model(name: str, settings: Mapping[str, Any] | None = None) -> Recommender:
    """A model by its name in MODELS, with settings of its Config by name. Raises ConfigError for unknown ones."""
    if name not in MODELS:
        raise ConfigError(f"Expected a model of {', '.join(MODELS)}; found {name!r}.")
    return MODELS[name].create(settings)


__all__ = ["MODELS", "Recommender", "create_model"]
