"""With ComfyUI's own model patches and guiders, on either side of Capture Attention."""

from __future__ import annotations

from typing import Any

import pytest
import tiny
import torch
from graph import (
    capture,
    changed,
    collect,
    custom_sampler,
    filled,
    flux,
    flux_graph,
    given,
    node,
    sampler,
)

pytestmark = pytest.mark.usefixtures("tiny_nodes")

PATCHES = {
    "ModelSamplingFlux": {"width": 64, "height": 64},
    "EasyCache": {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0},
    "SkipLayerGuidanceDiT": {
        **{"double_layers": "0", "single_layers": "1", "start_percent": 0.0, "end_percent": 1.0},
    },
    "LazyCache": {"reuse_threshold": 3.0, "start_percent": 0.0, "end_percent": 1.0},
    "RescaleCFG": {},
}
GUIDANCE = ("APG", "CFGNorm", "CFGZeroStar", "DifferentialDiffusion", "Epsilon Scaling", "Mahiro")
GUIDANCE += ("NAGuidance", "TCFG", "TemporalScoreRescaling")
_SHRINK = {"downscale_method": "bicubic", "upscale_method": "bicubic"}
UNET_PATCHES = {
    "PerturbedAttentionGuidance": {},
    "SelfAttentionGuidance": {},
    "HyperTile": {},
    "FreeU_V2": {},
    "TomePatchModel": {},
    "PatchModelAddDownscale": {"block_number": 1, "end_percent": 1.0} | _SHRINK,
}


def recording(run: Any) -> Any:
    return run.value("collect").recording


def both_ways(graph: dict[str, Any], patch: dict[str, Any]) -> list[dict[str, Any]]:
    """Without Capture; with the patch before it; with the patch after it."""
    before = patch | {"inputs": patch["inputs"] | {"model": ["model", 0]}}
    after = patch | {"inputs": patch["inputs"] | {"model": ["capture", 0]}}
    return [
        changed(graph | {"patch": before}, "sampler", model=["patch", 0]),
        graph | {"patch": before, "capture": capture("patch")},
        changed(graph | {"patch": after}, "sampler", model=["patch", 0]),
    ]


def same_both_ways(run_graph: Any, plain: Any, before: Any, after: Any) -> Any:
    """A run with the patch: the same recording on either side, and the latent without Capture."""
    latent = run_graph(plain, ["sampler"]).value("sampler")["samples"]
    runs = [run_graph(one, ["collect"]) for one in (before, after)]
    for run in runs:
        assert run.ok, run.errors
        assert torch.equal(run.value("sampler")["samples"], latent)
    one, other = (recording(run).arrays for run in runs)
    assert all(torch.equal(one[k], other[k]) for k in one)
    return runs[-1]


@pytest.mark.neighbour(
    "ModelSamplingFlux, EasyCache, LazyCache, SkipLayerGuidanceDiT or RescaleCFG, on either side",
    "The same maps on either side; what EasyCache skips is counted in the report as not seen, and "
    "a step that LazyCache skips is no step of the recording",
)
@pytest.mark.parametrize("name", PATCHES)
def test_flux_patches(run_graph: Any, name: str) -> None:
    """The same latent with and without Capture, and the same recording on either side."""
    graph = changed(flux_graph(), "sampler", cfg=2.0, steps=4)
    plain, before, after = both_ways(graph, filled(name, **PATCHES[name]))
    run = same_both_ways(run_graph, plain, before, after)
    header = recording(run).header
    if name == "LazyCache":  # it skips calls without asking other nodes
        assert (header.evaluations, header.expected_evaluations) == (3, 3)
        assert len(header.steps) < len(header.run.schedule) - 1
    elif name == "EasyCache":
        assert 0 < header.evaluations < header.expected_evaluations
        assert "Some evaluations were not recorded" in run.value("collect", 2)
    else:
        assert (header.evaluations, header.expected_evaluations) == (4, 4)


