"""The networks, their sizes and weights."""
