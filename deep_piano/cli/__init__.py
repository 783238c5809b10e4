"""The commands, a module a verb: one line of result, one line of error, an exit code."""
