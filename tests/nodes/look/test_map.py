"""Attribution Map and Point Attribution through the real sampler: identities, preset, words."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from graph import attribution_map, changed, filled, flux_graph, given
from torch import Tensor

pytestmark = pytest.mark.usefixtures("tiny_nodes")

SIDES = ("reference to generated", "generated to reference")
BATCH = 2


def graph(**nodes: Any) -> dict[str, Any]:
    """Two results, one reference, ten steps, and no pictures to draw on."""
    some = changed(flux_graph(**nodes), "empty", batch_size=BATCH)
    return changed(some, "sampler", steps=10)


def recorded(run: Any) -> Any:
    return run.value("collect").recording


@pytest.mark.parametrize("definition", ["paper", "model"])
@pytest.mark.parametrize("direction", SIDES)
def test_invariant_3_level_identities(
    comfy: Any, run_graph: Any, direction: str, definition: str
) -> None:
    """Unified = mean of times = mean of heads = mean of layers, for all layer weights."""
    run = run_graph(graph(), targets=["collect"])
    made = comfy.pack("i2am.maps.levels")
    for weight in made.LayerWeight:
        levels: dict[str, Tensor] = {}
        for level in made.Level:
            maps = made.attribution_map(
                recorded(run),
                made.Definition(definition),
                made.Direction(direction),
                level,
                selection=made.Selection(time_groups=5, weight=weight),
            )
            levels[level.value] = maps.values
        assert {name: maps.shape[1] for name, maps in levels.items()} == {
            **{"unified": 1, "time": 5},
            **{"layer": 4, "head": 2},
        }
        for maps in levels.values():
            torch.testing.assert_close(maps.mean(1), levels["unified"][:, 0])
        if definition == "paper":
            torch.testing.assert_close(levels["unified"].sum((2, 3)), torch.ones(BATCH, 1))


@pytest.mark.parametrize("direction", SIDES)
def test_the_paper_preset(comfy: Any, run_graph: Any, direction: str) -> None:
    """The painted values are the authors': min-max, bicubic, min-max, cut at 0.4."""
    maps = attribution_map(direction=direction, preset="paper", level="time", definition="model")
    run = run_graph(graph(maps=maps), targets=["maps"])
    mask, text = run.value("maps", 2), run.value("maps", 4)
    made = comfy.pack("i2am.maps.levels")
    found = made.attribution_map(
        recorded(run), made.Definition.PAPER, made.Direction(direction), made.Level.TIME
    )
    size = (64, 48) if direction == SIDES[0] else (48, 40)
    assert mask.shape == (BATCH * 5, *size)

    def norm(x: Tensor) -> Tensor:
        low, high = x.amin((-2, -1), keepdim=True), x.amax((-2, -1), keepdim=True)
        return (x - low) / (high - low)

    values = found.values.flatten(0, 1)
    if found.grid.covered == found.grid.sides:  # otherwise the picture ends within a cell
        bicubic = torch.nn.functional.interpolate(norm(values)[:, None], size, mode="bicubic")
        wanted = norm(bicubic)[:, 0]
        wanted = torch.where(wanted > 0.4, wanted, 0)
        near = (wanted > 0.401) | (wanted == 0)
        torch.testing.assert_close(mask * near, wanted * near, atol=1e-3, rtol=0)
    assert float(mask.amax()) == pytest.approx(1, abs=1e-5)
    assert not ((mask > 0) & (mask <= 0.4)).any()
    for words in ("paper definition", "Official order", "per token", "0.4"):
        assert words in text
    assert "All layers have one grid, so nothing had to be resized." in text
    assert run.ui["maps"]["i2am_text"] == [text]


def test_outputs_say_their_definition(run_graph: Any) -> None:
    maps = attribution_map(level="layer", layers="1-2", layer_weight="equal")
    run = run_graph(graph(maps=maps), targets=["maps"])
    text = run.value("maps", 4)
    assert "model definition: share of the model's own attention" in text
    assert "Level layer, 2 maps: mean over steps all, layers 1-2, heads all" in text
    assert "of 10 steps and 4 layers recorded; each layer counts the same." in text
    assert "Numbers: times an even spread." in text
    sheet, overlay = run.value("maps", 3), run.value("maps", 0)
    assert sheet.shape[0] == BATCH
    assert overlay.shape[0] == 2 * BATCH
    assert sheet.shape[1] * sheet.shape[2] > overlay.shape[1] * overlay.shape[2]


