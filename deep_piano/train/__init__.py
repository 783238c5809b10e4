"""A dataset becomes a checkpoint, and a checkpoint its scores."""
