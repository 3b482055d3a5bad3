"""Finds pretrained encoders, and knows where the parts of each family are."""
