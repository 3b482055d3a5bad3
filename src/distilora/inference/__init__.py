"""Inference: an artifact and texts become answers; only backends/torch_backend.py imports torch."""