@pytest.mark.neighbour(
    "APG, CFG Norm, CFG Zero Star, Differential Diffusion, Epsilon Scaling, Mahiro, NAG, TCFG or "
    "TSR, on either side",
    "The same maps on either side",
)
@pytest.mark.parametrize("name", GUIDANCE)
def test_guidance(comfy: Any, run_graph: Any, name: str) -> None:
    """Patches that change guidance or the steps, not the model."""
    if name not in comfy.nodes.NODE_CLASS_MAPPINGS:
        tiny.not_before("0.30.0", name)
    plain, before, after = both_ways(changed(flux_graph(), "sampler", cfg=2.0), filled(name))
    run = same_both_ways(run_graph, plain, before, after)
    header = recording(run).header
    assert (header.evaluations, header.counts) == (3, ((1,) * 4,) * 3)


@pytest.mark.neighbour(
    "PAG, SAG, HyperTile, ToMe, FreeU or Kohya Deep Shrink on a UNet, on either side",
    "Maps of the model's own evaluation; guidance that evaluates again with tampered attention is "
    "left out",
)
@pytest.mark.parametrize("name", UNET_PATCHES)
def test_unet_patches(run_graph: Any, name: str) -> None:
    """Evaluations of guidance with altered attention are left out of the recording.

    The first step starts from the same noise, so its maps are those without guidance.
    """
    marked = tiny.conditioning(30, 19, 24, i2am_image_tokens=[(5, 3, 4)])
    graph = flux_graph(
        model=node("Test_UNet", seed=0),
        positive=given("marked", marked),
        negative=given("plain", tiny.conditioning(31, 19, 24)),
        empty=node("EmptyLatentImage", width=128, height=128, batch_size=1),
        sampler=sampler(cfg=3.0, scheduler="normal"),
    )
    without = recording(run_graph(graph, ["collect"]))
    plain, before, after = both_ways(graph, filled(name, **UNET_PATCHES[name]))
    latent = run_graph(plain, ["sampler"]).value("sampler")["samples"]
    for one in (before, after):
        run = run_graph(one, ["collect"])
        assert run.ok, run.errors
        assert torch.equal(run.value("sampler")["samples"], latent)
        found = recording(run)
        assert found.header.counts == ((1,) * 7,) * 3
        if name.endswith("Guidance"):
            for key, array in without.arrays.items():
                if key.endswith("step_layer"):
                    torch.testing.assert_close(found.arrays[key][:, 0], array[:, 0])


@pytest.mark.neighbour(
    "BasicGuider, CFGGuider, DualCFGGuider or PerpNegGuider",
    "The positive conditioning is found by what it is, not by where the guider puts it",
)
@pytest.mark.parametrize(
    ("name", "inputs", "recorded"),
    [
        ("BasicGuider", {"conditioning": ["positive", 0]}, 1),
        ("CFGGuider", {"positive": ["positive", 0], "negative": ["negative", 0], "cfg": 2.0}, 1),
        (
            "DualCFGGuider",
            {"cond1": ["positive", 0], "cond2": ["two", 0], "negative": ["negative", 0]},
            1,
        ),
        (
            "PerpNegGuider",
            {
                **{"positive": ["positive", 0], "negative": ["two", 0], "cfg": 2.0},
                "empty_conditioning": ["negative", 0],
            },
            1,
        ),
    ],
)
def test_guiders(run_graph: Any, name: str, inputs: dict[str, Any], recorded: int) -> None:
    """The positive conditioning is recognised by itself, not by where a guider puts it."""
    graph = flux_graph(**custom_sampler())
    graph["two"] = node("Test_Conditioning", seed=33, references=2, dim=16)
    style = {"style": "regular"} if name == "DualCFGGuider" else {}
    graph["guider"] = filled(name, model=["capture", 0], **inputs, **style)
    run = run_graph(graph, ["collect"])
    assert run.ok, run.errors
    plain = run_graph(changed(graph, "guider", model=["model", 0]), ["sampler"])
    latents = [one.value("sampler")["samples"] for one in (run, plain)]
    assert torch.equal(*latents)
    header = recording(run).header
    assert len(header.references) == recorded
    assert (header.evaluations, header.counts) == (3, ((1,) * 4,) * 3)


