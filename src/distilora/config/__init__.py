"""Defines every setting, reads recipes and flags into them, and writes their help and reference page."""
