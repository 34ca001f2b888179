"""The viewer's numbers in the page, against those from Python: maps, colours, IMACS."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from recordings import attribution, recording

from i2am.display import Colormap, Scale, overlay, pack_payload, paint
from i2am.display.render import normalise, value_range
from i2am.maps import (
    AttributionMap,
    LayerWeight,
    Level,
    Location,
    Selection,
    attribution_map,
    correspondence_of,
    display_values,
    paper_selection,
    point_map,
    unit,
    word_maps,
)
from i2am.recording import Attribution, Definition, Direction, Word
from i2am.scores import imacs_score
from i2am.tokens import Grid, resample_nonnegative

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "tests" / "web" / "numbers.mjs"
R2G, G2R = Direction.REFERENCE_TO_GENERATED, Direction.GENERATED_TO_REFERENCE
SHORT = {R2G: "r2g", G2R: "g2r"}
# Tolerances: a payload's 16 bits, relative to a map's highest value; a picture's 256 levels.
CLOSE = 1e-4
LEVELS = 2.0


def node() -> str:
    """The Node.js that `dev.py test` names, or the machine's."""
    found = os.environ.get("NODE") or shutil.which("node")
    if not found:
        pytest.fail("The page's code is tested with Node.js: run python dev.py test", pytrace=False)
    return found


@pytest.fixture
def ask(tmp_path: Path) -> Any:
    """Asks the page's code about an attribution: one answer per question."""

    def asked(given: Attribution, questions: list[dict[str, Any]], **masks: Any) -> list[Any]:
        payload, file = tmp_path / "payload.i2am", tmp_path / "questions.json"
        payload.write_bytes(pack_payload(given, masks.get("reference_masks")))
        file.write_text(json.dumps(questions), "utf-8")
        run = subprocess.run(
            [node(), str(SCRIPT), str(payload), str(file)],
            capture_output=True,
            text=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)

    return asked


def state(definition: Definition, direction: Direction, **more: Any) -> dict[str, Any]:
    return {"definition": definition.value, "direction": SHORT[direction], **more}


def same(found: Any, expected: AttributionMap, item: int) -> None:
    """The page's display numbers are those of `render.display_values`."""
    values = display_values(expected)[item].flatten(1)
    shown = torch.tensor(found["values"])
    assert found["unit"] == unit(expected)
    assert shown.shape == values.shape
    assert float((shown - values).abs().max() / values.max()) < CLOSE


@pytest.mark.parametrize("definition", list(Definition))
@pytest.mark.parametrize("direction", list(Direction))
def test_every_level(ask: Any, definition: Definition, direction: Direction) -> None:
    """With a layer that skips a step, layers with different heads, and ranges of each."""
    made = recording(missing=((1, 0),), heads=(2, 3, 3))
    cases = [
        (Level.UNIFIED, Selection(), {}),
        (Level.UNIFIED, Selection(steps="1-2", layers="0-1"), {"steps": [1, 2], "layers": [0, 1]}),
        (Level.TIME, Selection(time_groups=4), {}),
        (Level.TIME, Selection(steps="0-1", time_groups=2), {"steps": [0, 1]}),
        (Level.LAYER, Selection(layers="1-2"), {"layers": [1, 2]}),
        (Level.LAYER, Selection(heads="1"), {"head": 1}),
        (Level.HEAD, Selection(), {}),
        (Level.HEAD, Selection(layers="1-2"), {"layers": [1, 2]}),
        (Level.UNIFIED, Selection(heads="2"), {"head": 2}),
    ]
    for item, reference in ((0, 0), (1, 1)):
        questions = [
            {
                "state": state(
                    definition,
                    direction,
                    item=item,
                    reference=reference,
                    level=level.value,
                    **more,
                )
            }
            for level, _, more in cases
        ]
        answers = ask(replace(attribution(), recording=made), questions)
        for (level, selection, _), found in zip(cases, answers, strict=True):
            expected = attribution_map(made, definition, direction, level, reference, selection)
            same(found, expected, item)


# Like a UNet's: layers with coarser grids over the result, one of which does not divide the finest.
UNLIKE = (Grid(12, 9), Grid(6, 5, (6, 4.5)), Grid(5, 4, (5, 3.75)), Grid(12, 9))


@pytest.mark.parametrize("definition", list(Definition))
@pytest.mark.parametrize("direction", list(Direction))
@pytest.mark.parametrize("weight", list(LayerWeight))
def test_layer_weight(
    ask: Any, definition: Definition, direction: Direction, weight: LayerWeight
) -> None:
    made = recording(heads=(2, 3, 3, 2), generated=UNLIKE, missing=((1, 0),))
    cases = [
        (Level.UNIFIED, Selection(), {}),
        (Level.UNIFIED, Selection(steps="1-2", layers="0-1"), {"steps": [1, 2], "layers": [0, 1]}),
        (Level.TIME, Selection(time_groups=4), {}),
        (Level.LAYER, Selection(layers="1-3"), {"layers": [1, 3]}),
        (Level.HEAD, Selection(), {}),
        (Level.UNIFIED, Selection(heads="1"), {"head": 1}),
    ]
    asked = {"item": 1, "weight": weight.value}
    questions = [
        {"state": state(definition, direction, level=level.value, **asked, **more)}
        for level, _, more in cases
    ]
    answers = ask(replace(attribution(), recording=made), questions)
    for (level, selection, _), found in zip(cases, answers, strict=True):
        selection = replace(selection, weight=weight)
        same(found, attribution_map(made, definition, direction, level, 0, selection), 1)


