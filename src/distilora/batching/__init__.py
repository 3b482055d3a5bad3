"""Turns examples into ragged rows, and rows into micro-batches; no torch."""
