"""Range texts: what they mean and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from i2am.errors import I2AMError
from i2am.tokens import in_ranges, parse_ranges, select_indices


@pytest.mark.parametrize(
    ("text", "ranges"),
    [
        ("", ()),
        ("  ", ()),
        (",", ()),
        ("3", ((3, 3),)),
        ("0-7,12", ((0, 7), (12, 12))),
        (" 0 - 7 , 12 ,", ((0, 7), (12, 12))),
        ("5,1-2", ((5, 5), (1, 2))),
    ],
)
def test_reads(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert parse_ranges(text, "layers") == ranges


@pytest.mark.parametrize(
    "text", ["a", "-1", "1-", "1--2", "1.5", "1 2", "0:7", "1-2-3", "1;2", "٣-"]
)
def test_refuses(text: str) -> None:
    """The message names the input, what was found, and how to write it."""
    with pytest.raises(I2AMError, match=r"layers cannot be read: found “.*such as 0-7,12"):
        parse_ranges(text, "layers")


def test_refuses_to_run_backwards() -> None:
    with pytest.raises(I2AMError, match="steps runs backwards: “7-3”"):
        parse_ranges("1,7-3", "steps")


def test_refuses_a_range_without_a_member() -> None:
    with pytest.raises(I2AMError, match="heads asks for “5-9”, but there are only 0 to 4"):
        select_indices("5-9", 5, "heads")


@given(st.sets(st.integers(0, 30)), st.integers(1, 31))
def test_picks_what_it_says(wanted: set[int], count: int) -> None:
    """The numbers asked for that exist, in order; all of them for an empty text."""
    text = ",".join(map(str, wanted))
    exist = sorted(wanted & set(range(count))) if wanted else list(range(count))
    if exist:
        assert select_indices(text, count, "steps") == exist
        assert [n for n in range(count) if in_ranges(parse_ranges(text, "steps"), n)] == exist
    else:
        with pytest.raises(I2AMError):
            select_indices(text, count, "steps")


@given(st.text(max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Whatever is typed, only our own error comes out."""
    try:
        ranges = parse_ranges(text, "layers")
    except I2AMError:
        return
    assert all(0 <= first <= last for first, last in ranges)
