"""Scoring: tables of any size, resumably, on one machine or on Ray."""
