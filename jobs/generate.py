"""Continue a folder of seeds: `deep-piano generate`, as an entry point of `ray job submit`.

Example: ray job submit --working-dir . -- python -m jobs.generate s3://music/seeds -o s3://music/out
"""

from __future__ import annotations

import sys

from deep_piano.cli.main import main

if __name__ == "__main__":
    main(["generate", *sys.argv[1:]])
