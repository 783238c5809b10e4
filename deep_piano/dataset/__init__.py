"""What `prepare` writes and `train` reads: rows, shards, manifest."""
