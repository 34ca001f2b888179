"""Range texts such as `0-7,12`, by which a user chooses steps, layers and heads."""

from __future__ import annotations

import re

from ..errors import I2AMError

Ranges = tuple[tuple[int, int], ...]
_PART = re.compile(r"(\d+)(?:\s*-\s*(\d+))?")


def parse_ranges(text: str, name: str) -> Ranges:
    """`0-7,12` → ((0, 7), (12, 12)); an empty text → (), which means all.

    Raises I2AMError naming the input `name` if the text is anything else.
    """
    ranges: list[tuple[int, int]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        match = _PART.fullmatch(part)
        if match is None:
            raise I2AMError(
                f"{name} cannot be read: found “{part}” in “{text}”. "
                "Write numbers and ranges from 0, such as 0-7,12; leave it empty for all."
            )
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first:
            raise I2AMError(f"{name} runs backwards: “{part}”. Write the smaller number first.")
        ranges.append((first, last))
    return tuple(ranges)


def in_ranges(ranges: Ranges, number: int) -> bool:
    """Whether the ranges contain `number`; empty ranges contain every number."""
    return not ranges or any(first <= number <= last for first, last in ranges)


def select_indices(text: str, count: int, name: str) -> list[int]:
    """The numbers below `count` that a range text contains, in order.

    Raises I2AMError if the text cannot be read or contains none of them.
    """
    ranges = parse_ranges(text, name)
    chosen = [number for number in range(count) if in_ranges(ranges, number)]
    if not chosen:
        raise I2AMError(
            f"{name} asks for “{text}”, but there are only 0 to {count - 1}. Widen the range."
        )
    return chosen
