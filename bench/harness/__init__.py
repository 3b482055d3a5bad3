"""What benches share: cells, claims, and the check that claims follow from raw rows."""
