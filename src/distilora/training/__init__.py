"""Training: the loop, and what makes it resumable and distributed."""
