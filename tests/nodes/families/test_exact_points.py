"""Point queries set before sampling, from Capture Attention to Point Attribution, in real ComfyUI.

`prove` shows for every family of models that rows and columns are right.
"""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from graph import capture, changed, collect, filled, flux_graph, node, same_arrays, sampler
from proof import recording

pytestmark = pytest.mark.usefixtures("tiny_nodes")

PLACES = {"points": "0.3,0.6; 0.8,0.1; 0,0-1,1", "reference_points": "0.7,0.2"}
BOTH = ("paper", "model")


def point(**inputs: Any) -> dict[str, Any]:
    given = {"attribution": ["collect", 0], "legend": False, "x": 0.3, "y": 0.6}
    return filled("I2AM_Point", **(given | inputs))


def asked(**nodes: Any) -> dict[str, Any]:
    """Three results of a tiny Flux, 4×3 tokens; nothing is pooled."""
    graph = flux_graph(capture=capture(**PLACES), **nodes)
    return changed(graph, "empty", batch_size=3)


@pytest.mark.parametrize("definition", BOTH)
def test_exact_and_pooled_agree_where_nothing_is_pooled(run_graph: Any, definition: str) -> None:
    """The same row, and the model's same column, either way; x and y anywhere in the token."""
    there = {"definition": definition, "x": 0.2, "y": 0.55}
    back = {"definition": definition, "picked_on": "reference", "x": 0.65, "y": 0.3}
    run = run_graph(
        asked(
            row=point(**there),
            pooled_row=point(**there, source="pooled"),
            column=point(**back, source="exact"),
            pooled_column=point(**back, source="pooled"),
        )
    )
    assert run.ok, run.errors
    assert run.value("row", 2).shape[0] == 3
    torch.testing.assert_close(
        run.value("row", 2), run.value("pooled_row", 2), atol=1e-5, rtol=1e-4
    )
    assert "Exact, since this point was named" in run.value("row", 3)
    assert "from 0.3,0.6 of the result, exact" in run.value("row", 3)
    assert "From the correspondence, pooled to" in run.value("pooled_row", 3)
    same = torch.allclose(run.value("column", 2), run.value("pooled_column", 2), atol=1e-5)
    assert same == (definition == "model")  # the paper's column has another softmax
    assert ("SRAM the other way round" in run.value("column", 3)) == (definition == "paper")
    report = run.value("collect", 2)
    assert "result: 0.3,0.6; 0.8,0.1; 0,0-1,1\n  reference 1: 0.7,0.2" in report


def test_ranges_are_those_that_would_have_been_recorded_alone(run_graph: Any) -> None:
    """Layers and steps of an exact point: what the correspondence of these alone holds."""
    run = run_graph(asked(some=point(layers="1,3", steps="1-2")))
    alone = changed(asked(some=point(source="pooled")), "capture", layers="1,3", steps="1-2")
    other = run_graph(alone)
    assert run.ok, run.errors
    assert other.ok, other.errors
    torch.testing.assert_close(run.value("some", 2), other.value("some", 2), atol=1e-5, rtol=1e-4)
    assert "mean over steps 1-2 and layers 1,3, of 3 steps and 4 layers" in run.value("some", 3)


def test_places_by_number(run_graph: Any) -> None:
    """The rectangle over the whole picture gives the paper's map of all places (invariant 12)."""
    names = {
        "all": point(asked=3, definition="paper"),
        "map": filled(
            "I2AM_Map",
            attribution=["collect", 0],
            direction="generated to reference",
            definition="paper",
            legend=False,
        ),
        "second": point(asked=2),
        "same": point(x=0.9, y=0.2),
    }
    run = run_graph(asked(**names))
    assert run.ok, run.errors
    torch.testing.assert_close(run.value("all", 2), run.value("map", 2), atol=1e-5, rtol=1e-4)
    assert torch.equal(run.value("second", 2), run.value("same", 2))


def test_elsewhere_it_is_pooled(run_graph: Any) -> None:
    mask = node("SolidMask", value=1.0, width=48, height=64)
    run = run_graph(asked(mask=mask, other=point(y=0.9), region=point(region=["mask", 0])))
    assert run.ok, run.errors
    for name in ("other", "region"):
        assert "From the correspondence" in run.value(name, 3)


