"""The Python interface: what `import deep_piano` offers, and what the command line calls.

`music` has calls for one seed or recording, `jobs` and `tools` a call for each other command.
Settings are keyword arguments with the names of `ray_config.yaml`.
"""
