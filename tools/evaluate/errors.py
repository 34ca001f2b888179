"""Errors that the user can fix."""

from __future__ import annotations


class EvaluationError(Exception):
    """An evaluation cannot start or continue: what is wrong, what was found, what to do."""
