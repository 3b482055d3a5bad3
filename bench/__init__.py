"""Benches: what makes results/. Each module has `compute(rows)`; `python -m bench.NAME` measures what is missing."""
