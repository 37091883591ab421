"""Normalizing flows: invertible maps with a Jacobian determinant that is cheap."""

from mnf_lite.flows.affine import ActNorm, AffineConstant
from mnf_lite.flows.base import Compose, Flow, NormalizingFlow, StandardNormal
from mnf_lite.flows.coupling import AdditiveCoupling, AffineCoupling, GatedCoupling

__all__ = [
    "ActNorm",
    "AdditiveCoupling",
    "AffineConstant",
    "AffineCoupling",
    "Compose",
    "Flow",
    "GatedCoupling",
    "NormalizingFlow",
    "StandardNormal",
]
