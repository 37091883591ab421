"""Layers whose weights are random variables: mean-field Gaussian and multiplicative normalizing flows."""

from mnf_lite.layers.base import BayesianLayer
from mnf_lite.layers.conv import (
    MeanFieldConv1d,
    MeanFieldConv2d,
    MeanFieldConv3d,
    MeanFieldConvTranspose2d,
    MNFConv1d,
    MNFConv2d,
    MNFConv3d,
    MNFConvTranspose2d,
)
from mnf_lite.layers.linear import MeanFieldLinear, MNFLinear
from mnf_lite.layers.network import (
    bayesian,
    kl_divergence,
    kl_parts,
    mean_network,
    plain,
    summary,
    update_priors,
)

__all__ = [
    "BayesianLayer",
    "MNFConv1d",
    "MNFConv2d",
    "MNFConv3d",
    "MNFConvTranspose2d",
    "MNFLinear",
    "MeanFieldConv1d",
    "MeanFieldConv2d",
    "MeanFieldConv3d",
    "MeanFieldConvTranspose2d",
    "MeanFieldLinear",
    "bayesian",
    "kl_divergence",
    "kl_parts",
    "mean_network",
    "plain",
    "summary",
    "update_priors",
]
