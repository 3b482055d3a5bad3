"""Carries out a whole training run: checked, resolved, trained, saved, measured, reported."""
