"""Holds encoder, adapter and head, and the packed arithmetic; knows no file of a run."""
