"""Range texts: what they mean and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from i2am.errors import I2AMError
from i2am.tokens import (
    in_ranges,
    parse_ranges,
    ranges_text,
    resolve_ranges,
    select_indices,
)
from i2am.tokens.ranges import NOTHING


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
        ("last", ((-1, -1),)),
        ("-1", ((-1, -1),)),
        ("-3-last", ((-3, -1),)),
        ("-3--2", ((-3, -2),)),
        ("1--2", ((1, -2),)),
        ("50%-100%", (("50%", "100%"),)),
        ("0 - 12.5 %", ((0, "12.5%"),)),
        ("Double", (("double", "double"),)),
        ("single 3, output.8.1", (("single.3", "single.3"), ("output.8.1", "output.8.1"))),
        ("single.3-7", (("single.3", "single.7"),)),
    ],
)
def test_reads(text: str, ranges: tuple[tuple[int, int], ...]) -> None:
    assert parse_ranges(text, "layers") == ranges


@pytest.mark.parametrize(
    "text",
    ["1-", "--1", "1---2", "1.5", "1 2", "0:7", "1-2-3", "1;2", "٣-", "%", "-5%", "a.b", "a b"],
)
def test_refuses(text: str) -> None:
    """The message names the input, what was found, and how to write it."""
    with pytest.raises(I2AMError, match=r"layers cannot be read: found “.*such as 0-7,12"):
        parse_ranges(text, "layers")


def test_only_layers_have_names() -> None:
    with pytest.raises(I2AMError, match="steps cannot be read: found “double” in “double”"):
        parse_ranges("double", "steps")


LAYERS = ("double 0", "double 1", "single 0", "single 1", "single 2", "single 10", "input 4.1")


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("last", [6]),
        ("-1", [6]),
        ("-9-1", [0, 1]),
        ("5-last", [5, 6]),
        ("0%-50%", [0, 1, 2]),
        ("50%-100%", [3, 4, 5, 6]),
        ("50%", [3]),
        ("0%", [0]),
        ("100%", [6]),
        ("99%-100%,1", [1]),
        ("double", [0, 1]),
        ("double.1", [1]),
        ("single.1", [3]),
        ("single.1-10", [3, 4, 5]),
        ("double.1-single.0", [1, 2]),
        ("SINGLE 2-last", [4, 5, 6]),
        ("input.4", [6]),
        ("input.4.1", [6]),
    ],
)
def test_words_and_percentages(text: str, numbers: list[int]) -> None:
    assert select_indices(text, len(LAYERS), "layers", LAYERS) == numbers


def test_halves_share_no_number() -> None:
    """However many there are, two halves give each number once."""
    for count in range(2, 30):
        halves = [select_indices(text, count, "steps") for text in ("0%-50%", "50%-100%")]
        assert sorted([*halves[0], *halves[1]]) == list(range(count))


@pytest.mark.parametrize("text", ["last-0", "-8", "single.2-1", "200%-300%", "7"])
def test_what_chooses_nothing(text: str) -> None:
    """Nothing is not everything, which an empty text means."""
    assert resolve_ranges(parse_ranges(text, "layers"), 7, LAYERS) in (NOTHING, ((7, 7),))
    with pytest.raises(I2AMError, match="there are only 0 to 6"):
        select_indices(text, 7, "layers", LAYERS)


def test_a_layer_that_is_not_there() -> None:
    with pytest.raises(I2AMError, match="no layer “doubel”"):
        select_indices("doubel", 7, "layers", LAYERS)


@pytest.mark.parametrize("text", ["0-7,12", "-3-last", "50%-100%", "single.3-single.7,double"])
def test_written_again(text: str) -> None:
    ranges = parse_ranges(text, "layers")
    assert parse_ranges(ranges_text(ranges), "layers") == ranges


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
    assert parse_ranges(ranges_text(ranges), "layers") == ranges
