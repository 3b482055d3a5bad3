"""Turns an artifact and texts into answers; torch only in backends/torch_backend.py."""
