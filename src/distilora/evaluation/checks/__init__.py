"""Checks of a model's behaviour on small texts made for the purpose, in the manner of CheckList (Ribeiro et al. 2020)."""
