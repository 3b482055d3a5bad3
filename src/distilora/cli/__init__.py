"""Holds the command line `distilora`: the dispatch, the arguments that commands share, and one file a command."""