@pytest.mark.bad_input(
    "Point Attribution: a place, layers or steps that were not recorded",
    "Said, with what was recorded and how to record more; nothing else is shown instead",
)
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        (
            {"y": 0.9, "layers": "1"},
            "layers asks for “1”, but of 0.30, 0.90 there is only the mean",
        ),
        ({"source": "pooled", "steps": "0"}, "steps asks for “0”, but of 0.30, 0.60"),
        ({"layers": "9"}, "there are only 0 to 3"),
        ({"steps": "x"}, "steps cannot be read"),
        ({"asked": 1, "source": "pooled"}, "asked names point 1, which pooled cannot read"),
        ({"y": 0.9, "source": "exact"}, "0.30, 0.90 was not recorded exactly: the points named"),
        (
            {"asked": 4},
            "There is no point 4: those named in Capture Attention for this ",
        ),
        ({"asked": 2, "picked_on": "reference"}, "picture are 1 (0.7,0.2). Choose one of them"),
    ],
)
def test_what_was_not_recorded_is_told(run_graph: Any, inputs: Any, words: str) -> None:
    run = run_graph(asked(point=point(**inputs)))
    assert set(run.errors) == {"point"}
    assert words in run.errors["point"]


@pytest.mark.bad_input(
    "Capture Attention: places it cannot read, or more than 16",
    "Said before anything runs, with how places are written",
)
@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"points": "0.5"}, "points cannot be read: found “0.5”"),
        ({"points": "640,480"}, "outside the picture"),
        ({"reference_points": "0.1,0.1-0.1,0.2"}, "an empty rectangle"),
        ({"points": "0.1,0.1;" * 17}, "17 points are named, but at most 16"),
    ],
)
def test_bad_texts_are_told_before_anything_runs(run_graph: Any, inputs: Any, words: str) -> None:
    run = run_graph(changed(flux_graph(), "capture", **inputs), ["collect"])
    assert set(run.errors) == {"capture"}
    assert words in run.errors["capture"]
    assert not run.outputs


def test_a_text_by_wire(run_graph: Any) -> None:
    graph = changed(asked(text=node("PrimitiveString", value="0.3,0.6")), "capture")
    run = run_graph(changed(graph, "capture", points=["text", 0]), ["collect"])
    assert run.ok, run.errors
    places = run.value("collect", 0).recording.header.plan.places
    assert [place.name for place in places] == ["0.3,0.6", "0.7,0.2"]
    graph = changed(graph, "text", value="here")
    run = run_graph(changed(graph, "capture", points=["text", 0]), ["collect"])
    assert "points cannot be read: found “here”" in run.errors["capture"]


def test_runs_that_asked_about_other_places_are_told_apart(run_graph: Any) -> None:
    """Two runs with the same seed give one latent and two recordings."""
    graph = flux_graph(
        capture=capture(points="0.1,0.1"),
        capture_2=capture(points="0.9,0.9"),
        sampler_2=sampler("capture_2"),
        collect_2=collect("sampler_2"),
    )
    run = run_graph(graph, ["collect", "collect_2"])
    assert run.ok, run.errors
    assert torch.equal(run.value("sampler")["samples"], run.value("sampler_2")["samples"])
    for name, wanted in (("collect", "0.1,0.1"), ("collect_2", "0.9,0.9")):
        (place,) = run.value(name, 0).recording.header.plan.places
        assert place.name == wanted


def test_save_and_load(run_graph: Any) -> None:
    """A file holds the points, and Point Attribution reads them as it does from the run itself."""
    save = filled("I2AM_Save", attribution=["collect", 0], filename_prefix="points_test")
    first = run_graph(asked(save=save, point=point(layers="2")))
    assert first.ok, first.errors
    load = node("I2AM_Load", file=first.value("save", 0))
    again = run_graph({"load": load, "point": point(layers="2", attribution=["load", 0])})
    assert again.ok, again.errors
    torch.testing.assert_close(again.value("point", 2), first.value("point", 2), atol=2e-3, rtol=0)
    assert again.value("point", 3) == first.value("point", 3)


def test_nothing_else_changes(comfy: Any) -> None:
    """The latent is the same, and every other array is the same to the bit."""
    hook, plan = comfy.pack("nodes.host.hook"), comfy.pack("i2am.recording").Plan
    places = comfy.pack("nodes.watch.capture")._point_queries(
        "0.3,0.6; 0,0-0.5,0.5", "0.5,0.5; 2: 0.9,0.1"
    )
    references = (tiny.latent(10, 1, 16, 7, 14), tiny.latent(11, 1, 16, 6, 5))
    positive, negative = (tiny.conditioning(seed, 7, 16, references) for seed in (20, 21))
    start = tiny.latent(22, 3, 16, 12, 10)
    latents = [tiny.sample(tiny.flux(), positive, negative, start, cfg=3.0)]
    records = []
    for asked in ((), places):
        latents.append(
            tiny.sample(
                hook.arm(tiny.flux(), plan(places=asked)), positive, negative, start, cfg=3.0
            )
        )
        records.append(recording(comfy, latents[-1]))
    assert all(torch.equal(latent, latents[0]) for latent in latents)
    plain, more = (dict(record.arrays) for record in records)
    assert same_arrays(plain, {name: more[name] for name in plain})
    assert {name for name in more if name not in plain} == {
        *(f"point.{d}.{n}.{r}" for d in BOTH for n in ("g2r", "r2g") for r in (0, 1))
    }
