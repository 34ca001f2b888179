"""python -m tools.evaluate: the same as dev.py evaluate, in an environment of your own."""

import sys

from .command import main

if __name__ == "__main__":
    sys.exit(main())
