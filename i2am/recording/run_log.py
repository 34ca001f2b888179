"""Which steps of a run were evaluated, and how completely they were recorded."""

from __future__ import annotations

from collections import Counter
from functools import lru_cache

from ..tokens import Role, TokenLayout
from ..tokens.architectures.base import Layer


class RunLog:
    """The steps of one run and the calls recorded in them. The recorder holds the lock."""

    def __init__(self, joint: bool) -> None:
        self.joint = joint  # whether text, result and references share one softmax
        self.steps: list[tuple[int, float]] = []  # number in the schedule, noise level
        self.counts: list[dict[Layer, int]] = []  # calls of each layer, step by step
        self.expected = 0  # evaluations of the model within the plan
        self.recorded = 0  # those of them with a recorded call
        self.finished = 0  # steps that were closed
        self.keys: tuple[int, ...] = ()  # text, own, each reference, in the call with the most
        self.ways: Counter[str] = Counter()  # how calls were computed, in words, and how many
        self._pending = False  # whether no call of the current evaluation was recorded yet

    def is_new(self, step: int) -> bool:
        """Whether an evaluation at this step begins another step."""
        return not self.steps or self.steps[-1][0] != step

    def begin_step(self, step: int, sigma: float) -> None:
        """Note that the model is evaluated at another step of the schedule."""
        self.steps.append((step, sigma))
        self.counts.append({})

    def begin_evaluation(self) -> None:
        """Note another evaluation of the model."""
        self.expected += 1
        self._pending = True

    def note_call(self, layout: TokenLayout) -> None:
        """Note that a call of the current evaluation is recorded."""
        self.joint = any(span.role is Role.GENERATED for span in layout.keys)
        self.keys = max(self.keys, _key_counts(layout), key=sum)
        self.recorded += self._pending
        self._pending = False

    def close_step(self, counts: dict[Layer, int]) -> None:
        """Finish the newest step. counts: how many calls each layer had."""
        if counts:
            self.counts[-1] |= counts
        self.finished = len(self.steps)


@lru_cache(maxsize=64)  # calls of a run have few layouts
def _key_counts(layout: TokenLayout) -> tuple[int, ...]:
    """A call's layout → how many keys are text, the picture's own and each reference's.

    () if they do not share one softmax.
    """
    if any(span.softmax for span in layout.keys):
        return ()
    own = sum(span.length for span in layout.keys if span.role is Role.GENERATED)
    references = tuple(span.length for span in layout.references)
    return layout.key_count - own - sum(references), own, *references
