"""Measures answers, and tells the figures: report and model card."""
