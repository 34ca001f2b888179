"""The one family of errors raised on purpose: what is wrong, what was found, what to do."""


class I2AMError(ValueError):
    """Something the user can put right; its message is shown on the node that raised it."""


class LayoutMismatch(I2AMError):
    """The tokens of an attention call are not the tokens its architecture describes."""
