"""Weights and sounds of others: what there is, and where it lies."""
