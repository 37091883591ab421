"""Layers whose weights are random variables: mean-field Gaussian and multiplicative normalizing flows."""

from mnf_lite.layers.base import BayesianLayer
from mnf_lite.layers.conv import MeanFieldConv2d, MNFConv2d
from mnf_lite.layers.linear import MeanFieldLinear, MNFLinear
from mnf_lite.layers.network import bayesian, kl_divergence, kl_parts, plain

__all__ = [
    "BayesianLayer",
    "MNFConv2d",
    "MNFLinear",
    "MeanFieldConv2d",
    "MeanFieldLinear",
    "bayesian",
    "kl_divergence",
    "kl_parts",
    "plain",
]
