"""Explains which words an answer comes from."""
