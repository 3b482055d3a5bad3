"""HTTP: many models on shared encoders, requests computed in mixed batches, a page that shows what a model thinks and why."""
