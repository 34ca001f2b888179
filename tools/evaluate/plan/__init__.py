"""Workflow file + table of pairs → a checked plan, before anything is sampled.

A plan knows every pair's prompt, and a key that covers everything its figures depend on.
"""

from .columns import Bindings, bind
from .pairs import Pair, Plan, Settings
from .table import Table, read_table
from .workflow import Workflow, read_workflow

__all__ = [
    "Bindings",
    "Pair",
    "Plan",
    "Settings",
    "Table",
    "Workflow",
    "bind",
    "read_table",
    "read_workflow",
]
