"""Measures a model's answers and presents the figures: metrics, report and model card."""
