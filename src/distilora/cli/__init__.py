"""Holds the command `distilora`, one file a command."""
