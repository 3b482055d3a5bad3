"""The release, as every artifact and report records it."""

__version__ = "0.1.0"
