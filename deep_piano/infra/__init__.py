"""Infrastructure: storage, assets, cluster, backend, logs, progress."""