def test_a_conditioning_for_some_steps(run_graph: Any) -> None:
    """References that end halfway: the steps without them are counted but not recorded."""
    ranged = filled("ConditioningSetTimestepRange", conditioning=["positive", 0], end=0.5)
    rest = filled("ConditioningSetTimestepRange", conditioning=["negative", 0], start=0.5)
    both = node("ConditioningCombine", conditioning_1=["ranged", 0], conditioning_2=["rest", 0])
    graph = changed(flux_graph(ranged=ranged, rest=rest, both=both), "sampler", steps=4)
    run = run_graph(changed(graph, "sampler", positive=["both", 0]), ["collect"])
    assert run.ok, run.errors
    header = recording(run).header
    assert 0 < len(header.steps) < 4
    assert header.expected_evaluations == 4


@pytest.mark.neighbour(
    "A compiled model: TorchCompileModel, one part compiled by another pack, or in place",
    "No maps: compiled code keeps or drops what watches it as it likes. Collect Attribution says "
    "so, and nothing is added to the run, so nothing is recompiled",
)
@pytest.mark.parametrize("way", ["node before", "node after", "part", "in place"])
def test_compiled(run_graph: Any, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    compiler = torch.compile

    def traced(model: Any, backend: str, **options: Any) -> Any:
        return compiler(model, backend="eager", **options)  # saves a minute of code generation

    monkeypatch.setattr(torch, "compile", traced)
    model = flux(0).clone()
    block = model.model.diffusion_model.double_blocks[0]
    prompt = flux_graph(model=given("compiled", model))
    plain, before, after = both_ways(prompt, filled("TorchCompileModel", backend="inductor"))
    if way == "part":
        compiled = compiler(block, backend="eager")
        model.add_object_patch("diffusion_model.double_blocks.0", compiled)
    elif way == "in place":
        block.compile(backend="eager")
        monkeypatch.setattr(block, "_compiled_call_impl", block._compiled_call_impl)
    if not way.startswith("node"):
        plain, before = changed(prompt, "sampler", model=["model", 0]), prompt
    try:
        latent = run_graph(plain, ["sampler"]).value("sampler")["samples"]
        frames = dict(torch._dynamo.utils.counters["frames"])
        run = run_graph(after if way == "node after" else before, ["collect"])
    finally:
        block._compiled_call_impl = None
        model.unpatch_model()
    assert frames["ok"] > 0
    assert frames == dict(torch._dynamo.utils.counters["frames"])
    assert set(run.errors) == {"collect"}
    assert "This model is compiled" in run.errors["collect"]
    assert torch.equal(run.value("sampler")["samples"], latent)
    fine = run_graph(flux_graph(), ["collect"])
    assert fine.ok, fine.errors


@pytest.mark.neighbour(
    "A pack that swaps the attention override while sampling, over ours, without chaining",
    "No maps: Collect Attribution says that another node took over the model's attention",
)
def test_override_over_ours(run_graph: Any) -> None:
    from comfy.patcher_extension import WrappersMP

    def swap(executor: Any, x: Any, timestep: Any, options: dict[str, Any], seed: Any) -> Any:
        own = {"optimized_attention_override": lambda func, *a, **k: func(*a, **k)}
        options["transformer_options"] |= own
        return executor(x, timestep, options, seed)

    model = flux(0).clone()
    model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "another", swap)
    prompt = flux_graph(model=given("swapping", model))
    plain = run_graph(changed(prompt, "sampler", model=["model", 0]), ["sampler"])
    run = run_graph(prompt, ["collect"])
    assert torch.equal(run.value("sampler")["samples"], plain.value("sampler")["samples"])
    assert set(run.errors) == {"collect"}
    assert "took its place" in run.errors["collect"]


