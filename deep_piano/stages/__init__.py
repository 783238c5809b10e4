"""The stages on Ray: the only modules that import it."""
