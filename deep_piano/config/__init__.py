"""`ray_config.yaml` and the command line become one frozen `Config`."""
