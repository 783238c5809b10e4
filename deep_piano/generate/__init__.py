"""A seed becomes a piece; a folder of seeds, a folder of pieces."""
