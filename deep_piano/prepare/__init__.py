"""A corpus becomes a dataset."""