@pytest.mark.neighbour(
    "A pack that swaps the attention override around some blocks only",
    "Maps of the blocks that were seen; the report counts the others as missing",
)
def test_override_over_ours_in_some_blocks(run_graph: Any) -> None:
    def around(arguments: dict[str, Any], extra: dict[str, Any]) -> Any:
        options = arguments["transformer_options"]
        own = {"optimized_attention_override": lambda func, *a, **k: func(*a, **k)}
        return extra["original_block"](arguments | {"transformer_options": options | own})

    model = flux(0).clone()
    model.set_model_patch_replace(around, "dit", "double_block", 1)
    prompt = flux_graph(model=given("around", model))
    plain = run_graph(changed(prompt, "sampler", model=["model", 0]), ["sampler"])
    run = run_graph(prompt, ["collect"])
    assert run.ok, run.errors
    assert torch.equal(run.value("sampler")["samples"], plain.value("sampler")["samples"])
    header = recording(run).header
    assert [layer.name for layer in header.layers] == ["double 0", "single 0", "single 1"]
    assert header.expected_layers == 4
    assert "3 of 4 layers" in run.value("collect", 2)


@pytest.mark.neighbour(
    "A tiled upscaler: each tile sampled on its own, with one watched model",
    "Each tile's latent has its own maps; the latent put together is refused, with what to connect",
)
def test_tiles(run_graph: Any) -> None:
    nodes: dict[str, Any] = {}
    for number, x in enumerate((0, 64)):
        crop = node("LatentCrop", samples=["whole", 0], width=64, height=64, x=x, y=0)
        nodes |= {f"crop{number}": crop}
        nodes[f"tile{number}"] = sampler(latent_image=[f"crop{number}", 0], denoise=0.5)
        nodes[f"collect{number}"] = collect(f"tile{number}")
    nodes["whole"] = node("EmptySD3LatentImage", width=128, height=64, batch_size=1)
    nodes["first"] = node(
        "LatentComposite", samples_to=["whole", 0], samples_from=["tile0", 0], x=0, y=0, feather=0
    )
    nodes["both"] = node(
        "LatentComposite", samples_to=["first", 0], samples_from=["tile1", 0], x=64, y=0, feather=0
    )
    prompt = flux_graph(**nodes) | {"collect": collect("both")}
    run = run_graph(prompt, ["collect0", "collect1"])
    assert run.ok, run.errors
    tiles = [run.value(f"collect{number}").recording for number in (0, 1)]
    assert [tile.header.run.latent for tile in tiles] == [(8, 8), (8, 8)]
    alone = run_graph(changed(prompt, "tile0", model=["model", 0]), ["tile0"])
    assert torch.equal(run.value("tile0")["samples"], alone.value("tile0")["samples"])
    whole = run_graph(prompt, ["collect"])
    assert "connect the sampler's own LATENT" in whole.errors["collect"]


@pytest.mark.neighbour(
    "Tiled diffusion: a pack that gives the model one tile after the other within each step",
    "No maps: Collect Attribution says that tiles cannot be read, with their size",
)
@pytest.mark.parametrize("side", ["before", "after"])
def test_tiles_within_a_step(run_graph: Any, side: str) -> None:
    def tiled(apply: Any, arguments: dict[str, Any]) -> Any:
        x, t = arguments["input"], arguments["timestep"]
        return torch.cat([apply(tile, t, **arguments["c"]) for tile in x.chunk(2, dim=2)], dim=2)

    model = flux(0).clone()
    model.set_model_unet_function_wrapper(tiled)
    prompt = flux_graph(model=given("tiled", model))
    plain = run_graph(changed(prompt, "sampler", model=["model", 0]), ["sampler"])
    if side == "after":
        armed = run_graph(flux_graph(), ["capture"]).value("capture").clone()
        armed.set_model_unet_function_wrapper(tiled)
        prompt["capture"] = given("tiled and armed", armed)
    run = run_graph(prompt, ["collect"])
    assert torch.equal(run.value("sampler")["samples"], plain.value("sampler")["samples"])
    assert "Samplers that work in tiles" in run.errors["collect"]
    assert "4×6 of a latent of 8×6" in run.errors["collect"]
