"""Holds the model folder as a format: read, written, found; no torch."""
