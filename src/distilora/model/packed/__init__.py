"""Computes blocks on rows that lie one after the other, without padding."""
