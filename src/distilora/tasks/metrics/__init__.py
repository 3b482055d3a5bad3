"""Computes metrics and their intervals from probabilities, without torch."""
