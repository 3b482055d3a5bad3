"""Artifacts: the format of a model folder, read, written and found without torch."""
