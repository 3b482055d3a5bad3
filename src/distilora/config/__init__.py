"""Holds every setting: how recipes and flags are read, and the reference page."""