@pytest.mark.parametrize(("direction", "single"), [(R2G, False), (G2R, False), (R2G, True)])
def test_the_papers_preset(ask: Any, direction: Direction, single: bool) -> None:
    """Layers by value, in the official order without the middle block, painted with the cut. For a
    one-token reference, the complement over the result. Other choices have no effect."""
    over = Grid(1, 1) if single else Grid(5, 4)
    made = recording(heads=(2, 3, 3, 2), generated=UNLIKE, references=(over,))
    blocks = ("input", "middle", "input", "output")
    layers = [replace(layer, block=b) for layer, b in zip(made.header.layers, blocks, strict=True)]
    made = replace(made, header=replace(made.header, layers=tuple(layers)))
    size = 48, 36
    scale = Scale.PAPER_COMPLEMENT if single and direction is R2G else Scale.PAPER
    mask = torch.zeros(1, *size)
    mask[:, 8:30, 10:20] = 1
    given = Attribution(made, torch.rand(2, *size, 3), (torch.rand(1, *size, 3),), mask)
    look = {"picture": [0] * (4 * size[0] * size[1]), "opacity": 0.8, "colormap": "inferno"}
    look |= {"height": size[0], "width": size[1]}
    chosen = {"preset": "paper", "weight": "equal", "scale": "absolute"}
    cases = [
        (Level.UNIFIED, Selection(), {}),
        (Level.UNIFIED, Selection(layers="0-2", steps="1"), {"layers": [0, 2], "steps": [1, 1]}),
        (Level.LAYER, Selection(), {}),
        (Level.HEAD, Selection(), {}),
        (Level.UNIFIED, Selection(heads="1"), {"head": 1}),
    ]
    questions = [
        {"state": state(Definition.MODEL, direction, level=level.value, **chosen, **more)}
        | {"overlay": look}
        for level, _, more in cases
    ]
    answers = ask(given, questions, reference_masks={0: mask})
    for (level, selection, _), found in zip(cases, answers, strict=True):
        asked = paper_selection(made, selection)
        maps = attribution_map(made, Definition.PAPER, direction, level, 0, asked)
        same(found, maps, 0)
        assert found["labels"] == [label.replace("unified", "") for label in maps.labels]
        painted = paint(maps, scale, size).values[0, 0]
        shown = torch.tensor(found["painted"]).reshape(size)
        # Values at the cut, to within rounding, may fall on either side.
        near = (shown - painted).abs() > 1e-3
        assert bool((torch.maximum(shown, painted)[near] < 0.4 + 1e-3).all())
        assert float(near.float().mean()) < 0.01
        if level is Level.UNIFIED:
            score = imacs_score(maps, mask, complement=scale is Scale.PAPER_COMPLEMENT).imacs[0]
            assert found["imacs"][0] == pytest.approx(float(score), abs=5e-3)


def test_frames_of_a_video(ask: Any) -> None:
    made = recording(generated=Grid(4, 3, frames=3), references=(Grid(2, 3),), batch=1)
    questions = [{"state": state(Definition.MODEL, R2G, frame=frame)} for frame in (None, 0, 2)]
    answers = ask(Attribution(made), questions)
    for frame, found in zip((-1, 0, 2), answers, strict=True):
        same(found, attribution_map(made, Definition.MODEL, R2G, frame=frame), 0)


@pytest.mark.parametrize("scale", [Scale.PER_MAP, Scale.SHARED, Scale.ABSOLUTE])
@pytest.mark.parametrize("definition", list(Definition))
def test_ranges(ask: Any, definition: Definition, scale: Scale) -> None:
    given = attribution()
    question = {"state": state(definition, R2G, level="layer"), "scale": scale.value}
    (found,) = ask(given, [question])
    maps = attribution_map(given.recording, definition, R2G, Level.LAYER)
    low, high = value_range(display_values(maps)[:1], scale, maps)
    ranges = torch.tensor(found["ranges"], dtype=torch.float32)
    torch.testing.assert_close(ranges, torch.stack((low[0], high[0]), 1), rtol=CLOSE, atol=CLOSE)


