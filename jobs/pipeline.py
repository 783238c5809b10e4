"""Prepare, train and generate: `deep-piano pipeline`, as an entry point of `ray job submit`.

Example: ray job submit --working-dir . -- python -m jobs.pipeline s3://music/corpus \
    s3://music/seeds -o s3://music/out --config ray_config.yaml --profile cluster
"""

from __future__ import annotations

import sys

from deep_piano.cli.main import main

if __name__ == "__main__":
    main(["pipeline", *sys.argv[1:]])
