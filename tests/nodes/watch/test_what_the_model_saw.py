"""A map lies on the part of a picture the model saw, or there is none; the rest is dimmed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from graph import (
    attribution_map,
    capture,
    changed,
    collect,
    filled,
    flux_graph,
    given,
    imacs,
    node,
    sampler,
)
from torch import Tensor

from tools.fidelity.host import VAE

pytestmark = pytest.mark.usefixtures("tiny_nodes")

WIDTH, SIDE = 24, 8  # width of a token; tokens per side of a picture
WIDE = (128, 256)  # (height, width) of a picture whose middle a vision encoder sees
OVER_REFERENCE = "generated to reference"


@pytest.fixture(scope="module")
def vision(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tiny CLIP vision model of ComfyUI's own class: 112 pixels, 8×8 patches of 14."""
    return tiny_vision(tmp_path_factory.mktemp("vision"), "clip_vision_model")


def tiny_vision(folder: Path, kind: str) -> Any:
    """A vision encoder of this kind; SigLIP has only patch tokens."""
    from comfy.clip_vision import ClipVisionModel

    config = {
        **{"num_hidden_layers": 2, "hidden_size": WIDTH, "num_attention_heads": 2},
        **{"intermediate_size": 32, "hidden_act": "gelu", "num_channels": 3, "image_size": 112},
        **{"patch_size": 14, "projection_dim": 16, "model_type": kind},
    }
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    model = ClipVisionModel(str(file))
    generator = torch.Generator().manual_seed(5)
    for weight in model.model.parameters():
        weight.data = torch.randn(weight.shape, generator=generator) * 0.5
    return model


def photo(height: int, width: int) -> Tensor:
    """Every pixel has its own colour, so that places can be recognised."""
    y, x = torch.meshgrid(torch.linspace(0, 1, height), torch.linspace(0, 1, width), indexing="ij")
    return torch.stack((x, y, torch.full_like(x, 0.5)), -1)[None]


def clip_graph(vision: Any, crop: str = "center", **nodes: Any) -> dict[str, Any]:
    """A picture twice as wide as high → CLIPVisionEncode → Image Tokens → a tiny UNet."""
    return {
        "model": node("Test_UNet", seed=0),
        "capture": capture(),
        "photo": given("wide photo", photo(*WIDE)),
        "clip": given("tiny vision", vision),
        "vision": node("CLIPVisionEncode", clip_vision=["clip", 0], image=["photo", 0], crop=crop),
        "text": node("Test_Conditioning", seed=20, references=0, dim=WIDTH),
        "positive": filled(
            "I2AM_ImageTokens", clip_vision_output=["vision", 0], conditioning=["text", 0]
        ),
        "negative": node("Test_Conditioning", seed=21, references=0, dim=WIDTH),
        "empty": node("EmptyLatentImage", width=64, height=64, batch_size=1),
        "sampler": sampler(cfg=2.0),
        "collect": collect(**{"references.reference_1": ["photo", 0]}),
        **nodes,
    }


