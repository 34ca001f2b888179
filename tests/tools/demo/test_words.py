"""The word model's scenes: a seed always draws the same, and the prompt tells what is in them."""

from __future__ import annotations

from dataclasses import fields
from itertools import combinations, product

import numpy as np
import pytest
import torch

from tools.demo.scenes import HELD_OUT_SEEDS, HOLE_GREY, TRAINING_SEEDS
from tools.demo.words import (
    COLOUR_JITTER,
    COLOURS,
    SHAPES,
    WORDS,
    WordScenes,
    draw_things,
    draw_word_scenes,
    held_out,
    make_word_scenes,
    silhouette,
    words_of,
)

SEED = HELD_OUT_SEEDS.start


@pytest.fixture(scope="module")
def scenes() -> WordScenes:
    return make_word_scenes(40, SEED)


def test_a_seed_draws_the_same_scene_in_any_batch() -> None:
    three, alone = make_word_scenes(3, SEED), draw_word_scenes([SEED + 2])
    for field in fields(WordScenes):
        batch, one = getattr(three, field.name), getattr(alone, field.name)
        assert torch.equal(batch[2:], one) if torch.is_tensor(one) else batch[2:] == one


def test_the_prompt_names_the_things_in_their_order(scenes: WordScenes) -> None:
    for prompt, things in zip(scenes.prompts, scenes.things, strict=True):
        words = words_of(prompt)
        assert set(words) <= set(WORDS)
        assert [word for word in words if word in COLOURS] == [colour for colour, _ in things]
        assert [word for word in words if word in SHAPES] == [shape for _, shape in things]


def test_every_other_scene_shows_an_object(scenes: WordScenes) -> None:
    assert scenes.shown.tolist() == [False, True] * 20
    assert (scenes.reference[scenes.shown].flatten(1).std(1) > 0.1).all()
    assert (scenes.reference[~scenes.shown] == 0).all()
    counts = [len(things) for things in scenes.things]
    assert set(counts[::2]) == {1, 2}
    assert set(counts[1::2]) == {1}


def test_things_have_their_colours_in_the_picture_and_only_there(scenes: WordScenes) -> None:
    for number, things in enumerate(scenes.things):
        picture, boxes = scenes.target[number], scenes.box_mask[number] > 0
        for colour, _ in things:
            near = (picture - torch.tensor(COLOURS[colour])).abs().amax(-1) <= COLOUR_JITTER + 1e-6
            assert near[boxes].sum() > 300
            assert not near[~boxes].any()


def test_a_box_for_each_thing_stands_in_a_half_of_its_own(scenes: WordScenes) -> None:
    for number, (things, boxes) in enumerate(zip(scenes.things, scenes.boxes, strict=True)):
        assert len(boxes) == len(things) + int(scenes.shown[number])
        mask = torch.zeros(128, 128)
        for left, top, width, height in boxes:
            assert left // 64 == (left + width - 1) // 64
            mask[top : top + height, left : left + width] += 1
        assert torch.equal(mask, scenes.box_mask[number])


def test_the_boxes_are_grey_and_the_rest_is_the_target(scenes: WordScenes) -> None:
    inside = scenes.box_mask > 0
    assert (scenes.scene[inside] == HOLE_GREY).all()
    assert torch.equal(scenes.scene[~inside], scenes.target[~inside])


def coloured(picture: torch.Tensor, colour: str) -> torch.Tensor:
    """Where a colour is in a picture, (H, W) bool."""
    return (picture - torch.tensor(COLOURS[colour])).abs().amax(-1) < 0.1


def test_two_things_in_words_stand_as_one_reads(scenes: WordScenes) -> None:
    for picture, things in zip(scenes.target, scenes.things, strict=True):
        if len(things) == 2:
            left, right = (coloured(picture, colour) for colour, _ in things)
            assert left[:, :64].any()
            assert right[:, 64:].any()
            assert not left[:, 64:].any()
            assert not right[:, :64].any()


def test_nothing_tells_where_a_shown_thing_goes() -> None:
    """What the prompt names is on the left in about half of the scenes."""
    scenes = draw_word_scenes(range(SEED + 1, SEED + 101, 2))
    left = 0
    for picture, ((colour, _),) in zip(scenes.target, scenes.things, strict=True):
        near = coloured(picture, colour)
        left += int(near[:, :64].sum() > near[:, 64:].sum())
    assert 15 <= left <= 35


def test_held_out_sets_are_never_drawn_for_training() -> None:
    pairs = list(product(COLOURS, SHAPES))
    sets = [(a, b) for a, b in combinations(pairs, 2) if a[0] != b[0] and a[1] != b[1]]
    kept = [two for two in sets if held_out(two)]
    assert 0.2 * len(sets) < len(kept) < 0.3 * len(sets)
    assert set(pairs) == {thing for two in kept for thing in two}
    for is_held, seed in ((False, TRAINING_SEEDS.start), (True, SEED)):
        drawn = make_word_scenes(40, seed).things
        assert all(held_out(things) == is_held for things in drawn if len(things) == 2)


def test_things_of_a_scene_share_no_word_and_can_be_exchanged() -> None:
    """What was never trained does not tell which colour goes with which shape."""
    rng = np.random.default_rng(0)
    for held, _ in product((False, True), range(40)):
        one, other = draw_things(rng, 2, held)
        assert one[0] != other[0]
        assert one[1] != other[1]
        assert held_out(((one[0], other[1]), (other[0], one[1]))) == held


def test_silhouettes_fill_their_box_and_differ() -> None:
    drawn = [silhouette(shape, 48, 48) for shape in SHAPES]
    for mask in drawn:
        rows, columns = (torch.nonzero(mask.amax(side) > 0.5).flatten() for side in (1, 0))
        assert max(rows[-1] - rows[0], columns[-1] - columns[0]) >= 40
        assert mask.min() == 0
        assert mask.max() > 0.99
    for n, one in enumerate(drawn):
        for other in drawn[:n]:
            assert torch.minimum(one, other).sum() / torch.maximum(one, other).sum() < 0.85
