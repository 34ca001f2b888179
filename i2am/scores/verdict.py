"""Influence → a sentence for each reference: whether it is used, and where.

A verdict is about a part of the result: a given region, the mask of where the reference was meant
to go, or the places where the reference is strongest. A share over the whole result would hide a
reference that is used only in a small part.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor

from ..recording import Recording
from .effect import output_change
from .influence import NOTHING, ColorBy, Influence, measure_influence, strength_maps

# Calibrated on the demo model (web/docs/I2AM_Influence.md).
HARDLY, WEAKLY = 0.25, 0.5  # times the share that a reference's size would give
MORE_INSIDE, LESS_INSIDE = 1.25, 0.8  # the share inside a mask divided by the share outside
STANDS_OUT = 1.5  # likewise for the strongest places, which are chosen to be high
ALL_OF_IT = 0.9999  # change of the output: the softmax holds no other keys
LITTLE = 0.25  # change of the output; a plain grey reference makes 0.24 to 0.37
_COMPACT = 0.3  # highest standard deviation of places with a name, as a fraction of the side
_ROWS, _COLUMNS = ("upper", "", "lower"), ("left", "", "right")


class Part(str, Enum):
    """The part of the result that a verdict is about."""

    REGION = "region"  # given by the user
    MASK = "mask"  # where the reference was meant to go
    STRONGEST = "strongest places"  # of each reference


@dataclass(frozen=True)
class _Shares:
    """A reference's share of the attention: inside the part, outside it, over the whole result.

    size: the share that its number of tokens would give; None if unknown.
    """

    inside: float
    outside: float | None
    whole: float
    size: float | None

    @property
    def ratio(self) -> float:
        """The share inside divided by the share outside."""
        return self.inside / max(self.outside or 0.0, 1e-9)

    def below(self, times: float) -> bool:
        """Whether the share inside is less than `times` the share that the size would give."""
        return self.size is not None and self.inside < times * self.size


def influence_verdict(
    recording: Recording, found: Influence, part: Part, mask: Tensor | None = None
) -> str:
    """Influence → a sentence for each reference, one a line, by the thresholds of this module.

    The effect is added if it was recorded. found: measured inside the part; for the strongest
    places, over the whole result. mask: of the part, (1 or batch, height, width).
    """
    given = "attention" if recording.header.joint else "attention to text and references"
    lines: list[str] = []
    for r in range(len(recording.header.references)):
        where, shares, places = f"the {part.value}", _shares(found, r), mask
        if part is Part.STRONGEST:
            strongest = strongest_places(recording, r)
            where = places_name(strongest)
            if bool(strongest.flatten(1).any(1).all()):
                places = strongest.float()
                shares = _shares(measure_influence(recording, places), r)
        text = f"Reference {r + 1} {_words(shares, where, part, given)}"
        if shares.size is not None and shares.inside >= NOTHING:
            text += f", {shares.inside / shares.size:.2g} × what its size would give"
        text += "."
        if recording.header.plan.effect and shares.inside >= NOTHING:
            text += f" {_effect(recording, r, places)}."
        lines.append(text)
    return "\n".join(lines)


def strongest_places(recording: Recording, reference: int) -> Tensor:
    """A reference, from 0 → where its lift is above 1 and the highest: (batch, height, width)."""
    return strength_maps(recording, ColorBy.LIFT).argmax(1) == 1 + reference


def _shares(found: Influence, reference: int) -> _Shares:
    """A reference's shares, each the mean over the batch."""
    column = 2 + reference
    return _Shares(
        float(found.inside[:, column].mean()),
        None if found.outside is None else float(found.outside[:, column].mean()),
        float(found.whole[:, column].mean()),
        None if found.even is None else max(float(found.even[column]), 1e-9),
    )


def _words(shares: _Shares, where: str, part: Part, given: str) -> str:
    """The verdict on a reference: "fills the mask: 42.0% of the attention there, …"."""
    inside, whole = f"{shares.inside:.1%} of the {given}", f"{shares.whole:.1%}"
    there = f"{inside} inside {where}" if part is not Part.STRONGEST else f"{inside} {where}"
    if shares.inside < NOTHING:
        return f"is not used: {there}"
    if shares.below(HARDLY):
        return f"is hardly used: {there}"
    if shares.outside is None:  # the part is all of the result
        return f"is used: {inside} over the whole result"
    outside = f"{shares.outside:.1%}"
    if part is Part.STRONGEST:
        if shares.ratio < STANDS_OUT:
            return f"is used everywhere alike: {whole} of the {given} over the whole result"
        use = "is used weakly" if shares.below(WEAKLY) else "is used most"
        return f"{use} {where}: {inside} there, {outside} elsewhere, {whole} over the whole result"
    if shares.ratio < LESS_INSIDE:
        return (
            f"is used outside {where}: {outside} of the {given} there, {shares.inside:.1%} inside"
        )
    if shares.ratio < MORE_INSIDE:
        return (
            f"is used alike inside and outside {where}: {inside} inside, {outside} outside, so "
            "nothing says that it made this part"
        )
    use = "is used weakly in" if shares.below(WEAKLY) else "fills"
    return f"{use} {where}: {inside} there, {outside} outside it"


def _effect(recording: Recording, reference: int, places: Tensor | None) -> str:
    """The effect of a reference: "Muting it would change attention's output by 62% …"."""
    whole = float(output_change(recording)[:, reference].mean())
    if whole > ALL_OF_IT:
        return "This attention reads nothing else, so muting it would leave no output"
    if places is None:
        there, also = whole, "over the whole result"
    else:
        there = float(output_change(recording, places)[:, reference].mean())
        also = f"there, and by {whole:.0%} over the whole result"
    little = f" little, by {there:.0%}" if there < LITTLE else f" by {there:.0%}"
    return f"Muting it would change attention's output{little} {also}"


def places_name(places: Tensor) -> str:
    """Places (batch, height, width), bool → where they are: "in the lower right".

    Only if the same words fit all pictures; else "where it is strongest".
    """
    names = {_one_name(one) for one in places}
    name = names.pop() if len(names) == 1 else None
    return f"in the {name}" if name else "where it is strongest"


def _one_name(places: Tensor) -> str | None:
    height, width = places.shape
    rows, columns = torch.nonzero(places, as_tuple=True)
    if not len(rows):
        return None
    y, x = (rows + 0.5) / height, (columns + 0.5) / width
    if max(float(y.std(correction=0)), float(x.std(correction=0))) > _COMPACT:
        return None
    row, column = (min(int(float(at.mean()) * 3), 2) for at in (y, x))
    words = _ROWS[row], _COLUMNS[column]
    if not words[0] and not words[1]:
        return "middle"
    if not words[1]:
        return f"{words[0]} part"
    return f"{words[0]} {words[1]}".strip() + ("" if words[0] else " part")
