"""python -m tools.evaluate: the same as dev.py evaluate, in an environment of your own."""

import sys

from .command import main
from .requirements import check_requirements

if __name__ == "__main__":
    check_requirements()
    sys.exit(main())