class TestVisionEncoder:
    def test_on_the_centre(self, run_graph: Any, vision: Any) -> None:
        """The map lies on the square in the middle; beside it is nothing but the dimmed picture."""
        graph = clip_graph(vision, map=attribution_map(direction=OVER_REFERENCE))
        run = run_graph(graph, ["map"])
        found = run.value("collect")
        assert torch.equal(found.references[0], photo(*WIDE)[:, :, 64:192])
        assert "the model saw the middle, 128×128 of 256×128 pixels" in run.value("collect", 2)
        overlay, heat, mask = (run.value("map", slot) for slot in range(3))
        assert overlay.shape == heat.shape == (1, *WIDE, 3)
        assert mask.shape == (1, *WIDE)
        # By hand: the same map over the square that was cut out.
        square = clip_graph(vision, map=graph["map"])
        square["square"] = given("square", photo(*WIDE)[:, :, 64:192])
        square = changed(square, "collect", **{"references.reference_1": ["square", 0]})
        alone = run_graph(square, ["map"])
        for slot in range(3):
            assert torch.equal(run.value("map", slot)[:, :, 64:192], alone.value("map", slot))
        outside = torch.ones(WIDE, dtype=torch.bool)
        outside[:, 64:192] = False
        assert float(mask[0][outside].abs().max()) == 0
        assert float(heat[0][outside].abs().max()) == 0
        dimmed = overlay[0][outside]
        assert torch.equal(dimmed[:, 0], dimmed[:, 2])  # grey
        assert float(dimmed.max()) <= 0.25
        preview = run.ui["map"]["images"]
        assert preview

    @pytest.mark.parametrize(
        ("crop", "fit", "seen"),
        [
            ("none", "auto", (128, 256)),  # CLIPVisionEncode states that it stretches
            ("center", "auto", (128, 128)),
            ("center", "whole picture", (128, 256)),
            ("none", "centre square", (128, 128)),
            ("none", "centre crop", (128, 128)),
        ],
    )
    def test_reference_fit(
        self, run_graph: Any, vision: Any, crop: str, fit: str, seen: tuple[int, int]
    ) -> None:
        graph = changed(clip_graph(vision, crop), "collect", reference_fit=fit)
        found = run_graph(graph, ["collect"]).value("collect")
        assert tuple(found.references[0].shape[1:3]) == seen

    def test_a_node_between(self, run_graph: Any, vision: Any) -> None:
        """A picture that was encoded with another crop is refused, by name."""
        graph = clip_graph(vision)
        graph["left"] = node("ImageCrop", image=["photo", 0], width=128, height=128, x=0, y=0)
        graph["left"]["_meta"] = {"title": "The left half"}
        graph = changed(graph, "vision", image=["left", 0])
        message = run_graph(graph, ["collect"]).errors["collect"]
        assert "256×128 (width × height)" in message
        assert "comes out of “The left half” (node left)" in message
        graph = changed(graph, "collect", **{"references.reference_1": ["left", 0]})
        assert run_graph(graph, ["collect"]).ok

    def test_encoded_twice(self, run_graph: Any, vision: Any) -> None:
        """Where one encoder crops and another stretches, the setting must say which is meant."""
        other = node("CLIPVisionEncode", clip_vision=["clip", 0], image=["photo", 0], crop="none")
        graph = clip_graph(vision, other=other)
        graph["more"] = filled(
            "I2AM_ImageTokens", clip_vision_output=["other", 0], conditioning=["positive", 0]
        )
        graph = changed(graph, "sampler", positive=["more", 0])
        graph = changed(graph, "collect", **{"references.reference_2": ["photo", 0]})
        message = run_graph(graph, ["collect"]).errors["collect"]
        assert "Connect the very picture that is encoded for the model" in message
        graph = changed(graph, "collect", reference_fit="centre square")
        assert run_graph(graph, ["collect"]).ok

    def test_behind_redux(self, run_graph: Any, tmp_path: Path) -> None:
        """Apply Style Model gives Flux the tokens of the square the encoder saw."""
        from comfy.ldm.flux.redux import ReduxImageEncoder
        from comfy.sd import StyleModel

        network = ReduxImageEncoder(redux_dim=WIDTH, txt_in_features=16)
        for weight in network.parameters():
            weight.data = torch.randn(weight.shape, generator=torch.Generator().manual_seed(6))
        seen = {"clip_vision_output": ["vision", 0], "style_model": ["style", 0]}
        strength = {"strength": 1.0, "strength_type": "multiply"}
        siglip = tiny_vision(tmp_path, "siglip_vision_model")
        graph = clip_graph(siglip) | flux_graph(
            clip=given("tiny siglip", siglip),
            text=node("Test_Conditioning", seed=20, references=0, dim=16),
            style=given("tiny redux", StyleModel(network)),
            redux=node("StyleModelApply", conditioning=["text", 0], **seen, **strength),
            positive=node("I2AM_MarkRedux", conditioning=["redux", 0], **seen),
            collect=collect(**{"references.reference_1": ["photo", 0]}),
            map=attribution_map(direction=OVER_REFERENCE),
        )
        run = run_graph(graph, ["map"])
        assert torch.equal(run.value("collect").references[0], photo(*WIDE)[:, :, 64:192])
        assert "the model saw the middle, 128×128 of 256×128 pixels" in run.value("collect", 2)
        outside = torch.ones(WIDE, dtype=torch.bool)
        outside[:, 64:192] = False
        heat = run.value("map", 1)
        assert float(heat[0][outside].abs().max()) == 0
        assert float(heat.max()) > 0

    def test_points(self, run_graph: Any, vision: Any) -> None:
        """x, y and regions refer to the whole picture and select within the part."""
        point = filled(
            "I2AM_Point", attribution=["collect", 0], picked_on="reference", legend=False
        )
        graph = clip_graph(vision, point=point)
        there = run_graph(changed(graph, "point", x=0.375, y=0.25), ["point"])
        square = clip_graph(vision, point=point)
        square["square"] = given("square", photo(*WIDE)[:, :, 64:192])
        square = changed(square, "collect", **{"references.reference_1": ["square", 0]})
        alone = run_graph(changed(square, "point", x=0.25, y=0.25), ["point"])
        assert torch.equal(there.value("point", 2), alone.value("point", 2))
        outside = run_graph(changed(graph, "point", x=0.1, y=0.5), ["point"])
        assert "did not see the point 0.1, 0.5" in outside.errors["point"]
        assert "x from 0.25 to 0.75" in outside.errors["point"]
        mask = torch.zeros(1, *WIDE)
        mask[:, 32:48, 96:112] = 1
        graph["mask"] = given("a region", mask)
        region = run_graph(changed(graph, "point", region=["mask", 0]), ["point"])
        square["mask"] = given("its part", mask[:, :, 64:192])
        alone = run_graph(changed(square, "point", region=["mask", 0]), ["point"])
        assert torch.equal(region.value("point", 2), alone.value("point", 2))
        graph["mask"] = given("beside", torch.eye(256)[None, :128] * (torch.arange(256) < 60))
        beside = run_graph(changed(graph, "point", region=["mask", 0]), ["point"])
        assert "lies where the model did not see reference 1" in beside.errors["point"]

    def test_over_the_reference_from_a_point(self, run_graph: Any, vision: Any) -> None:
        point = filled("I2AM_Point", attribution=["collect", 0], legend=False)
        run = run_graph(clip_graph(vision, point=point), ["point"])
        assert run.value("point", 0).shape == (1, *WIDE, 3)
        assert float(run.value("point", 2)[:, :, :64].max()) == 0
        assert float(run.value("point", 2)[:, :, 64:192].max()) > 0

    def test_scores_and_masks(self, run_graph: Any, vision: Any) -> None:
        """IMACS over the reference, the map's own mask, boxes and differences."""
        mask = torch.zeros(1, *WIDE)
        mask[:, 20:90, 80:150] = 1
        nodes: dict[str, Any] = {
            "mask": given("an object", mask),
            "imacs": imacs(reference_mask=["mask", 0]),
            "masked": attribution_map(direction=OVER_REFERENCE, reference_mask=["mask", 0]),
            "to_mask": filled("I2AM_ToMask", attribution=["collect", 0], direction=OVER_REFERENCE),
            "locate": filled("I2AM_Locate", attribution=["collect", 0], direction=OVER_REFERENCE),
            "compare": filled(
                *("I2AM_Compare",),
                **{"attribution": ["collect", 0], "other": ["collect", 0]},
                **{"direction": OVER_REFERENCE, "mask": ["mask", 0]},
            ),
            "flow": filled("I2AM_Flow", attribution=["collect", 0]),
        }
        names = ["imacs", "masked", "to_mask", "locate", "compare", "flow"]
        run = run_graph(clip_graph(vision, **nodes), names)
        assert run.ok, run.errors
        square = clip_graph(vision, **nodes)
        square["square"] = given("square", photo(*WIDE)[:, :, 64:192])
        square["mask"] = given("an object's part", mask[:, :, 64:192])
        square = changed(square, "collect", **{"references.reference_1": ["square", 0]})
        alone = run_graph(square, names)
        assert run.outputs["imacs"][1] == alone.outputs["imacs"][1]
        assert torch.equal(run.value("masked", 2)[:, :, 64:192], alone.value("masked", 2))
        found = run.value("to_mask")
        assert found.shape == (1, *WIDE)
        assert torch.equal(found[:, :, 64:192], alone.value("to_mask"))
        assert float(found[:, :, :64].max()) == float(found[:, :, 192:].max()) == 0
        ((x, y, width, height),) = run.value("locate", 0)
        ((left, *rest),) = alone.value("locate", 0)
        assert [x - 64, y, width, height] == [left, *rest]
        assert torch.equal(run.value("locate", 1)[:, :, 64:192], alone.value("locate", 1))
        assert run.value("compare", 0).shape[2] == WIDE[1]
        assert "IMACS" in run.value("compare", 2)
        # The reference on the left is the whole picture.
        wide, narrow = run.value("flow", 1), alone.value("flow", 1)
        assert wide.shape[2] - narrow.shape[2] == WIDE[1] - WIDE[0]

    def test_viewer(self, comfy: Any, run_graph: Any, vision: Any) -> None:
        """The viewer gets the part, the whole picture and the mask within the part."""
        mask = torch.zeros(1, *WIDE)
        mask[:, :, 64:128] = 1
        viewer = filled("I2AM_Viewer", attribution=["collect", 0], reference_mask=["mask", 0])
        run = run_graph(clip_graph(vision, viewer=viewer, mask=given("left of the part", mask)))
        (shown,) = run.ui["viewer"]["i2am_viewer"]
        temporary = Path(comfy.folder_paths.get_temp_directory())
        path = temporary / shown["payload"]["subfolder"] / shown["payload"]["filename"]
        header = comfy.pack("i2am.display").read_payload_header(path.read_bytes())
        (side,) = header["references"]
        assert side["size"] == [128, 128]
        assert side["whole"] == {"size": [128, 256], "part": [0, 64, 128, 128]}
        assert header["generated"].get("whole") is None
        assert header["arrays"]["reference_mask.0"]["shape"] == [1, 128, 128]
        from PIL import Image

        ((picture,),) = shown["references"]
        with Image.open(temporary / picture["subfolder"] / picture["filename"]) as saved:
            assert saved.size == (256, 128)

    def test_files_hold_the_part(self, comfy: Any, run_graph: Any, vision: Any) -> None:
        """After Load Attribution only the part is there, with the map on it."""
        save = filled("I2AM_Save", attribution=["collect", 0], filename_prefix="i2am/part")
        run = run_graph(clip_graph(vision, save=save), ["save", "collect"])
        load = comfy.pack("i2am.recording").load_attribution
        loaded = load(Path(comfy.folder_paths.get_output_directory()) / run.value("save"))
        assert loaded.references[0].shape == (1, 128, 128, 3)
        torch.testing.assert_close(
            loaded.references[0], run.value("collect").references[0], atol=1 / 255, rtol=0
        )


