"""The models by name. To add one: a file in a subpackage, and a line in MODELS."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from recsys.errors import ConfigError
from recsys.models.autoencoders.mult_vae import DAE, VAE
from recsys.models.autoencoders.plain import AE, SparseAE
from recsys.models.autoencoders.rbm import RBM
from recsys.models.autoencoders.recvae import RecVAE
from recsys.models.base import Recommender
from recsys.models.blend import Blend
from recsys.models.content.content_dae import ContentDAE
from recsys.models.content.content_knn import ContentKNN
from recsys.models.content.content_map import ContentMap
from recsys.models.factorization.ials import IALS
from recsys.models.factorization.implicit_models import ALS, BPR, LMF
from recsys.models.factorization.svd import SVD
from recsys.models.linear.bspm import BSPM
from recsys.models.linear.chebycf import ChebyCF
from recsys.models.linear.ease import EASE, EDLAE
from recsys.models.linear.elsa import ELSA
from recsys.models.linear.item_knn import ItemKNN
from recsys.models.linear.sparse_ease import SparseEASE
from recsys.models.popularity import Popularity
from recsys.models.ratings.autorec import AutoRec
from recsys.models.ratings.base import Biases, GlobalMean
from recsys.models.ratings.biased_mf import BiasedMF
from recsys.models.ratings.blend import RatingBlend
from recsys.models.ratings.deep_autorec import DeepAutoRec
from recsys.models.ratings.kernel_ae import KernelAE
from recsys.models.ratings.knn import RatingKNN
from recsys.models.ratings.rbm import RatingRBM
from recsys.models.ratings.vae import RatingDAE, RatingVAE
from recsys.models.sequential.last_item import LastItem
from recsys.models.sequential.recent_popularity import RecentPopularity
from recsys.models.sequential.sasrec import SASRec
from recsys.models.sequential.svae import SVAE

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
        ChebyCF,
        DAE,
        VAE,
        RecVAE,
        AE,
        SparseAE,
        RBM,
        RecentPopularity,
        LastItem,
        SASRec,
        SVAE,
        ContentKNN,
        ContentMap,
        ContentDAE,
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
        RatingBlend,
    )
}

Blend.kinds = ContentMap.kinds = MODELS  # they can have any of them as a member


def create_model(name: str, settings: Mapping[str, Any] | None = None) -> Recommender:
    """Create a model by name.

    Parameters
    ----------
    name : str
        A key of MODELS.
    settings : mapping, optional
        As in `Recommender.create`.

    Returns
    -------
    Recommender
        Not fitted.

    Raises
    ------
    ConfigError
        If the name, a preset or a setting is unknown, or a value does not fit.
    """
    if name not in MODELS:
        raise ConfigError(f"Expected a model of {', '.join(MODELS)}; found {name!r}.")
    return MODELS[name].create(settings)


__all__ = ["MODELS", "Recommender", "create_model"]
