"""The demo scenes: a seed always draws the same picture, and the stated truth is in the pixels."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch

from tools.demo.latents import encode, latent_kernel, pixel_weights
from tools.demo.scenes import (
    DISTRACTORS,
    HELD_OUT_SEEDS,
    HOLE_GREY,
    PHOTOGRAPHS,
    PLAIN,
    SHAPES,
    SIZES,
    TOKEN,
    TRAINING_SEEDS,
    UNALIGNED,
    Scenes,
    correspondence_distance,
    draw_scenes,
    make_scenes,
    token_coverage,
)

SEED = HELD_OUT_SEEDS.start
ALIGNED = [PLAIN, SIZES, SHAPES, DISTRACTORS]


def tokens(pictures: torch.Tensor) -> torch.Tensor:
    """(B, H, W, 3) to (B, tokens, TOKEN * TOKEN * 3), row by row."""
    batch, height, width, _ = pictures.shape
    rows = pictures.view(batch, height // TOKEN, TOKEN, width // TOKEN, TOKEN, 3)
    return rows.permute(0, 1, 3, 2, 4, 5).reshape(batch, -1, TOKEN * TOKEN * 3)


def names(recipe) -> str:
    return recipe.name


@pytest.mark.parametrize("recipe", [*ALIGNED, UNALIGNED], ids=names)
def test_a_seed_draws_the_same_scene_in_any_batch(recipe):
    three = make_scenes(3, SEED, recipe=recipe)
    alone = draw_scenes([SEED + 2], recipe=recipe)
    for field in fields(Scenes):
        assert torch.equal(getattr(three, field.name)[2:], getattr(alone, field.name)), field.name


def test_seeds_draw_different_scenes():
    scenes = make_scenes(2, SEED)
    assert not torch.equal(scenes.scene[0], scenes.scene[1])
    assert not torch.equal(scenes.reference[0], scenes.reference[1])


def test_training_and_evaluation_share_no_seed():
    assert (
        TRAINING_SEEDS.stop <= HELD_OUT_SEEDS.start or HELD_OUT_SEEDS.stop <= TRAINING_SEEDS.start
    )


def test_layout_and_range():
    scenes = make_scenes(2, SEED, size=192)
    assert len(scenes) == 2
    assert scenes.grid == (12, 12)
    assert scenes.scene.shape == scenes.reference.shape == scenes.target.shape == (2, 192, 192, 3)
    assert scenes.hole.shape == scenes.object.shape == (2, 192, 192)
    assert scenes.correspondence.shape == (2, 144)
    assert scenes.correspondence.dtype == torch.long
    for picture in (scenes.scene, scenes.reference, scenes.target):
        assert picture.dtype == torch.float32
        assert picture.min() >= 0
        assert picture.max() <= 1
    assert set(scenes.hole.unique().tolist()) == {0.0, 1.0}


@pytest.mark.parametrize("recipe", [*ALIGNED, UNALIGNED], ids=names)
def test_the_hole_is_grey_and_the_rest_is_the_target(recipe):
    scenes = make_scenes(4, SEED, recipe=recipe)
    inside = scenes.hole.bool()
    assert (scenes.scene[inside] == HOLE_GREY).all()
    assert torch.equal(scenes.scene[~inside], scenes.target[~inside])


@pytest.mark.parametrize("recipe", [*ALIGNED, UNALIGNED], ids=names)
def test_the_object_is_what_belongs_in_the_hole(recipe):
    """Hole and object have one silhouette, and the object's colours fill the hole."""
    scenes = make_scenes(4, SEED, recipe=recipe)
    for n in range(len(scenes)):
        inside, on_object = scenes.hole[n].bool(), scenes.object[n].bool()
        assert inside.sum() == on_object.sum() > 0
        # both masks are read row by row, so the same silhouette gives the same order
        assert torch.equal(scenes.target[n][inside], scenes.reference[n][on_object])


@pytest.mark.parametrize("recipe", ALIGNED, ids=names)
def test_copying_the_corresponding_tokens_fills_the_hole(recipe):
    scenes = make_scenes(4, SEED, recipe=recipe)
    copied = tokens(scenes.reference).gather(
        1, scenes.correspondence.clamp(min=0)[..., None].expand(-1, -1, TOKEN * TOKEN * 3)
    )
    covered = token_coverage(scenes.hole) == 1
    assert covered.any(1).all()
    assert torch.equal(copied[covered], tokens(scenes.target)[covered])


@pytest.mark.parametrize("recipe", [*ALIGNED, UNALIGNED], ids=names)
def test_correspondence_is_given_for_the_hole_alone(recipe):
    scenes = make_scenes(4, SEED, recipe=recipe)
    given = scenes.correspondence >= 0
    assert torch.equal(given, token_coverage(scenes.hole) >= 0.5)
    on_object = token_coverage(scenes.object).gather(1, scenes.correspondence.clamp(min=0))
    assert (on_object[given] > 0).all()


def test_distance_counts_tokens():
    scenes = make_scenes(4, SEED)
    given = scenes.correspondence >= 0
    exact = correspondence_distance(scenes.correspondence, scenes)
    below = correspondence_distance(scenes.correspondence + scenes.grid[1], scenes)
    assert (exact[given] == 0).all()
    assert (below[given] == 1).all()


@pytest.mark.parametrize(("size", "what"), [(100, "whole number"), (48, "do not fit")])
def test_impossible_sizes_are_refused(size, what):
    with pytest.raises(ValueError, match=what):
        make_scenes(1, SEED, size=size)


def test_latents_are_local():
    """Changing one 8x8 block changes one latent pixel, and grey is zero."""
    pictures = make_scenes(1, SEED).target
    changed = pictures.clone()
    changed[0, 40:48, 72:80] = torch.rand(8, 8, 3)
    differs = (encode(pictures) != encode(changed)).any(1)[0]
    assert differs.nonzero().tolist() == [[5, 9]]
    assert encode(torch.full((1, 16, 16, 3), HOLE_GREY)).abs().max() < 1e-5


def test_photographs_are_cut_and_kept_apart():
    pytest.importorskip("skimage")
    pytest.importorskip("sklearn")
    from tools.demo.scenes import photographs

    assert not set(photographs.TRAINING) & set(photographs.HELD_OUT)
    plain, cut = make_scenes(2, SEED), make_scenes(2, SEED, recipe=PHOTOGRAPHS)
    assert torch.equal(plain.hole, cut.hole)
    assert torch.equal(plain.correspondence, cut.correspondence)
    assert not torch.equal(plain.reference, cut.reference)
    inside, on_object = cut.hole.bool(), cut.object.bool()
    assert torch.equal(cut.target[0][inside[0]], cut.reference[0][on_object[0]])


def test_an_error_of_a_latent_channel_weighs_as_in_pixels() -> None:
    """Within a quarter: the colour axes are not equally long."""
    pixels = torch.linalg.pinv(latent_kernel().flatten(1)).square().sum(0)
    ratio = pixels / pixels.mean() / pixel_weights().flatten()
    assert ratio.sub(1).abs().max() < 0.25
    assert pixel_weights().mean() == pytest.approx(1)