def kontext_graph(size: tuple[int, int], **nodes: Any) -> dict[str, Any]:
    """A picture → FluxKontextImageScale → a VAE → ReferenceLatent → a tiny Flux."""
    graph = flux_graph(
        vae=node("VAELoader", vae_name=VAE.name),
        photo=given(f"photo {size}", photo(*size)),
        scaled=node("FluxKontextImageScale", image=["photo", 0]),
        # What the model knows is large; an eighth of each side has the same proportions.
        small=node("ImageScaleBy", image=["scaled", 0], upscale_method="area", scale_by=0.125),
        latent=node("VAEEncode", pixels=["small", 0], vae=["vae", 0]),
        text=node("Test_Conditioning", seed=20, references=0, dim=16),
        positive=node("ReferenceLatent", conditioning=["text", 0], latent=["latent", 0]),
        collect=collect(**{"references.reference_1": ["photo", 0]}),
    )
    return graph | nodes


class TestScaler:
    @pytest.mark.bad_input(
        "Collect Attribution: a reference with other proportions than the model was given",
        "Refused, naming the node whose output to connect",
    )
    def test_refused_by_name(self, run_graph: Any) -> None:
        run = run_graph(kontext_graph((480, 160)), ["collect"])
        message = run.errors["collect"]
        assert "Reference 1 is 160×480 (width × height)" in message
        assert "comes out of “ImageScaleBy” (node small)" in message
        assert "reference_fit" in message
        assert "vae" in message

    def test_the_scalers_output(self, run_graph: Any) -> None:
        graph = kontext_graph((480, 160))
        for right in ("small", "scaled"):
            right_one = changed(graph, "collect", **{"references.reference_1": [right, 0]})
            found = run_graph(right_one, ["collect"]).value("collect")
            assert found.wholes == (None,)

    def test_centre_crop(self, run_graph: Any) -> None:
        """With the crop set, the map lies on the part with the model's proportions."""
        graph = changed(kontext_graph((480, 160)), "collect", reference_fit="centre crop")
        found = run_graph(graph, ["collect"]).value("collect")
        height, width = found.references[0].shape[1:3]
        latent = found.recording.header.references[0].latent
        assert width / height == pytest.approx(latent[1] / latent[0], rel=0.01)
        assert (height, width) == (480, found.wholes[0].width) or width == 160
        graph = changed(graph, "collect", reference_fit="centre square")
        assert "which are none" in run_graph(graph, ["collect"]).errors["collect"]

    def test_three_to_four_is_within_half_a_token(self, run_graph: Any) -> None:
        """Kontext's 880×1184 cuts less than half a token from a 3:4 picture."""
        found = run_graph(kontext_graph((256, 192)), ["collect"]).value("collect")
        assert found.wholes == (None,)

    def test_decoded(self, run_graph: Any) -> None:
        """With a vae, what the model saw is shown instead: the reference, and the result."""
        graph = changed(kontext_graph((480, 160)), "collect", vae=["vae", 0])
        graph["image"] = node("VAEDecode", samples=["sampler", 0], vae=["vae", 0])
        graph["seen"] = node("VAEDecode", samples=["latent", 0], vae=["vae", 0])
        run = run_graph(graph, ["collect", "image", "seen"])
        found = run.value("collect")
        assert torch.equal(found.image, run.value("image"))
        torch.testing.assert_close(found.references[0], run.value("seen"), atol=0.02, rtol=0)
        assert "Reference 1: decoded from the latent the model was given" in run.value("collect", 2)
        alone = changed(graph, "collect", **{"references.reference_1": ["seen", 0]})
        assert "decoded" not in run_graph(alone, ["collect"]).value("collect", 2)

    def test_nothing_connected(self, run_graph: Any) -> None:
        graph = kontext_graph((480, 160), collect=collect(vae=["vae", 0]))
        found = run_graph(graph, ["collect"]).value("collect")
        assert found.image is not None
        assert found.references[0] is not None

    @pytest.mark.bad_input(
        "Collect Attribution: the VAE of another model", "Said, with the size of the latent"
    )
    def test_a_vae_of_another_model(self, run_graph: Any) -> None:
        import comfy.sd
        from comfy.taesd.taesd import TAESD

        other = comfy.sd.VAE(sd=TAESD(latent_channels=4).state_dict())
        graph = kontext_graph((480, 160), other=given("another vae", other))
        graph["collect"] = collect(vae=["other", 0])
        assert "vae cannot decode this latent" in run_graph(graph, ["collect"]).errors["collect"]


