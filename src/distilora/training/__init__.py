"""Trains: the loop, and what makes it resumable and shared."""
