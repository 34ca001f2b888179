"""python -m tools.bench"""

from .bench import main

main()
