"""Make a dataset of a corpus: `deep-piano prepare`, as an entry point of `ray job submit`.

Example: ray job submit --working-dir . -- python -m jobs.prepare s3://music/corpus -o s3://music/set
"""

from __future__ import annotations

import sys

from deep_piano.cli.main import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
