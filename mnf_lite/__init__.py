"""Normalizing flows and multiplicative normalizing flows, small enough to read beside the book."""

from mnf_lite.prediction import predict
from mnf_lite.training import fit

__all__ = ["fit", "predict"]