class TestLatents:
    def test_kept_in_files(self, comfy: Any, run_graph: Any) -> None:
        """In half precision; tensors and header are readable by 1.0.0."""
        graph = kontext_graph((480, 160), collect=collect())
        graph["save"] = filled("I2AM_Save", attribution=["collect", 0], filename_prefix="i2am/l")
        run = run_graph(graph, ["save", "collect", "latent"])
        path = Path(comfy.folder_paths.get_output_directory()) / run.value("save")
        given_latent = run.value("latent")["samples"]
        kept = run.value("collect").recording.reference_latents
        assert torch.equal(kept[0], given_latent.half())
        loaded = comfy.pack("i2am.recording").load_attribution(path)
        assert torch.equal(loaded.recording.reference_latents[0], kept[0])
        from safetensors import safe_open

        with safe_open(path, framework="pt") as file:
            metadata, names = file.metadata(), set(file.keys())
        assert metadata.keys() == {"format", "i2am", "i2am.reference_latents"}
        assert metadata["format"] == "i2am.attribution/1"
        assert names == set(run.value("collect").recording.arrays)

    def test_after_a_spill(self, run_graph: Any, use_store: Any) -> None:
        """A recording that was moved to a file and back still has them."""
        use_store(memory_bytes=1)
        graph = kontext_graph((480, 160), collect=collect(vae=["vae", 0]))
        first = run_graph(graph, ["collect"]).value("collect")
        run_graph(changed(graph, "sampler", seed=2), ["collect"])
        again = changed(graph, "collect", **{"references.reference_1": ["small", 0]})
        back = run_graph(again, ["collect"])
        assert "sampler" not in back.executed
        kept = back.value("collect").recording.reference_latents
        assert torch.equal(kept[0], first.recording.reference_latents[0])

    def test_one_of_a_batch(self, run_graph: Any) -> None:
        graph = kontext_graph((480, 160), collect=collect("chosen", vae=["vae", 0]))
        graph = changed(graph, "empty", batch_size=3)
        graph["chosen"] = node("LatentFromBatch", samples=["sampler", 0], batch_index=2, length=1)
        found = run_graph(graph, ["collect"]).value("collect")
        assert found.image.shape[0] == found.references[0].shape[0] == 1


