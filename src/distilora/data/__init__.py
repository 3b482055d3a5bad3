"""Turns a source into clean, divided examples; knows no task, which is handed to it, and no torch."""
