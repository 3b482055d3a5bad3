"""Measures a model's answers and presents the figures: metrics, report, comparison and model card."""