@pytest.mark.parametrize(
    ("class_type", "advice"),
    [("IPAdapterTiled", "tiles"), ("IPAdapterClipVisionEnhancer", "Leave this reference open")],
)
def test_tiles(comfy: Any, class_type: str, advice: str) -> None:
    """A picture that reached the model in tiles has no map over the whole."""
    upstream = comfy.pack("nodes.watch.upstream")
    pictures = comfy.pack("nodes.watch.reference_pictures")
    prompt = {
        "1": node("LoadImage", image="a.png"),
        "2": node(class_type, image=["1", 0], enhance_tiles=2),
        "3": node("KSampler", model=["2", 0]),
        "4": node("I2AM_Collect", samples=["3", 0], **{"references.reference_1": ["1", 0]}),
    }
    takers = upstream.Upstream(prompt, "4").takers("references.reference_1")
    assert [taker.class_type for taker in takers.direct] == [class_type]
    tokens = comfy.pack("i2am.tokens")
    side = tokens.Picture(tokens.Grid(16, 16), (0, 0), "IP-Adapter image")
    fit, picture = comfy.pack("i2am.recording").ReferenceFit.AUTO, torch.zeros(1, 64, 64, 3)
    with pytest.raises(ValueError, match=f"reached the model in tiles.*{advice}"):
        pictures._seen(picture, 0, side, fit, takers, None)
    nowhere = tokens.Picture(tokens.Grid(1, 16), (0, 0), tokens.ADAPTER_TOKENS)
    assert pictures._seen(picture, 0, nowhere, fit, takers, None)[1] is None