def test_a_reference_mask_hides_the_rest(run_graph: Any) -> None:
    mask = torch.zeros(1, 48, 40)
    mask[:, :16] = 1  # the first of three rows
    maps = attribution_map(direction=SIDES[1], reference_mask=["mask", 0], scale="absolute")
    run = run_graph(graph(maps=maps, mask=given("mask", mask)), targets=["maps"])
    values = run.value("maps", 2)
    assert values[:, :14].any()
    assert not values[:, 34:].any()
    assert "reference mask" in run.value("maps", 4)


def test_sinks_are_told(run_graph: Any) -> None:
    maps = attribution_map(direction=SIDES[1], sinks="remove")
    run = run_graph(graph(maps=maps), targets=["maps"])
    assert "sinks" in run.value("maps", 4)


MASK = torch.ones(1, 16, 16)
ERRORS = {
    "an effect that was not recorded": ({"definition": "effect"}, "holds no effect definition"),
    "sinks over the result": ({"sinks": "remove"}, "maps over the reference alone"),
    "mask over the result": ({"reference_mask": ["mask", 0]}, "but this map lies over the result"),
    "mask of another size": (
        {"reference_mask": ["mask", 0], "direction": SIDES[1]},
        r"reference_mask is 16×16 \(width × height\), but the picture it belongs to is 40×48",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_map_refuses(run_graph: Any, case: str) -> None:
    inputs, message = ERRORS[case]
    maps = attribution_map(**inputs)
    run = run_graph(graph(maps=maps, mask=given("odd mask", MASK)), targets=["maps"])
    assert re.search(message, run.errors["maps"])


def point(**inputs: Any) -> dict[str, Any]:
    """Point Attribution with its defaults, without legend."""
    return filled("I2AM_Point", attribution=["collect", 0], **({"legend": False} | inputs))


@pytest.mark.parametrize("definition", ["paper", "model"])
def test_a_point_of_the_result(comfy: Any, run_graph: Any, definition: str) -> None:
    """The map is the place's row of the correspondence, over the reference."""
    asked = point(x=0.5, y=0.9, definition=definition, scale="absolute")
    run = run_graph(graph(point=asked), targets=["point"])
    kind = "" if definition == "paper" else "model."
    rows = recorded(run).arrays[f"correspondence.{kind}0"]
    row = rows[:, 3, 1]  # the grid has 4×3 places
    mask = run.value("point", 2)
    assert mask.shape == (BATCH, 48, 40)
    header = recorded(run).header
    even = row / row.mean((1, 2), keepdim=True)
    over = comfy.pack("i2am.tokens").resample_nonnegative(even, header.references[0].grid, (48, 40))
    torch.testing.assert_close(mask, (over / 4).clamp(max=1))  # the absolute scale ends at 4×
    text = run.value("point", 3)
    assert f"{definition} definition" in text
    assert "pooled to 4×3 places of the result and 3×3 of the reference" in text
    assert "from 0.50, 0.90 of the result" in text
    assert run.ui["point"]["i2am_text"] == [text]


def test_a_region_of_the_reference(run_graph: Any) -> None:
    """The map gives the whole reference its share, place by place."""
    asked = point(picked_on="reference", region=["mask", 0], definition="model", scale="absolute")
    everything = given("everything", torch.ones(1, 48, 40))
    run = run_graph(graph(point=asked, mask=everything), targets=["point"])
    mask = run.value("point", 2)
    assert mask.shape == (BATCH, 64, 48)
    share = recorded(run).arrays["share.map"][:, 2]
    torch.testing.assert_close(mask.mean((1, 2)), share.mean((1, 2)), atol=2e-2, rtol=0)
    assert "to a region of the reference" in run.value("point", 3)


POINT_ERRORS = {
    "no such reference": ({"reference": 2}, "Reference 2 does not exist"),
    "region of another size": (
        {"region": ["mask", 0]},
        r"region is 16×16 \(width × height\), but the picture it belongs to is 48×64",
    ),
    "sinks of the result": ({"picked_on": "reference", "sinks": "remove"}, "over the reference"),
}


@pytest.mark.parametrize("case", POINT_ERRORS)
def test_point_refuses(run_graph: Any, case: str) -> None:
    inputs, message = POINT_ERRORS[case]
    some = graph(point=point(**inputs), mask=given("odd mask", MASK))
    run = run_graph(some, targets=["point"])
    assert re.search(message, run.errors["point"])


def test_point_needs_the_correspondence(run_graph: Any) -> None:
    some = changed(graph(point=point()), "capture", correspondence=False)
    run = run_graph(some, targets=["point"])
    assert "the correspondence, which was not recorded" in run.errors["point"]


def correspondence(**inputs: Any) -> dict[str, Any]:
    """Correspondence with its defaults."""
    return filled("I2AM_Flow", attribution=["collect", 0], **inputs)


def test_correspondence(run_graph: Any) -> None:
    """Each place's best match, its fraction of the row, and how many matches are mutual."""
    mask = torch.zeros(1, 64, 48)
    mask[:, :32] = 1  # two of four rows
    some = graph(match=correspondence(within_mask=True), mask=given("upper half", mask))
    run = run_graph(changed(some, "collect", mask=["mask", 0]), targets=["match"])
    pairs = recorded(run).arrays["correspondence.model.0"].flatten(3).flatten(1, 2)
    looks = pairs / pairs.sum(-1, keepdim=True)
    best = looks.argmax(-1)
    mutual = looks.argmax(1).gather(1, best) == torch.arange(12)
    flow, arrows, confidence, shown, agreement = (run.outputs["match"][n] for n in range(5))
    assert flow[0].shape[:2] == (BATCH, 64)
    assert arrows[0].shape[:2] == (BATCH, 64)
    assert agreement == pytest.approx(mutual[:, :6].float().mean(1).tolist())
    torch.testing.assert_close(shown[0][:, 8::16, 8::16].flatten(1), mutual.float())
    assert confidence[0].shape == (BATCH, 64, 48)
    text = run.value("match", 5)
    assert f"{int(mutual[0, :6].sum())} of 6 places of the mask" in text
    assert "an even spread would be 11.1%" in text
    assert run.ui["match"]["i2am_text"] == [text]


FLOW_ERRORS = {
    "no mask": ({"within_mask": True}, "within_mask needs a mask over the result"),
    "no such reference": ({"reference": 3}, "Reference 3 does not exist"),
}


@pytest.mark.parametrize("case", FLOW_ERRORS)
def test_correspondence_refuses(run_graph: Any, case: str) -> None:
    inputs, message = FLOW_ERRORS[case]
    run = run_graph(graph(match=correspondence(**inputs)), targets=["match"])
    assert message in run.errors["match"]


def test_correspondence_without_sinks(run_graph: Any) -> None:
    run = run_graph(graph(match=correspondence(sinks="remove")), targets=["match"])
    assert "sinks" in run.value("match", 5)
    assert "sinks kept" not in run.value("match", 5)


def test_invariant_18_cfg_changes_nothing_of_the_conditional_maps(run_graph: Any) -> None:
    """On the same latent, a run with cfg has the same conditional rows as one without."""
    found: list[Any] = []
    for cfg in (1.0, 4.0):
        some = changed(graph(), "sampler", steps=1, cfg=cfg)
        found.append(recorded(run_graph(some, targets=["collect"])))
    without, with_cfg = (record.arrays for record in found)
    assert without.keys() == with_cfg.keys()
    for name in without:
        torch.testing.assert_close(with_cfg[name], without[name], atol=1e-5, rtol=1e-4)


def test_the_paper_preset_turns_over_single_tokens(comfy: Any, run_graph: Any) -> None:
    """Only over the result, and only where the reference is one token, as in the authors' code."""
    attribution = run_graph(graph(), targets=["collect"]).value("collect")
    maps, geometry = comfy.pack("nodes.look.map"), comfy.pack("i2am.tokens")
    header = attribution.recording.header
    one = replace(header.references[0], grid=geometry.Grid(1, 1))
    single = replace(
        attribution,
        recording=replace(attribution.recording, header=replace(header, references=(one,))),
    )
    r2g, g2r = maps.Direction
    assert maps.paper_scale(attribution, r2g, 0) is maps.Scale.PAPER
    assert maps.paper_scale(single, r2g, 0) is maps.Scale.PAPER_COMPLEMENT
    assert maps.paper_scale(single, g2r, 0) is maps.Scale.PAPER
