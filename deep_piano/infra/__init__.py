"""What every room stands on: storage, assets, cluster, backend, logs, progress."""