@pytest.mark.parametrize("definition", list(Definition))
@pytest.mark.parametrize("side", ["result", "reference"])
def test_places(ask: Any, definition: Definition, side: str) -> None:
    """Points in every cell, also at the borders, and a rectangle, on a grid with half a row."""
    given = attribution()
    pairs = correspondence_of(given.recording, definition, 1)
    grid = pairs.result if side == "result" else pairs.reference
    direction = G2R if side == "result" else R2G
    points = [
        ((column + 0.5) / grid.width, (row + 0.5) / grid.height)
        for row in range(grid.height)
        for column in range(grid.width)
    ] + [(0.0, 0.0), (1.0, 1.0)]
    asked = state(definition, R2G, item=1, reference=1)
    questions = [
        {"state": asked, "place": {"side": side, "place": {"kind": "point", "x": x, "y": y}}}
        for x, y in points
    ]
    region = torch.zeros(1, 200, 200)
    region[:, 40:120, 60:180] = 1
    edges = {"left": 0.3, "right": 0.9, "top": 0.2, "bottom": 0.6}
    place = {"side": side, "place": {"kind": "rectangle", **edges}}
    answers = ask(given, [*questions, {"state": asked, "place": place}])
    places = [*(Location(x, y) for x, y in points), Location(region=region)]
    for place, found in zip(places, answers, strict=True):
        same(found, point_map(pairs, definition, direction, place), 1)


@pytest.mark.parametrize(("height", "width"), [(40, 60), (3, 2)])
def test_overlay(ask: Any, height: int, width: int) -> None:
    """Resized up and down, normalised and coloured over a picture, on a grid with half a row."""
    given = attribution()
    picture = torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(1))
    bytes = torch.cat(((picture * 255).round(), torch.full((1, height, width, 1), 255)), 3)
    asked = {
        "state": state(Definition.PAPER, G2R, reference=1),
        "overlay": {
            "picture": bytes.flatten().int().tolist(),
            "height": height,
            "width": width,
            "opacity": 0.7,
            "colormap": "viridis",
        },
    }
    (found,) = ask(given, [asked])
    maps = attribution_map(given.recording, Definition.PAPER, G2R, reference=1)
    shown = display_values(maps)[:1]
    low, high = value_range(shown, Scale.PER_MAP, maps)
    painted = normalise(resample_nonnegative(shown, maps.grid, (height, width)), low, high)
    difference = torch.tensor(found["painted"]) - painted.flatten()
    assert float(difference.abs().max()) < 1e-3
    laid = overlay(bytes[..., :3] / 255, painted[:, 0], Colormap.VIRIDIS, 0.7) * 255
    drawn = torch.tensor(found["overlay"]).reshape(height, width, 4)[..., :3]
    assert float((drawn - laid[0]).abs().max()) < LEVELS


@pytest.mark.parametrize("direction", list(Direction))
def test_imacs(ask: Any, direction: Direction) -> None:
    given = attribution()
    over_reference = torch.zeros(1, 16, 24)
    over_reference[:, 4:9, 3:14] = 1
    question = {"state": state(Definition.MODEL, direction)}
    (found,) = ask(given, [question], reference_masks={0: over_reference})
    maps = attribution_map(given.recording, Definition.MODEL, direction)
    mask = given.mask if direction is R2G else over_reference
    assert mask is not None
    assert found["imacs"][0] == pytest.approx(float(imacs_score(maps, mask).imacs[0]), abs=2e-3)


def test_nothing_was_recorded(ask: Any) -> None:
    given = Attribution(recording(correspondence=False))
    place = {"side": "result", "place": {"kind": "point", "x": 0.5, "y": 0.5}}
    assert ask(given, [{"state": {}, "place": place}]) == [None]


def test_words_and_their_ranking(ask: Any) -> None:
    """The page's maps of words, and who is attended to most at a cell or in a rectangle."""
    words = (Word("cat", (1, 2)), Word("dog", (4,)))
    made = replace(attribution(words=6), words=words)
    rectangle = {"kind": "rectangle", "left": 0.0, "top": 0.25, "right": 1.0, "bottom": 0.5}
    point = {"kind": "point", "x": 0.9, "y": 0.3}
    maps, at_point, in_row = ask(
        made,
        [
            {"state": {"item": 1, "word": 0}},
            {"state": {"item": 1}, "ranked": point},
            {"state": {"item": 1}, "ranked": rectangle},
        ],
    )
    expected = display_values(word_maps(made.recording, words))[1]
    assert maps["labels"] == ["cat", "dog"]
    torch.testing.assert_close(
        torch.tensor(maps["values"]), expected.flatten(1), rtol=CLOSE, atol=CLOSE
    )
    shares = made.recording.arrays["share.map"][1]
    wanted = {
        **{f"“{word.text}”": expected[n] for n, word in enumerate(words)},
        **{f"reference {r + 1}": shares[2 + r] for r in range(2)},
    }
    for found, mean in ((at_point, lambda m: m[1, 2]), (in_row, lambda m: m[1].mean())):
        assert [one["name"] for one in found] == sorted(
            wanted, key=lambda n: -float(mean(wanted[n]))
        )
        for one in found:
            assert one["share"] == pytest.approx(float(mean(wanted[one["name"]])), abs=CLOSE)


def test_words_alone_show_the_first(ask: Any) -> None:
    """Without a reference there is nothing but words to show."""
    alone = attribution(words=6, references=(), definitions="both")
    (maps,) = ask(replace(alone, words=(Word("cat", (1, 2)),)), [{"state": {}}])
    assert maps["labels"] == ["cat"]
