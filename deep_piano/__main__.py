"""``python -m deep_piano`` does the same as ``deep-piano``."""

from deep_piano.cli.main import main

if __name__ == "__main__":
    main()
