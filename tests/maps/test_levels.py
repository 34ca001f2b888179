"""Levels are averages of one another, and respect ranges and gaps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from recordings import attribution, recording

from i2am.errors import I2AMError
from i2am.maps import LayerWeight, Level, ResampleOrder, Selection, attribution_map, paper_selection
from i2am.recording import Attribution, Definition, Direction, best_definition
from i2am.tokens import Grid
from i2am.tokens.architectures.base import Layer

R2G, G2R = Direction.REFERENCE_TO_GENERATED, Direction.GENERATED_TO_REFERENCE
EVERY_MAP = [(d, s, r) for d in Definition for s in Direction for r in (0, 1)]


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 9])
@pytest.mark.parametrize(("definition", "direction", "reference"), EVERY_MAP)
def test_invariant_3_and_23_levels(
    definition: Definition, direction: Direction, reference: int, groups: int
) -> None:
    """Unified = mean of time groups by size = mean of layers = mean of heads.

    Time groups divide all steps, noisiest first, into sizes as even as possible.
    """
    made = recording(steps=4)

    def level(which: Level) -> torch.Tensor:
        options = Selection(time_groups=groups)
        return attribution_map(made, definition, direction, which, reference, options).values

    unified = level(Level.UNIFIED)
    assert unified.shape[1] == 1
    for mean in (level(Level.LAYER).mean(1), level(Level.HEAD).mean(1)):
        torch.testing.assert_close(mean, unified[:, 0], atol=1e-6, rtol=1e-5)
    time = attribution_map(
        made, definition, direction, Level.TIME, reference, Selection(time_groups=groups)
    )
    assert len(time.labels) == min(groups, 4)
    ends = [label.removeprefix("steps ").removeprefix("step ").split("-") for label in time.labels]
    sizes = torch.tensor([int(end[-1]) - int(end[0]) + 1 for end in ends])
    assert int(sizes.sum()) == 4
    assert int(sizes.max() - sizes.min()) <= 1
    assert int(ends[0][0]) == 0
    weighted = (time.values * sizes[None, :, None, None]).sum(1) / 4
    torch.testing.assert_close(weighted, unified[:, 0], atol=1e-6, rtol=1e-5)


COARSE, FINE = Grid(3, 2), Grid(6, 4)
OFFICIAL = Selection(weight=LayerWeight.VALUE, order=ResampleOrder.OFFICIAL)


def official(own: torch.Tensor) -> torch.Tensor:
    """A coarse map (batch, heads, h, w) on the fine grid, resized as in the authors' code."""
    bicubic = torch.nn.functional.interpolate(own, FINE.sides, mode="bicubic", align_corners=False)
    return bicubic.clamp(min=0)


@pytest.mark.parametrize("level", [Level.UNIFIED, Level.HEAD])
def test_the_official_order(level: Level) -> None:
    """Values on each layer's own grid, summed over steps, bicubic, clamped at zero, mean."""
    made = recording(generated=(COARSE, FINE, COARSE), steps=3)
    found = attribution_map(made, Definition.PAPER, R2G, level, selection=OFFICIAL).values
    heads = made.arrays["paper.r2g.0.layer_head"]
    if level is Level.UNIFIED:
        heads = made.arrays["paper.r2g.0.step_layer"].mean(1).unsqueeze(2)
    # Each coarse cell covers four fine ones, over which its mass was spread.
    own = heads[..., ::2, ::2] * 4
    torch.testing.assert_close(own.sum((-2, -1))[:, [0, 2]], torch.ones(2, 2, own.shape[2]))
    layers = [official(own[:, 0]), heads[:, 1], official(own[:, 2])]
    wanted = torch.stack(layers).mean(0)
    if level is Level.HEAD:
        assert wanted.shape == found.shape
    scale = found.sum() / wanted.sum()
    torch.testing.assert_close(found, wanted * scale, atol=1e-6, rtol=1e-5)
    assert float(scale) == pytest.approx(1 / (4 + 4 + 1) * 3, rel=0.1)  # the factors' mean is one


