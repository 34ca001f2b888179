"""What the person at the keyboard can put right."""

from __future__ import annotations


class EvaluationError(Exception):
    """An evaluation cannot start or go on: what is wrong, what was found, what to do."""
