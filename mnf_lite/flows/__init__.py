"""Normalizing flows: invertible maps with a Jacobian determinant that is cheap."""

from mnf_lite.flows.affine import ActNorm, AffineConstant
from mnf_lite.flows.autoregressive import IAF, MAF
from mnf_lite.flows.base import Compose, Density, Flow, NormalizingFlow, StandardNormal
from mnf_lite.flows.coupling import AdditiveCoupling, AffineCoupling, GatedCoupling
from mnf_lite.flows.elementwise import Exp, Sigmoid
from mnf_lite.flows.linear import InvertibleLinear
from mnf_lite.flows.planar import Planar, Radial
from mnf_lite.flows.spline import SplineAutoregressive, SplineCoupling

__all__ = [
    "IAF",
    "MAF",
    "ActNorm",
    "AdditiveCoupling",
    "AffineConstant",
    "AffineCoupling",
    "Compose",
    "Density",
    "Exp",
    "Flow",
    "GatedCoupling",
    "InvertibleLinear",
    "NormalizingFlow",
    "Planar",
    "Radial",
    "Sigmoid",
    "SplineAutoregressive",
    "SplineCoupling",
    "StandardNormal",
]
