"""The scenes of object insertion: a seed always draws the same, and the stated truth is in them."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import torch
import torch.nn.functional as F

from tools.demo.insertions import (
    AREA,
    ASPECT,
    REFERENCE_SIDE,
    Insertions,
    draw_insertions,
    make_insertions,
    random_box,
)
from tools.demo.scenes import HELD_OUT_SEEDS, HOLE_GREY, REDUCTION, reduced

SEED = HELD_OUT_SEEDS.start


def test_a_seed_draws_the_same_scene_in_any_batch() -> None:
    three, alone = make_insertions(3, SEED), draw_insertions([SEED + 2])
    for field in fields(Insertions):
        batch, one = getattr(three, field.name), getattr(alone, field.name)
        assert torch.equal(batch[2:], one) if torch.is_tensor(one) else batch[2:] == one


def test_the_box_is_grey_and_the_rest_is_the_target() -> None:
    scenes = make_insertions(8, SEED)
    inside = scenes.box_mask > 0
    assert (scenes.scene[inside] == HOLE_GREY).all()
    assert torch.equal(scenes.scene[~inside], scenes.target[~inside])
    for mask, (left, top, width, height) in zip(scenes.box_mask, scenes.boxes, strict=True):
        assert mask.sum() == width * height
        assert (mask[top : top + height, left : left + width] == 1).all()


def test_the_reference_is_what_was_in_the_box() -> None:
    scenes = make_insertions(8, SEED)
    for n, (left, top, width, height) in enumerate(scenes.boxes):
        box = scenes.target[n, top : top + height, left : left + width].movedim(-1, 0)
        small = F.interpolate(
            scenes.reference[n].movedim(-1, 0)[None], size=(height, width), mode="area"
        )
        assert scenes.reference.shape[1:3] == (REFERENCE_SIDE, REFERENCE_SIDE)
        assert (small[0] - box).abs().mean() < 0.03
        assert box.var() > 0


def test_boxes_are_the_paper_s() -> None:
    rng = np.random.default_rng(0)
    boxes = np.array([random_box(rng, 128) for _ in range(1000)])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 128).all()
    area, aspect = boxes[:, 2] * boxes[:, 3] / 128**2, boxes[:, 2] / boxes[:, 3]
    assert AREA[0] - 0.01 < area.min() < 0.12
    assert 0.28 < area.max() < AREA[1] + 0.01
    assert ASPECT[0] * 0.95 < aspect.min() < 0.55
    assert 1.8 < aspect.max() < ASPECT[1] * 1.05


def test_low_resolution_keeps_means_and_loses_detail() -> None:
    pictures = make_insertions(4, SEED).target
    low = reduced(pictures)
    assert low.shape == pictures.shape

    def cells(values: torch.Tensor) -> torch.Tensor:
        return F.avg_pool2d(values.movedim(-1, 1), 4 * REDUCTION)

    def steepness(values: torch.Tensor) -> torch.Tensor:
        return values.diff(dim=1).square().mean((1, 2, 3))

    assert (cells(low) - cells(pictures)).abs().max() < 0.1
    assert (steepness(low) < steepness(pictures)).all()
