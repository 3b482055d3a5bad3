"""Computes figures and their intervals from probabilities; no torch."""
