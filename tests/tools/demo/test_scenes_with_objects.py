"""Scenes of objects in photographs: a seed always draws the same, and its stated truth is in it."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tools.demo.scenes import (
    HELD_OUT_SEEDS,
    HOLE_GREY,
    MOVED,
    OBJECTS,
    TOKEN,
    TRANSFORMED,
    Recipe,
    Scenes,
    draw_scenes,
    make_scenes,
)
from tools.demo.scenes.objects import LEVELS, cutout, number_of, object_names
from tools.demo.scenes.with_objects import (
    FIGURE,
    SHIRT,
    Placed,
    draw_try_on,
    draw_two_objects,
    paste,
)

SEED = HELD_OUT_SEEDS.start


@pytest.mark.parametrize("recipe", [OBJECTS, MOVED, TRANSFORMED], ids=lambda recipe: recipe.name)
def test_a_seed_draws_the_same_scene_in_any_batch(recipe: Recipe) -> None:
    three = make_scenes(3, SEED, recipe=recipe)
    alone = draw_scenes([SEED + 2], recipe=recipe)
    for field in fields(Scenes):
        assert torch.equal(getattr(three, field.name)[2:], getattr(alone, field.name))


@pytest.mark.parametrize("recipe", [OBJECTS, MOVED, TRANSFORMED], ids=lambda recipe: recipe.name)
def test_the_hole_is_grey_and_the_rest_is_the_target(recipe: Recipe) -> None:
    scenes = make_scenes(8, SEED, recipe=recipe)
    inside = scenes.hole > 0
    assert (scenes.scene[inside] == HOLE_GREY).all()
    assert torch.equal(scenes.scene[~inside], scenes.target[~inside])
    assert (scenes.hole.mean((1, 2)) > 0.02).all()
    assert (scenes.object.mean((1, 2)) > 0.02).all()


def tokens(pictures: torch.Tensor) -> torch.Tensor:
    """The mean colour of each token, (B, tokens, 3)."""
    return F.avg_pool2d(pictures.movedim(-1, 1), TOKEN).flatten(2).movedim(1, 2)


def test_aligned_objects_are_equal_token_by_token() -> None:
    scenes = make_scenes(16, SEED, recipe=OBJECTS)
    covered = F.avg_pool2d(scenes.hole[:, None], TOKEN).flatten(1) == 1
    there = scenes.correspondence.clamp(min=0)[..., None].expand(-1, -1, 3)
    difference = (tokens(scenes.target) - tokens(scenes.reference).gather(1, there)).abs()
    assert difference[covered].max() < 0.1  # some of them are a little transparent
    assert difference[covered].mean() < 0.005


def test_the_truth_follows_scale_turn_and_mirror() -> None:
    """The true token looks more like the hole's than the tokens around it do, on the whole."""
    scenes = make_scenes(64, SEED, recipe=TRANSFORMED)
    covered = F.avg_pool2d(scenes.hole[:, None], TOKEN).flatten(1) == 1
    seen, shown = tokens(scenes.target), tokens(scenes.reference)

    def error(down: int, across: int) -> float:
        rows, columns = scenes.correspondence // 8 + down, scenes.correspondence % 8 + across
        there = (rows.clamp(0, 7) * 8 + columns.clamp(0, 7))[..., None].expand(-1, -1, 3)
        return float((seen - shown.gather(1, there))[covered].square().mean())

    around = [error(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    assert min(around) == around[4]
    assert around[4] < 0.7 * min(around[:4] + around[5:])


def test_a_square_goes_where_it_is_placed() -> None:
    """Corners and middle, upright, turned by 90 degrees, and mirrored."""
    points = np.array([[10, 30, 1], [30, 30, 1], [20, 40, 1]]).T
    upright = Placed((20, 40), 20)
    turned = Placed((20, 40), 20, turn=np.pi / 2)
    mirrored = Placed((20, 40), 20, mirrored=True)
    for place, expected in (
        (upright, [[-1, -1], [1, -1], [0, 0]]),
        (turned, [[1, -1], [1, 1], [0, 0]]),
        (mirrored, [[-1, 1], [1, 1], [0, 0]]),
    ):
        assert np.allclose((place.to_square() @ points)[:2].T, expected)


def test_what_is_held_out_is_never_trained_on() -> None:
    trained, held_out = object_names(False), object_names(True)
    assert not set(trained) & set(held_out)
    assert len(trained) > 6 * len(held_out) > 600
    assert SHIRT in held_out
    assert all(number_of(name) for name in trained + held_out)
    for name in ("1f1e6-1f1e8", "1f468-200d-1f373", "0023-fe0f-20e3", "1f500", "1f7e5"):
        assert number_of(name) is None


def test_cutouts_fill_their_square_at_every_size() -> None:
    for side in (48, 64, 100, 300):
        square = cutout(SHIRT, side)
        assert square.shape == (4, *[min((n for n in LEVELS if n >= side), default=256)] * 2)
        rows, columns = (torch.nonzero(square[3].amax(axis) > 0.5).flatten() for axis in (1, 0))
        assert max(rows[-1] - rows[0], columns[-1] - columns[0]) > 0.9 * square.shape[-1]
        assert (square[:3] <= square[3] + 1e-6).all()


def test_pasting_changes_the_picture_where_the_mask_is() -> None:
    picture = torch.full((3, 64, 64), 0.5)
    pasted, mask = paste(picture, FIGURE, Placed((32, 32), 40))
    assert torch.allclose(pasted[:, mask == 0], picture[:, mask == 0], atol=0.1)
    assert (pasted - picture)[:, mask > 0].abs().mean() > 0.1


@pytest.mark.parametrize("draw", [draw_try_on, draw_two_objects])
def test_the_workflows_scenes_are_aligned(draw) -> None:
    scenes = draw(SEED)
    given = scenes.correspondence >= 0
    shift = (scenes.correspondence - torch.arange(64))[given]
    assert (shift == shift[0]).all()
    inside, on_object = scenes.hole.bool(), scenes.object.bool()
    assert inside.sum() == on_object.sum()
    assert (scenes.target[inside] - scenes.reference[on_object]).abs().mean() < 0.02
