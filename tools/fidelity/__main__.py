"""python -m tools.fidelity"""

from .study import main

main()
