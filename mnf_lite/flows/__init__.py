"""Normalizing flows: invertible maps with a Jacobian determinant that is cheap."""

from mnf_lite.flows.base import Compose, Flow
from mnf_lite.flows.coupling import GatedCoupling

__all__ = ["Compose", "Flow", "GatedCoupling"]
