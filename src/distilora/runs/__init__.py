"""Runs a whole training run: checked, resolved, trained, saved, measured, told."""
