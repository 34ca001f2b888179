"""Graphs from practice: each gives a right map, or says why there is none.

The part of a picture the model saw and single pictures of a batch have their own tests, in watch/.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from graph import (
    REFERENCES,
    attribution_map,
    capture,
    changed,
    collect,
    custom_sampler,
    filled,
    flux_graph,
    given,
    imacs,
    node,
    same,
    sampler,
)
from PIL import Image
from tiny_adapters import SD15_PLACES
from tiny_unets import SD15
from torch import Tensor

pytestmark = pytest.mark.usefixtures("tiny_nodes")

OVER_REFERENCE = "generated to reference"


def square_of(height: int, width: int) -> Tensor:
    mask = torch.zeros(1, height, width)
    mask[:, height // 4 : height // 2, width // 4 : width // 2] = 1
    return mask


class TestRanges:
    def test_words_in_capture(self, run_graph: Any) -> None:
        """Steps `last` and layers `single` record the same as the corresponding numbers."""
        graph = changed(flux_graph(), "capture", steps="last", layers="single")
        found = run_graph(graph, ["collect"]).value("collect").recording
        assert found.header.steps == (2,)
        assert [layer.name for layer in found.header.layers] == ["single 0", "single 1"]
        numbers = changed(flux_graph(), "capture", steps="2", layers="2-3")
        same_run = run_graph(numbers, ["collect"]).value("collect").recording
        assert same(found, same_run)  # also the plan in the header: files hold plain numbers

    @pytest.mark.parametrize(
        ("steps", "recorded"),
        [("-1", (2,)), ("0%-50%", (0,)), ("50%-100%", (1, 2)), ("-2-last", (1, 2)), ("9", None)],
    )
    def test_steps(self, run_graph: Any, steps: str, recorded: tuple[int, ...] | None) -> None:
        run = run_graph(changed(flux_graph(), "capture", steps=steps), ["collect"])
        if recorded is None:
            assert "Nothing was recorded" in run.errors["collect"]
        else:
            assert run.value("collect").recording.header.steps == recorded

    def test_words_in_a_map(self, run_graph: Any) -> None:
        graph = flux_graph(map=attribution_map(steps="last", layers="single.1,double"))
        words = run_graph(graph, ["map"])
        numbers = run_graph(changed(graph, "map", steps="2", layers="0-1,3"), ["map"])
        assert torch.equal(words.value("map", 2), numbers.value("map", 2))

    def test_words_in_reference_strength(self, run_graph: Any) -> None:
        steer = filled("I2AM_Steer", model=["model", 0], strength=0.0, steps="last")
        graph = flux_graph(steer=steer, capture=capture("steer"))
        words = run_graph(graph, ["sampler"]).value("sampler")["samples"]
        numbers = run_graph(changed(graph, "steer", steps="2"), ["sampler"])
        assert torch.equal(words, numbers.value("sampler")["samples"])
        plain = run_graph(changed(graph, "steer", steps="0-1"), ["sampler"])
        assert not torch.equal(words, plain.value("sampler")["samples"])

    @pytest.mark.bad_input(
        "Capture Attention: a layer the model does not have",
        "Said before a step is sampled, with the layers it has",
    )
    def test_a_layer_that_is_not_there(self, run_graph: Any) -> None:
        run = run_graph(changed(flux_graph(), "capture", layers="output.8"), ["collect"])
        assert "no layer “output.8”" in run.errors["capture"]
        assert "double 0 to double 1, single 0 to single 1" in run.errors["capture"]
        assert "sampler" not in run.executed


class TestMasks:
    def test_a_result_upscaled_twice(self, run_graph: Any) -> None:
        """The mask as drawn fits the larger picture, wherever it is used."""
        graph = flux_graph(
            image=node("Test_Picture", samples=["sampler", 0]),
            large=node("ImageScaleBy", image=["image", 0], upscale_method="bicubic", scale_by=2.0),
            mask=given("drawn", square_of(64, 48)),
            collect=collect(image=["large", 0], mask=["mask", 0]),
            imacs=imacs(),
            here=imacs(generated_mask=["mask", 0]),
            viewer=filled("I2AM_Viewer", attribution=["collect", 0]),
        )
        run = run_graph(graph, ["imacs", "here", "viewer"])
        assert run.ok, run.errors
        assert run.value("collect").mask.shape == (1, 128, 96)
        small = changed(graph, "collect", image=["image", 0])
        before = run_graph(small, ["imacs"]).outputs["imacs"][0]
        assert run.outputs["imacs"][0] == run.outputs["here"][0]
        assert run.outputs["imacs"][0] == pytest.approx(before, abs=0.05)

    def test_other_proportions(self, run_graph: Any) -> None:
        """144×112 with a mask of 128×128: refused, where the mask is connected."""
        graph = flux_graph(
            empty=node("EmptySD3LatentImage", width=144, height=112, batch_size=1),
            mask=given("square", square_of(128, 128)),
            collect=collect(mask=["mask", 0]),
        )
        message = run_graph(graph, ["collect"]).errors["collect"]
        assert "mask over the result is 128×128" in message
        assert "144×112, which has other proportions" in message
        graph = graph | {"collect": collect(), "imacs": imacs(generated_mask=["mask", 0])}
        assert "other proportions" in run_graph(graph, ["imacs"]).errors["imacs"]


class TestAdapter:
    """A picture twice as wide as high for an IP-Adapter, which crops its centre."""

    @pytest.fixture
    def graph(self) -> dict[str, Any]:
        import adapter_pack

        tokens = {"cond": tiny.latent(40, 1, 257, 12), "uncond": tiny.latent(41, 1, 257, 12)}
        model = adapter_pack.apply(tiny.build("SD15", **SD15), SD15_PLACES, 0, **tokens)
        return {
            "model": given("adapted", model),
            "photo": given("wide", torch.rand(1, 64, 128, 3)),
            "capture": capture(),
            "positive": node("Test_Conditioning", seed=20, references=0, dim=24),
            "negative": node("Test_Conditioning", seed=21, references=0, dim=24),
            "empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
            "sampler": sampler(cfg=2.0),
            "collect": collect(**{"references.reference_1": ["photo", 0]}),
            "map": attribution_map(direction=OVER_REFERENCE),
        }

    def test_on_the_centre(self, run_graph: Any, graph: dict[str, Any]) -> None:
        run = run_graph(graph, ["map"])
        assert "the model saw the middle, 64×64 of 128×64" in run.value("collect", 2)
        mask = run.value("map", 2)
        assert mask.shape == (1, 64, 128)
        assert float(mask[:, :, 32:96].max()) > 0
        assert float(mask[:, :, :32].max()) == float(mask[:, :, 96:].max()) == 0


class Tiled:
    """Like IPAdapterTiled: each half of a picture is its own adapter."""

    RETURN_TYPES = ("MODEL", "IMAGE", "MASK")
    RETURN_NAMES = ("MODEL", "tiles", "masks")
    FUNCTION = "apply"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model": ("MODEL",), "image": ("IMAGE",)}}

    def apply(self, model: Any, image: Tensor) -> tuple[Any, ...]:
        import adapter_pack

        for number in (0, 1):
            tokens = {name: tiny.latent(50 + number, 1, 257, 12) for name in ("cond", "uncond")}
            model = adapter_pack.apply(model, SD15_PLACES, number, **tokens)
        tiles = torch.cat(image.chunk(2, 2))
        return model, tiles, torch.ones(2, *tiles.shape[1:3])


class TestTiles:
    @pytest.mark.bad_input(
        "Collect Attribution: a picture that reached the model in tiles",
        "Refused, naming the output that holds them",
    )
    def test_in_a_graph(self, comfy: Any, run_graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """No map covers the whole picture; each tile has its own."""
        monkeypatch.setitem(comfy.nodes.NODE_CLASS_MAPPINGS, "IPAdapterTiled", Tiled)
        graph = {
            "model": given("plain UNet", tiny.build("SD15", **SD15)),
            "photo": given("two squares", torch.rand(1, 64, 128, 3)),
            "tiled": node("IPAdapterTiled", model=["model", 0], image=["photo", 0]),
            "capture": capture("tiled"),
            "positive": node("Test_Conditioning", seed=20, references=0, dim=24),
            "negative": node("Test_Conditioning", seed=21, references=0, dim=24),
            "empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
            "sampler": sampler(cfg=2.0),
            "collect": collect(**{"references.reference_1": ["photo", 0]}),
            "map": attribution_map(direction=OVER_REFERENCE, reference=2),
        }
        message = run_graph(graph, ["collect"]).errors["collect"]
        assert "in tiles, through “IPAdapterTiled” (node tiled)" in message
        assert "output “tiles”" in message
        graph = changed(graph, "collect", **{"references.reference_1": ["tiled", 1]})
        run = run_graph(graph, ["map"])
        assert run.ok, run.errors
        found = run.value("collect")
        assert [picture.shape[1:3] for picture in found.references] == [(64, 64)] * 2
        assert run.value("map", 2).shape == (1, 64, 64)


class TestPictures:
    def test_files_of_all_kinds(self, comfy: Any, run_graph: Any) -> None:
        """A rotated JPEG, a transparent PNG and 16-bit grey, as LoadImage gives them."""
        folder = Path(comfy.folder_paths.get_input_directory())
        folder.mkdir(parents=True, exist_ok=True)
        turned = Image.new("RGB", (80, 96), (200, 30, 30))
        exif = Image.Exif()
        exif[0x0112] = 6  # on its side: displayed as 96×80
        turned.save(folder / "i2am_turned.jpg", exif=exif)
        Image.new("RGBA", (96, 80), (10, 200, 30, 90)).save(folder / "i2am_clear.png")
        Image.new("I;16", (96, 80), 40000).save(folder / "i2am_grey.png")
        latent = tiny.latent(70, 1, 16, 10, 12)
        for name in ("i2am_turned.jpg", "i2am_clear.png", "i2am_grey.png"):
            graph = flux_graph(
                photo=node("LoadImage", image=name),
                latent=given("a latent of 12×10", {"samples": latent}),
                text=node("Test_Conditioning", seed=20, references=0, dim=16),
                positive=node("ReferenceLatent", conditioning=["text", 0], latent=["latent", 0]),
                collect=collect(**{"references.reference_1": ["photo", 0]}),
                map=attribution_map(direction=OVER_REFERENCE),
            )
            run = run_graph(graph, ["map"])
            assert run.ok, (name, run.errors)
            assert run.value("map", 0).shape == (1, 80, 96, 3), name

    def test_wide_latents(self, run_graph: Any) -> None:
        """384×128 pixels of a reference, three times as wide as high."""
        graph = flux_graph(
            latent=given("wide latent", {"samples": tiny.latent(71, 1, 16, 16, 48)}),
            photo=given("wide picture", torch.rand(1, 128, 384, 3)),
            text=node("Test_Conditioning", seed=20, references=0, dim=16),
            positive=node("ReferenceLatent", conditioning=["text", 0], latent=["latent", 0]),
            collect=collect(**{"references.reference_1": ["photo", 0]}),
            map=attribution_map(direction=OVER_REFERENCE),
        )
        run = run_graph(graph, ["map"])
        assert run.value("collect").recording.header.references[0].grid.sides == (8, 24)
        assert run.value("map", 2).shape == (1, 128, 384)


class TestConditionings:
    def test_references_on_the_negative_only(self, run_graph: Any) -> None:
        graph = changed(flux_graph(), "positive", references=0)
        graph = changed(changed(graph, "negative", references=1), "sampler", cfg=2.0)
        message = run_graph(graph, ["collect"]).errors["collect"]
        assert "no attention of this Flux model held a reference" in message
        assert "the positive conditioning" in message

    def test_the_same_reference_twice(self, run_graph: Any) -> None:
        """Two references, each with its own map."""
        graph = flux_graph(
            latent=given("twice", {"samples": REFERENCES[0]}),
            text=node("Test_Conditioning", seed=20, references=0, dim=16),
            once=node("ReferenceLatent", conditioning=["text", 0], latent=["latent", 0]),
            positive=node("ReferenceLatent", conditioning=["once", 0], latent=["latent", 0]),
        )
        found = run_graph(graph, ["collect"]).value("collect").recording
        assert len(found.header.references) == 2
        assert sorted(found.reference_latents) == [0, 1]

    def test_an_average(self, run_graph: Any) -> None:
        """ConditioningAverage keeps the references of `conditioning_to`."""
        graph = flux_graph(
            one=node("Test_Conditioning", seed=20, references=1, dim=16),
            two=node("Test_Conditioning", seed=25, references=0, dim=16),
            positive=node(
                *("ConditioningAverage",),
                **{"conditioning_to": ["one", 0], "conditioning_from": ["two", 0]},
                conditioning_to_strength=0.5,
            ),
        )
        found = run_graph(graph, ["collect"]).value("collect").recording
        assert len(found.header.references) == 1

    def test_a_range_of_time(self, run_graph: Any) -> None:
        """A reference that is active in the first half is recorded there."""
        graph = flux_graph(
            whole=node("Test_Conditioning", seed=20, references=1, dim=16),
            early=node(
                "ConditioningSetTimestepRange", conditioning=["whole", 0], start=0.0, end=0.4
            ),
            plain=node("Test_Conditioning", seed=22, references=0, dim=16),
            late=node(
                "ConditioningSetTimestepRange", conditioning=["plain", 0], start=0.4, end=1.0
            ),
            positive=node(
                "ConditioningCombine", conditioning_1=["early", 0], conditioning_2=["late", 0]
            ),
        )
        run = run_graph(graph, ["collect"])
        assert run.ok, run.errors
        assert run.value("collect").recording.header.steps[0] == 0
        assert len(run.value("collect").recording.header.steps) < 3

    def test_a_batch_of_pictures_as_one_reference(self, run_graph: Any) -> None:
        """Pictures encoded together are one reference latent with a batch."""
        graph = flux_graph(
            latent=given("a batch", {"samples": tiny.latent(72, 2, 16, 6, 6)}),
            photos=given("two photos", torch.rand(2, 48, 48, 3)),
            text=node("Test_Conditioning", seed=20, references=0, dim=16),
            positive=node("ReferenceLatent", conditioning=["text", 0], latent=["latent", 0]),
            empty=node("EmptySD3LatentImage", width=48, height=64, batch_size=2),
            collect=collect(**{"references.reference_1": ["photos", 0]}),
        )
        run = run_graph(graph, ["collect"])
        assert run.ok, run.errors
        found = run.value("collect")
        assert found.references[0].shape[0] == 2
        assert found.recording.reference_latents[0].shape[0] == 2


class TestSamplers:
    def test_two_samplers_with_split_sigmas_and_a_mask(self, run_graph: Any) -> None:
        """Each latent leads to its own steps, the noise mask is used as the mask."""
        parts = custom_sampler()
        graph = flux_graph(
            **parts,
            mask=given("noise mask", square_of(64, 48)),
            masked=node("SetLatentNoiseMask", samples=["empty", 0], mask=["mask", 0]),
            half=node("SplitSigmas", sigmas=["sigmas", 0], step=1),
            none=node("DisableNoise"),
            collect2=collect("sampler2"),
        )
        graph["sampler2"] = node("SamplerCustomAdvanced", **parts["sampler"]["inputs"])
        graph = changed(graph, "sampler", sigmas=["half", 0], latent_image=["masked", 0])
        graph = changed(
            graph, "sampler2", sigmas=["half", 1], latent_image=["sampler", 0], noise=["none", 0]
        )
        run = run_graph(graph, ["collect", "collect2"])
        assert run.ok, run.errors
        steps = [len(run.value(name).recording.header.steps) for name in ("collect", "collect2")]
        assert steps == [1, 2]
        assert all(run.value(name).mask is not None for name in ("collect", "collect2"))

    def test_easy_cache(self, run_graph: Any) -> None:
        """Skipped steps are reported as missing."""
        graph = flux_graph(
            cached=filled("EasyCache", model=["capture", 0], reuse_threshold=3.0),
            sampler=sampler("cached", steps=8),
        )
        run = run_graph(graph, ["collect"])
        assert run.ok, run.errors
        header = run.value("collect").recording.header
        assert header.evaluations < header.expected_evaluations
        assert "Some evaluations were not recorded" in run.value("collect", 2)


class InParts:
    """Like tiled samplers: each half of the latent is a separate run."""

    RETURN_TYPES = ("LATENT",)
    FUNCTION = "sample"
    CATEGORY = "test"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        kinds = {"positive": "CONDITIONING", "negative": "CONDITIONING", "latent": "LATENT"}
        return {"required": {"model": ("MODEL",)} | {name: (kind,) for name, kind in kinds.items()}}

    def sample(self, model: Any, positive: Any, negative: Any, latent: Any) -> tuple[Any]:
        halves = latent["samples"].chunk(2, -2)
        made = [tiny.sample(model, positive, negative, half) for half in halves]
        return ({"samples": torch.cat(made, -2)},)


class TestInside:
    @pytest.mark.bad_input(
        "Collect Attribution: a latent that was sampled in parts", "Said, naming the node"
    )
    def test_a_node_that_samples_in_parts(
        self, comfy: Any, run_graph: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(comfy.nodes.NODE_CLASS_MAPPINGS, "Test_InParts", InParts)
        links = {"model": ["capture", 0], "positive": ["positive", 0], "negative": ["negative", 0]}
        graph = flux_graph(sampler=node("Test_InParts", **links, latent=["empty", 0]))
        message = run_graph(graph, ["collect"]).errors["collect"]
        assert "It comes out of “Test_InParts” (node sampler). If that samples in tiles" in message

    def test_a_latent_that_was_changed(self, run_graph: Any) -> None:
        flip = node("LatentFlip", samples=["sampler", 0], flip_method="y-axis: horizontally")
        message = run_graph(flux_graph(flip=flip, collect=collect("flip")), ["collect"])
        assert "“LatentFlip” (node flip), which may have changed it" in message.errors["collect"]


def test_capture_with_its_model_alone(run_graph: Any) -> None:
    graph = flux_graph(
        capture=node("I2AM_Capture", model=["model", 0]),
        collect=node("I2AM_Collect", samples=["sampler", 0]),
    )
    assert run_graph(graph, ["collect"]).ok


def test_nothing_is_left_behind(run_graph: Any) -> None:
    """In all these cases the latent is the same to the last bit, with and without the watch."""
    graph = changed(flux_graph(), "capture", layers="single", steps="50%-100%")
    plain = changed(graph, "sampler", model=["model", 0])
    latents = [run_graph(one, ["sampler"]).value("sampler")["samples"] for one in (graph, plain)]
    assert torch.equal(*latents)
