"""UNets with cross-attention to image tokens: SD 1.5, SD 2, SDXL, inpainting, one-token models."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from oracle import Place, Seen
from proof import prove
from tiny_unets import (
    BY_WIDTH,
    COMMON,
    CONTEXT,
    GRIDS,
    MARKS,
    SD15,
    SDXL,
    SDXL_SITES,
    SPANS,
    TWO_LEVEL_SITES,
    TWO_LEVELS,
    assert_no_map_over_the_reference,
)

SD2 = COMMON | TWO_LEVELS | BY_WIDTH | {"model_channels": 64}
Sites = dict[tuple[str, int, int], int]


def cross_attention(
    latent: tuple[int, int],
    sites: Sites,
    context: int = CONTEXT,
    references: tuple[tuple[int, int], ...] = SPANS,
    grids: tuple[tuple[int, int], ...] = GRIDS,
) -> Callable[[Seen], Place | None]:
    """Distinguished from self-attention by its keys: the context, or the context repeated."""

    def place(call: Seen) -> Place | None:
        site = (*call.options["block"], call.options["block_index"])
        height, width = (-(-side // sites[site]) for side in latent)  # levels round up
        if call.k.shape[2] not in (context, 2 * context) or call.q.shape[2] != height * width:
            return None
        return Place(
            layer=list(sites).index(site),
            generated=(0, height * width),
            grid=(height, width),
            own=None,
            references=references,
            reference_grids=grids,
            keys=context,
            cell=sites[site],
        )

    return place


CASES = {
    "SD 1.5": ("SD15", SD15, TWO_LEVEL_SITES, 1, (8,), CONTEXT),
    "SD 1.5 inpainting, repeated": (
        "SD15",
        SD15 | {"in_channels": 9},
        TWO_LEVEL_SITES,
        1,
        (8,),
        46,
    ),
    "SD 2, repeated": ("SD20", SD2, TWO_LEVEL_SITES, 1, (1, 2), 46),
    "SDXL": ("SDXL", SDXL, SDXL_SITES, 2, (1, 2), CONTEXT),
    "SDXL inpainting, repeated": ("SDXL", SDXL | {"in_channels": 9}, SDXL_SITES, 2, (1, 2), 46),
}


@pytest.mark.parametrize("case", CASES)
def test_image_tokens(comfy: Any, case: str, record_property: Any) -> None:
    """A batch of two at an odd size, two references, cfg; levels that do not divide evenly."""
    family, config, sites, cell, head_counts, negative_tokens = CASES[case]
    size = (11, 14)
    pooled: dict[str, Any] = {"pooled_output": tiny.latent(5, 1, 10)}
    positive = tiny.conditioning(30, CONTEXT, 24, i2am_image_tokens=MARKS, **pooled)
    negative = tiny.conditioning(31, negative_tokens, 24, **pooled)
    inpainting = config["in_channels"] == 9
    mask = (tiny.latent(6, 1, 1, *size) > 0).float()
    options: dict[str, Any] = {"noise_mask": mask} if inpainting else {}
    record, calls = prove(
        comfy,
        lambda: tiny.build(family, **config),
        positive,
        negative,
        tiny.latent(32, 2, 4, *size),
        cross_attention(size, sites),
        grid=(-(-size[0] // cell), -(-size[1] // cell)),
        heads=max(head_counts),
        latent=size,
        note=record_property,
        cfg=3.0,
        steps=2,
        scheduler="normal",
        **options,
    )
    assert {call.q.shape[0] for call in calls} == {4}  # both conditionings in one batch
    assert len(record.header.layers) == len(sites)
    assert set(record.header.heads) == set(head_counts)


def _video() -> Any:
    """Stable Video Diffusion: one image token, and attention over time after each over places."""
    timed = {
        **{"in_channels": 8, "model_channels": 64, "use_temporal_attention": True},
        **{"num_classes": "sequential", "adm_in_channels": 3 * 256, "extra_ff_mix_layer": True},
        **{"use_temporal_resblock": True, "use_spatial_context": True},
        **{"merge_strategy": "learned_with_images", "video_kernel_size": [3, 1, 1]},
    }
    return tiny.build("SVD_img2vid", **COMMON | TWO_LEVELS | BY_WIDTH | timed)


def _novel_view() -> Any:
    """Stable Zero123: one image token that includes the camera."""
    from comfy.model_base import Stable_Zero123
    from comfy.model_patcher import ModelPatcher

    unet = tiny.build("SD15", **SD15 | {"in_channels": 8}).model
    with torch.no_grad():
        model = Stable_Zero123(
            unet.model_config,
            cc_projection_weight=torch.eye(24),
            cc_projection_bias=torch.zeros(24),
        )
    model.diffusion_model = unet.diffusion_model
    cpu = torch.device("cpu")
    return ModelPatcher(model, load_device=cpu, offload_device=cpu)


@pytest.mark.parametrize("model", [_video, _novel_view], ids=["SVD", "Zero123"])
def test_one_image_token(comfy: Any, model: Callable[[], Any], record_property: Any) -> None:
    """R2G as in the paper; no map over a reference of one token."""
    size, frames = (9, 14), 3
    shared: dict[str, Any] = {"concat_latent_image": tiny.latent(7, 1, 4, *size)}
    record, _ = prove(
        comfy,
        model,
        tiny.conditioning(30, 1, 24, **shared),
        tiny.conditioning(31, 1, 24, **shared),
        tiny.latent(32, frames, 4, *size),
        cross_attention(size, TWO_LEVEL_SITES, 1, ((0, 1),), ((1, 1),)),
        words=False,
        grid=size,
        heads=2 if model is _video else 8,
        latent=size,
        note=record_property,
        cfg=3.0,
        steps=2,
        scheduler="normal",
    )
    assert_no_map_over_the_reference(comfy, record)
    maps = record.arrays["paper.r2g.0.step_layer"]
    assert maps.shape[0] == frames
    assert maps.std() > 0.1 * maps.mean()
