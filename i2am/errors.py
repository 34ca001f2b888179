"""The one family of errors raised on purpose: what is wrong, what was found, what to do."""

from __future__ import annotations

import traceback
from pathlib import Path


class I2AMError(ValueError):
    """Something the user can put right; its message is shown on the node that raised it."""


class LayoutMismatch(I2AMError):
    """The tokens of an attention call are not the tokens its architecture describes."""


def fault_of(error: BaseException) -> str:
    """An error's kind and the line it came from, without its message: "KeyError in hook.py:12".

    Messages of others may quote paths and prompts, which are nobody's business.
    """
    frames = traceback.extract_tb(error.__traceback__)
    places = "".join(f" in {Path(frame.filename).name}:{frame.lineno}" for frame in frames[-1:])
    return f"{type(error).__name__}{places}"
