"""Entry points of `ray job submit`."""
