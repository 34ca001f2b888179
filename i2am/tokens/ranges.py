"""Range texts such as `0-7,last` or `single.3`, by which a user chooses steps, layers and heads."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from ..errors import I2AMError

# From and to, both included: a number, counted from the end if negative; or what only the count of
# numbers tells, as it was written: "50%", or the name of a layer, "single.3".
Bound = int | str
Ranges = tuple[tuple[Bound, Bound], ...]

NOTHING: Ranges = ((0, -1),)  # resolved: contains no number, where () contains all

_BOUND = r"(?:last|-?\d+|\d+(?:\.\d+)?\s*%|[a-z_]+(?:[. ]\d+){0,2})"
_PART = re.compile(rf"({_BOUND})(?:\s*-\s*({_BOUND}))?", re.ASCII | re.IGNORECASE)
_LAYERS = "layers"  # the one input whose numbers have names
_EXAMPLES = "0-7,12, last or 50%-100%"
_LAYER_EXAMPLES = f"{_EXAMPLES}, or names such as double or single.3"


def parse_ranges(text: str, name: str) -> Ranges:
    """`0-7,12,last` → ((0, 7), (12, 12), (-1, -1)); an empty text → (), which means all.

    Raises I2AMError naming the input `name` if the text is anything else.
    """
    ranges: list[tuple[Bound, Bound]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _PART.fullmatch(part)
        bounds = () if match is None else tuple(_bound(one) for one in match.groups() if one)
        if not bounds or (name != _LAYERS and any(map(_is_name, bounds))):
            raise I2AMError(
                f"{name} cannot be read: found “{part}” in “{text}”. Write numbers and ranges from "
                f"0, such as {_LAYER_EXAMPLES if name == _LAYERS else _EXAMPLES}; leave it empty "
                "for all."
            )
        first, last = bounds[0], bounds[-1]
        if isinstance(first, str) and _is_name(first) and isinstance(last, int) and last >= 0:
            last = f"{first.split('.')[0]}.{last}"  # single.3-7
        if isinstance(first, int) and isinstance(last, int) and first > last > -1:
            raise I2AMError(f"{name} runs backwards: “{part}”. Write the smaller number first.")
        ranges.append((first, last))
    return tuple(ranges)


def resolve_ranges(ranges: Ranges, count: int, layers: Sequence[str] = ()) -> Ranges:
    """Ranges as written → ranges of plain numbers from 0, of which there are `count`.

    layers: what bounds such as `single.3` are names of: "single 3", one for each number. Where
    nothing is chosen the answer is NOTHING, for () means all.

    Raises I2AMError for a name that is not among them.
    """
    resolved: list[tuple[Bound, Bound]] = []
    for first, last in ranges:
        low = _numbers_of(first, count, layers)[0]
        high = _numbers_of(last, count, layers)[1]
        if first == last and isinstance(first, str) and not _is_name(first):
            low = high = min(count - 1, math.floor(_fraction(first) * count))  # "50%": one number
        if max(0, low) <= high:
            resolved.append((max(0, low), high))
    return tuple(resolved) or (NOTHING if ranges else ())


def in_ranges(ranges: Ranges, number: int) -> bool:
    """Whether resolved ranges contain `number`; empty ranges contain every number."""
    return not ranges or any(int(first) <= number <= int(last) for first, last in ranges)


def ranges_text(ranges: Ranges) -> str:
    """Ranges as a user writes them: "0-7,12,last"."""
    parts = [[*map(_written, dict.fromkeys(pair))] for pair in ranges]
    return ",".join("-".join(part) for part in parts)


def select_indices(text: str, count: int, name: str, layers: Sequence[str] = ()) -> list[int]:
    """The numbers below `count` that a range text contains, in order.

    layers: their names, if they are layers.

    Raises I2AMError if the text cannot be read or contains none of them.
    """
    ranges = resolve_ranges(parse_ranges(text, name), count, layers)
    chosen = [number for number in range(count) if in_ranges(ranges, number)]
    if not chosen:
        raise I2AMError(
            f"{name} asks for “{text}”, but there are only 0 to {count - 1}. Widen the range."
        )
    return chosen


def _bound(text: str) -> Bound:
    text = text.lower().replace(" ", ".") if text[0].isalpha() else text.replace(" ", "")
    if text == "last":
        return -1
    return text if text.endswith("%") or text[0].isalpha() or text[0] == "_" else int(text)


def _written(bound: Bound) -> str:
    return "last" if bound == -1 else str(bound)


def _is_name(bound: Bound) -> bool:
    return isinstance(bound, str) and not bound.endswith("%")


def _fraction(bound: str) -> float:
    return float(bound[:-1]) / 100


def _numbers_of(bound: Bound, count: int, layers: Sequence[str]) -> tuple[int, int]:
    """The first number a range has that starts at a bound, and the last of one that ends there.

    A percentage is a place between the first number's start and the last one's end: a number lies
    on the side that its middle lies on.
    """
    if isinstance(bound, int):
        number = bound if bound >= 0 else count + bound
        return number, number
    if not _is_name(bound):
        first = math.ceil(_fraction(bound) * count - 0.5)
        return first, min(first, count) - 1
    names = [name.lower().replace(" ", ".") for name in layers]
    own = [n for n, name in enumerate(names) if f"{name}.".startswith(f"{bound}.")]
    if not own:
        raise I2AMError(
            f"There is no layer “{bound}”. The layers of this model are {_kinds(layers)}. "
            "Choose one of them, or numbers from 0."
        )
    return own[0], own[-1]


def _kinds(layers: Sequence[str]) -> str:
    """Layers in short, by their kind of block: "double 0 to double 18, single 0 to single 37"."""
    kinds: dict[str, list[str]] = {}
    for name in layers:
        kinds.setdefault(name.split(" ")[0], []).append(name)
    spans = (own[0] if len(own) == 1 else f"{own[0]} to {own[-1]}" for own in kinds.values())
    return ", ".join(spans) or "not known here"
