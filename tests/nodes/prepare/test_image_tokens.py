"""Image Tokens to Conditioning: the tokens of a vision model, appended and marked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from graph import attribution_map, capture, collect, filled, given, node, sampler

WIDTH = 24


def seen(pictures: int, tokens: int, size: tuple[int, int] | None = (224, 224)) -> Any:
    """The output of CLIP Vision Encode."""
    import comfy.clip_vision

    output = comfy.clip_vision.Output()
    output["penultimate_hidden_states"] = tiny.latent(1, pictures, tokens, WIDTH)
    output["last_hidden_state"] = tiny.latent(2, pictures, tokens, WIDTH)
    if size is not None:
        output["image_sizes"] = [torch.Size((3, *size))] * pictures
    return output


def run(comfy: Any, output: Any, **inputs: Any) -> list[Any]:
    widgets = {"hidden_state": "penultimate", "cls_token": "keep"} | inputs
    return comfy.node("I2AM_ImageTokens").execute(output, **widgets).args[0]


@pytest.mark.parametrize(
    ("cls_token", "tokens", "marks"),
    [
        ("keep", 257, [(1, 16, 16), (258, 16, 16)]),
        ("drop", 256, [(0, 16, 16), (256, 16, 16)]),
        ("alone", 1, [(0, 1, 1), (1, 1, 1)]),
    ],
)
def test_two_pictures(
    comfy: Any, cls_token: str, tokens: int, marks: list[tuple[int, int, int]]
) -> None:
    """Picture after picture, each marked without its CLS token."""
    output = seen(2, 257)
    ((made, options),) = run(comfy, output, cls_token=cls_token)
    hidden = output["penultimate_hidden_states"]
    wanted = {"keep": hidden, "drop": hidden[:, 1:], "alone": hidden[:, :1]}[cls_token]
    assert made.shape == (1, 2 * tokens, WIDTH)
    assert torch.equal(made, torch.cat(list(wanted))[None])
    assert options == {"i2am_image_tokens": marks}


def test_appended(comfy: Any) -> None:
    """After the text and after tokens marked earlier; the inputs are unchanged."""
    text = tiny.conditioning(3, 20, WIDTH, i2am_image_tokens=[(7, 3, 4)], pooled_output=1)
    text += tiny.conditioning(4, 7, WIDTH, pooled_output=2)
    output = seen(1, 50)
    first, second = run(comfy, output, conditioning=text, hidden_state="last")
    assert first[1] == {"i2am_image_tokens": [(7, 3, 4), (21, 7, 7)], "pooled_output": 1}
    assert second[1] == {"i2am_image_tokens": [(8, 7, 7)], "pooled_output": 2}
    assert torch.equal(first[0], torch.cat((text[0][0], output["last_hidden_state"]), 1))
    assert (text[0][1]["i2am_image_tokens"], text[1][1]) == (
        [(7, 3, 4)],
        {"pooled_output": 2},
    )


@pytest.mark.parametrize(
    ("tokens", "size", "mark"),
    [
        (729, (384, 384), (0, 27, 27)),  # SigLIP: no CLS, patches of 14 leave a remainder
        (577, (336, 336), (1, 24, 24)),
        (1370, (518, 518), (1, 37, 37)),
        (192, (128, 384), (0, 8, 24)),  # pictures of any shape
        (256, (128, 512), (0, 8, 32)),  # as many as in a square
        (257, None, (1, 16, 16)),
        (1024, None, (0, 32, 32)),
    ],
)
def test_grids(comfy: Any, tokens: int, size: Any, mark: tuple[int, int, int]) -> None:
    ((_, options),) = run(comfy, seen(1, tokens, size))
    assert options["i2am_image_tokens"] == [mark]


def test_errors(comfy: Any) -> None:
    ours = comfy.pack("i2am.errors").I2AMError
    with pytest.raises(ours, match="a width of 24, the conditioning's tokens one of 16"):
        run(comfy, seen(1, 257), conditioning=tiny.conditioning(3, 7, 16))
    with pytest.raises(ours, match="261 tokens, which are no grid of patches"):
        run(comfy, seen(1, 261))
    with pytest.raises(ours, match="no CLS token to give alone"):
        run(comfy, seen(1, 729, (384, 384)), cls_token="alone")


def test_from_a_vision_model(comfy: Any, tmp_path: Path) -> None:
    """The output of ComfyUI's own CLIP vision class fits."""
    from comfy.clip_vision import ClipVisionModel

    config = {
        **{"num_hidden_layers": 2, "hidden_size": WIDTH, "num_attention_heads": 2},
        **{"intermediate_size": 32, "hidden_act": "gelu", "num_channels": 3, "image_size": 42},
        **{"patch_size": 14, "projection_dim": 16, "model_type": "clip_vision_model"},
    }
    file = tmp_path / "config.json"
    file.write_text(json.dumps(config))
    vision = ClipVisionModel(str(file))
    for weight in vision.model.parameters():
        torch.nn.init.normal_(weight)
    output = vision.encode_image(torch.rand(2, 60, 40, 3))
    ((made, options),) = run(comfy, output)
    assert made.shape == (1, 20, WIDTH)
    assert options["i2am_image_tokens"] == [(1, 3, 3), (11, 3, 3)]


@pytest.mark.usefixtures("tiny_nodes")
def test_in_a_graph(run_graph: Any) -> None:
    """Two pictures after a text → sampler → a map over each of them, and one over the result."""
    run = run_graph(
        {
            "model": node("Test_UNet", seed=0),
            "capture": capture(),
            "vision": given("vision", seen(2, 10, (42, 42))),
            "text": node("Test_Conditioning", seed=20, references=0, dim=WIDTH),
            "positive": filled(
                "I2AM_ImageTokens", clip_vision_output=["vision", 0], conditioning=["text", 0]
            ),
            "negative": node("Test_Conditioning", seed=21, references=0, dim=WIDTH),
            "empty": node("EmptyLatentImage", width=72, height=112, batch_size=2),
            "sampler": sampler(cfg=2.0),
            "collect": collect(),
            "r2g": attribution_map(),
            "g2r": attribution_map(direction="generated to reference", reference=2),
        },
        ["r2g", "g2r"],
    )
    assert run.ok, run.errors
    header = run.value("collect").recording.header
    assert [(r.kind, r.grid.sides) for r in header.references] == [("image tokens", (3, 3))] * 2
    assert header.generated.grid.sides == (14, 9)
    assert "reference 2" in run.value("collect", 2)
    assert run.value("r2g", 1).shape[:3] == (2, 112, 72)
    assert run.value("g2r", 1).shape[0] == 2
