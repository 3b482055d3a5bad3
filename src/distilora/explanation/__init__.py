"""Explains which words or sentences of a text an answer comes from."""
