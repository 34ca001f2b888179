"""A folder of results → report.html and report.md: tables with intervals, plots, best and worst."""

from .compare import compare
from .write import write_report

__all__ = ["compare", "write_report"]
