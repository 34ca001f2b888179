"""The word measurement's own parts: finding things, the attention it reads, and the game."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tools.demo.scenes import HELD_OUT_SEEDS
from tools.demo.words import draw_word_scenes, make_word_scenes, words_of
from tools.tasks.words import Found, Painted, WordShares, find_things, measure, points_at

SEED = HELD_OUT_SEEDS.start + 8000


def test_things_are_found_where_they_were_drawn() -> None:
    """In the scenes themselves, colour and shape are always right."""
    scenes = draw_word_scenes(range(SEED, SEED + 80, 2))
    for picture, boxes, things in zip(scenes.target, scenes.boxes, scenes.things, strict=True):
        found = find_things(picture.numpy(), boxes)
        assert {(one.colour, one.shape) for one in found} == set(things)


def test_a_grey_box_has_nothing() -> None:
    assert find_things(np.full((128, 128, 3), 0.7), [(0, 0, 48, 48)]) == []


def test_points_at_the_highest_value() -> None:
    values = torch.zeros(8, 8)
    values[2, 5] = 1
    place = Found("red", 1.0, "star", (slice(2, 4), slice(4, 6)))
    assert points_at(values, place)
    assert not points_at(values.T, place)
    assert not points_at(values, None)


class CrossAttention(nn.Module):
    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k = nn.Linear(6, 8), nn.Linear(5, 8)

    def forward(self, x: Tensor, context: Tensor) -> None:
        self.to_q(x)
        self.to_k(context)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn2 = CrossAttention(heads=2)


class TwoLayers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList((Block(), Block()))

    def forward(self, x: Tensor, context: Tensor, transformer_options: dict[str, object]) -> None:
        for block in self.blocks:
            assert isinstance(block, Block)
            block.attn2(x, context)


@pytest.mark.parametrize("parts", [[0], [1, 0], [0, 1]])
def test_shares_are_the_positive_prompt_s_softmax(parts: list[int]) -> None:
    """Averaged over two steps, two layers and two heads, written out one by one."""
    torch.manual_seed(0)
    unet = TwoLayers()
    steps = [(torch.randn(2 * len(parts), 12, 6), torch.randn(2 * len(parts), 7, 5))] * 2
    with torch.no_grad(), WordShares(unet, (3, 4)) as watch:
        for x, context in steps:
            unet(x, context, transformer_options={"cond_or_uncond": parts})
    expected = torch.zeros(2, 12, 7)
    first = 2 * parts.index(0)
    for x, context in steps:
        for block in unet.blocks:
            assert isinstance(block, Block)
            for head in range(2):
                rows = slice(4 * head, 4 * head + 4)
                q = block.attn2.to_q(x[first : first + 2])[..., rows]
                k = block.attn2.to_k(context[first : first + 2])[..., rows]
                expected += (q @ k.mT / 2).softmax(-1) / 8
    assert torch.allclose(watch.mean().flatten(2).mT, expected, atol=1e-6)
    unet(*steps[0], transformer_options={})  # no hook is left


def test_perfect_maps_and_pictures_score_one() -> None:
    """Scenes in place of pictures, and maps drawn from the truth."""
    scenes = make_word_scenes(24, SEED)
    shares = {number: torch.zeros(77 + 64, 128, 128) for number in range(len(scenes))}
    painted = Painted(scenes, scenes.target, shares, dict.fromkeys(shares, 0.0))
    for number, things in enumerate(scenes.things):
        found = painted.found(number)
        words = words_of(scenes.prompts[number])
        for one in found:
            if (one.colour, one.shape) in things:
                for word in (one.colour, one.shape):
                    painted.shares[number][1 + words.index(word)][one.box] = 1
            else:
                painted.shares[number][77:, one.box[0], one.box[1]] = 1 / 64
    rows = measure(painted)
    for name in ("pointing: colour word", "pointing: shape word", "pointing: reference"):
        assert np.mean(rows[name]) == 1
    assert all(np.mean(values) == 1 for name, values in rows.items() if name.startswith("obeyed"))
    assert np.mean(rows["pointing: colour word, at the other box"]) == 0
    assert np.mean(rows["share of the reference: on the thing in words"]) == 0
