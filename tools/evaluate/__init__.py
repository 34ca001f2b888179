"""From one picture to a data set: a workflow over a table of pairs, on Ray, with a report.

    python dev.py evaluate --workflow FILE --pairs FILE.csv --out FOLDER
    python -m tools.evaluate --workflow FILE --pairs FILE.csv --out FOLDER    in your own ComfyUI

    from tools.evaluate import Request, evaluate
    summary = evaluate(Request(Path("workflow.json"), Path("pairs.csv"), Path("results")))

`plan` checks everything before time is spent, `worker` is ComfyUI in a Ray process, `run` hands out
the pairs, `results` keeps one file per pair, `report` reads them. See docs/evaluate.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import EvaluationError
from .requirements import check_requirements

if TYPE_CHECKING:
    from .run import Request, Summary, evaluate

__all__ = ["EvaluationError", "Request", "Summary", "evaluate"]


def __getattr__(name: str) -> Any:
    """Imports the driver on demand: workers import this package too, and do not need it."""
    if name in ("Request", "Summary", "evaluate"):
        check_requirements()
        from . import run

        return getattr(run, name)
    raise AttributeError(name)
