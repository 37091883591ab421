"""Normalizing flows and multiplicative normalizing flows, small enough to read beside the book that derives them."""
