"""Holds the table of methods: what each injects, trains, checks and saves."""