@pytest.mark.parametrize(
    ("sharpness", "most", "least"), [(1, 0.07, 0.997), (3, 0.12, 0.99), (8, 0.15, 0.99)]
)
def test_averaging_tokens_before_resizing(sharpness: float, most: float, least: float) -> None:
    """How far the official order is from ours where they differ: docs/method.md's figures.

    The authors resize each reference token's map before they average over tokens.
    """
    generator = torch.Generator().manual_seed(0)
    q, k = (torch.randn(n, 8, generator=generator) for n in (256, 100))
    tokens = (q @ k.T / 8**0.5 * sharpness).softmax(0).T.reshape(1, 100, 16, 16)

    def resized(maps: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.interpolate(maps, (64, 64), mode="bicubic").clamp(min=0)

    theirs, ours = resized(tokens).mean(1), resized(tokens.mean(1, keepdim=True))[:, 0]
    theirs, ours = ((x - x.min()) / (x.max() - x.min()) for x in (theirs, ours))
    assert 0 < float((theirs - ours).abs().max()) <= most
    together = torch.stack((theirs.flatten(), ours.flatten()))
    assert float(torch.corrcoef(together)[0, 1]) >= least


@pytest.mark.parametrize(("definition", "direction", "reference"), EVERY_MAP)
def test_on_one_grid_the_official_order_is_ours(
    definition: Definition, direction: Direction, reference: int
) -> None:
    """All layers of a transformer share one grid: nothing is resized or below zero."""
    made = recording()
    for level in Level:
        ours, theirs = (
            attribution_map(made, definition, direction, level, reference, selection).values
            for selection in (Selection(), OFFICIAL)
        )
        torch.testing.assert_close(ours, theirs)


def test_layers_by_value() -> None:
    """Attention per token: a layer with a quarter of the tokens weighs four times as much."""
    made = recording(generated=(COARSE, FINE), heads=(2, 2))
    by_value = Selection(weight=LayerWeight.VALUE)
    found = attribution_map(made, Definition.PAPER, R2G, selection=by_value)
    table = made.arrays["paper.r2g.0.step_layer"].mean(1)
    torch.testing.assert_close(found.values[:, 0], (4 * table[:, 0] + table[:, 1]) / 5)
    torch.testing.assert_close(found.values.sum((-2, -1)), torch.ones(2, 1))


@pytest.mark.parametrize(("definition", "direction", "reference"), EVERY_MAP)
@pytest.mark.parametrize("weight", LayerWeight)
def test_invariant_3_holds_for_every_weight(
    definition: Definition, direction: Direction, reference: int, weight: LayerWeight
) -> None:
    """A layer's factor is the same for its steps and heads, so levels are means of one another."""
    made = recording(generated=(COARSE, FINE, COARSE))

    def level(which: Level) -> torch.Tensor:
        chosen = Selection(weight=weight, time_groups=2)
        return attribution_map(made, definition, direction, which, reference, chosen).values

    unified = level(Level.UNIFIED)[:, 0]
    for which in (Level.TIME, Level.LAYER, Level.HEAD):
        torch.testing.assert_close(level(which).mean(1), unified, atol=1e-6, rtol=1e-5)
    if weight is LayerWeight.EQUAL:
        torch.testing.assert_close(level(Level.LAYER).sum((-2, -1)), torch.ones(2, 3))


def test_a_layer_that_reads_nothing_weighs_nothing() -> None:
    """With equal weights, it has no map to scale to the sum one."""
    made = recording()
    arrays = {name: array.clone() for name, array in made.arrays.items()}
    arrays["model.g2r.0.step_layer"][:, :, 1] = 0
    equal = Selection(weight=LayerWeight.EQUAL)
    found = attribution_map(
        replace(made, arrays=arrays), Definition.MODEL, G2R, Level.LAYER, 0, equal
    )
    assert not found.values[:, 1].any()
    torch.testing.assert_close(found.values[:, 0].sum((-2, -1)), torch.ones(2))


def test_the_paper_leaves_out_the_middle_block() -> None:
    """The authors hook all layers except a UNet's middle one; picked layers stay picked."""
    made = recording()
    layers = (Layer("input", 1), Layer("middle", 0), Layer("output", 3))
    unet = replace(made, header=replace(made.header, layers=layers))
    assert paper_selection(unet, Selection()).layers == "0,2"
    assert paper_selection(unet, Selection(layers="1")).layers == "1"
    assert paper_selection(made, Selection(steps="1")) == replace(OFFICIAL, steps="1")


def test_a_mask_looks_at_all_layers_by_mass() -> None:
    """The correspondence has no layers: other weights are refused, those that agree are not."""
    made, mask = recording(), torch.ones(1, 4, 3)

    def map_of(definition: Definition, weight: LayerWeight) -> torch.Tensor:
        chosen = Selection(weight=weight, order=ResampleOrder.OFFICIAL)
        return attribution_map(made, definition, G2R, selection=chosen, within=mask).values

    with pytest.raises(I2AMError, match="kept as the mean of all layers by mass alone"):
        map_of(Definition.MODEL, LayerWeight.EQUAL)
    for weight in LayerWeight:
        whole = attribution_map(made, Definition.PAPER, G2R, selection=Selection(weight=weight))
        torch.testing.assert_close(map_of(Definition.PAPER, weight), whole.values)


MADE = recording()
DEFINITIONS = st.sampled_from(list(Definition))


@given(DEFINITIONS, st.integers(0, 1), st.integers(1, 40), st.integers(1, 40))
def test_invariant_18_a_full_mask_is_no_mask(
    definition: Definition, reference: int, height: int, width: int
) -> None:
    """The mask of the whole result gives the unified map; the mask's size does not matter."""
    whole = attribution_map(MADE, definition, G2R, reference=reference)
    mask = torch.ones(1, height, width)
    masked = attribution_map(MADE, definition, G2R, reference=reference, within=mask)
    torch.testing.assert_close(masked.values, whole.values)


@given(DEFINITIONS, st.integers(0, 1), st.integers(0, 1000))
def test_invariant_18_masks_are_told_apart_by_item(
    definition: Definition, reference: int, seed: int
) -> None:
    """Each batch item uses its own mask; the maps are finite whatever is painted."""
    masks = (torch.rand(2, 8, 6, generator=torch.Generator().manual_seed(seed)) < 0.5).float()
    masks[:, 3, 2] = 1
    both = attribution_map(MADE, definition, G2R, reference=reference, within=masks).values
    assert both.isfinite().all()
    for item in range(2):
        one = attribution_map(
            MADE, definition, G2R, reference=reference, within=masks[item : item + 1]
        )
        torch.testing.assert_close(both[item], one.values[item])


@given(DEFINITIONS, st.integers(1, 40), st.integers(1, 40))
def test_invariant_18_an_empty_mask_is_refused(
    definition: Definition, height: int, width: int
) -> None:
    with pytest.raises(I2AMError, match="The mask over the result is empty"):
        attribution_map(MADE, definition, G2R, within=torch.zeros(1, height, width))


def test_mass() -> None:
    """Every paper map sums to one; every model map sums to the share of its reference."""
    made = recording()
    for direction in Direction:
        for reference in (0, 1):
            for level in Level:
                paper = attribution_map(made, Definition.PAPER, direction, level, reference)
                total = paper.values.sum((-2, -1))
                torch.testing.assert_close(total, torch.ones_like(total))
            model = attribution_map(made, Definition.MODEL, direction, reference=reference)
            share = made.arrays["share.step_layer"][..., 2 + reference].mean((1, 2))
            torch.testing.assert_close(model.values.sum((-2, -1))[:, 0], share)


def test_what_was_not_seen_is_left_out() -> None:
    """A step that some layers skipped counts in the layers that ran, and biases no mean."""
    made = recording(steps=3, missing=((1, 0), (1, 2), (2, 2)))
    assert made.header.counts == ((1, 1, 1), (0, 1, 0), (1, 1, 0))
    table = made.arrays["paper.r2g.0.step_layer"]
    assert not table[:, 1, 0].any()
    found = attribution_map(made, Definition.PAPER, R2G).values[:, 0]
    seen = [(0, 0), (0, 1), (0, 2), (1, 1), (2, 0), (2, 1)]
    torch.testing.assert_close(found, torch.stack([table[:, s, n] for s, n in seen]).mean(0))
    layers = attribution_map(made, Definition.PAPER, R2G, Level.LAYER).values
    torch.testing.assert_close(layers[:, 0], table[:, [0, 2], 0].mean(1))
    torch.testing.assert_close(layers[:, 2], table[:, 0, 2])
    torch.testing.assert_close(layers.sum((-2, -1)), torch.ones(2, 3))


def test_layers_with_different_head_counts() -> None:
    """A head that only some layers have is the mean over those layers."""
    made = recording(heads=(1, 3))
    maps = attribution_map(made, Definition.PAPER, R2G, Level.HEAD)
    table = made.arrays["paper.r2g.0.layer_head"]
    assert maps.labels == ("head 0", "head 1", "head 2")
    torch.testing.assert_close(maps.values[:, 0], table[:, :, 0].mean(1))
    torch.testing.assert_close(maps.values[:, 2], table[:, 1, 2])
    torch.testing.assert_close(maps.values.sum((-2, -1)), torch.ones(2, 3))


def test_ranges() -> None:
    """Steps, layers and heads by number, and their labels."""
    made = recording(steps=4, missing=((0, 0), (0, 1), (0, 2)))  # steps 1 to 3 were recorded
    assert made.header.steps == (1, 2, 3)
    table = made.arrays["model.g2r.1.step_layer"]
    picked = attribution_map(
        made, Definition.MODEL, G2R, Level.LAYER, 1, Selection(steps="1-2", layers="2,0")
    )
    assert picked.labels == ("double 0", "double 2")
    torch.testing.assert_close(picked.values[:, 1], table[:, 1:, 2].mean(1))
    groups = attribution_map(
        made, Definition.MODEL, G2R, Level.TIME, 1, Selection(layers="1", time_groups=2)
    )
    assert groups.labels == ("steps 1-2", "step 3")
    torch.testing.assert_close(groups.values[:, 1], table[:, 2, 1])
    heads = attribution_map(made, Definition.MODEL, G2R, Level.LAYER, 1, Selection(heads="1"))
    torch.testing.assert_close(heads.values, made.arrays["model.g2r.1.layer_head"][:, :, 1])


@pytest.mark.parametrize(
    ("level", "selection", "message"),
    [
        (Level.TIME, Selection(heads="0"), "Heads and steps cannot be picked together"),
        (Level.HEAD, Selection(steps="0"), "Heads and steps cannot be picked together"),
        (Level.UNIFIED, Selection(steps="0", heads="1"), "cannot be picked together"),
        (Level.UNIFIED, Selection(steps="9"), "steps asks for “9”, but there are only 0 to 3"),
        (Level.UNIFIED, Selection(layers="1;2"), "layers cannot be read: found “1;2”"),
        (
            Level.UNIFIED,
            Selection(layers="x"),
            "no layer “x”. The layers of this model are double 0",
        ),
        (Level.HEAD, Selection(heads="2-5"), "heads asks for “2-5”, but there are only 0 to 1"),
    ],
)
def test_refuses(level: Level, selection: Selection, message: str) -> None:
    with pytest.raises(I2AMError, match=message):
        attribution_map(recording(), Definition.PAPER, R2G, level, 0, selection)


@pytest.mark.parametrize("reference", [-1, 2])
def test_refuses_a_reference_that_is_not_there(reference: int) -> None:
    with pytest.raises(I2AMError, match=r"does not exist: the model was given 2\. Choose 1 to 2"):
        attribution_map(recording(), Definition.PAPER, R2G, reference=reference)


def test_pictures_and_sizes() -> None:
    """The picture of a direction, and its size where no picture was given."""
    full, bare = attribution(), Attribution(recording())
    assert full.size(R2G, 0) == (64, 48)
    assert full.size(G2R, 1) == (16, 24)
    assert bare.picture(G2R, 1) is None
    assert bare.size(R2G, 0) == (64, 48)  # from a latent of 8×6
    assert bare.size(G2R, 1) == (32, 48)  # from a latent of 4×6
    assert best_definition(bare.recording) is Definition.EFFECT
    assert best_definition(recording(definitions="both")) is Definition.MODEL


@pytest.mark.parametrize(
    ("latent", "size"), [((512, 256), (4096, 2048)), ((2048, 1536), (2048, 1536))]
)
def test_the_size_of_a_latent_of_pixels(latent: tuple[int, int], size: tuple[int, int]) -> None:
    """Some models work on pixels; a size eight times as large would fill the memory."""
    some = recording()
    generated = replace(some.header.generated, latent=latent)
    header = replace(some.header, generated=generated)
    assert Attribution(replace(some, header=header)).size(R2G, 0) == size
