"""Reads and writes bytes, records and tables, on a disk or in a store: strictly, and whole or not at all."""
