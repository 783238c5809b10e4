"""Train on a dataset: `deep-piano train`, as an entry point of `ray job submit`.

Example: ray job submit --working-dir . -- python -m jobs.train s3://music/set -o s3://music/run \
    --workers 4
"""

from __future__ import annotations

import sys

from deep_piano.cli.main import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
