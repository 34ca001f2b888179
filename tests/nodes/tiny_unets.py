"""Tiny Stable Diffusion models: their configurations, grids and layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

# 5 text tokens, a picture of 3×4, a picture of 2×3.
MARKS = [(5, 3, 4), (17, 2, 3)]
CONTEXT, SPANS, GRIDS = 23, ((5, 17), (17, 23)), ((3, 4), (2, 3))

COMMON = {
    **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32},
    **{"use_spatial_transformer": True, "legacy": False, "context_dim": 24},
    **{"use_temporal_attention": False, "adm_in_channels": None},
}
TWO_LEVELS = {
    **{"num_res_blocks": [1, 1], "channel_mult": [1, 2], "transformer_depth": [1, 1]},
    **{"transformer_depth_output": [1, 1, 1, 1], "transformer_depth_middle": 1},
}
SD15 = COMMON | TWO_LEVELS | {"num_heads": 8, "use_linear_in_transformer": False}
BY_WIDTH = {"num_heads": -1, "num_head_channels": 64, "use_linear_in_transformer": True}
SDXL = {
    **COMMON,
    **BY_WIDTH,
    **{"num_res_blocks": [1, 1, 1], "channel_mult": [1, 2, 4], "transformer_depth": [0, 1, 2]},
    **{"transformer_depth_output": [0, 0, 1, 1, 2, 2], "transformer_depth_middle": 2},
    **{"num_classes": "sequential", "adm_in_channels": 10 + 6 * 256},
}
# Each layer of these networks: block, number, transformer within it; and its cell's side.
TWO_LEVEL_SITES = {
    **{("input", 1, 0): 1, ("input", 3, 0): 2, ("middle", 0, 0): 2},
    **{("output", 0, 0): 2, ("output", 1, 0): 2, ("output", 2, 0): 1, ("output", 3, 0): 1},
}
SDXL_SITES = {
    **{("input", 3, 0): 2, ("input", 5, 0): 4, ("input", 5, 1): 4},
    **{("middle", 0, 0): 4, ("middle", 0, 1): 4},
    **{("output", 0, 0): 4, ("output", 0, 1): 4, ("output", 1, 0): 4, ("output", 1, 1): 4},
    **{("output", 2, 0): 2, ("output", 3, 0): 2},
}


def assert_no_map_over_the_reference(comfy: Any, record: Any) -> None:
    """Attribution Map and IMACS say why there is none."""
    attribution = comfy.pack("i2am.recording").Attribution(record)
    ours = comfy.pack("i2am.errors").I2AMError
    with pytest.raises(ours, match="no map over reference 1"):
        comfy.pack("i2am.maps.levels").attribution_map(
            record,
            comfy.pack("i2am.recording").Definition.PAPER,
            comfy.pack("i2am.recording").Direction.GENERATED_TO_REFERENCE,
        )
    imacs = comfy.node("I2AM_IMACS")
    widgets = {
        **{"reference": 1, "preset": "paper", "penalty": 3.0, "threshold": 0.4},
        **{"complement": False, "definition": "auto", "within_mask": False},
    }
    height, width = (8 * side for side in record.header.run.latent)
    mask = torch.zeros(1, height, width)
    mask[:, : height // 2] = 1
    with pytest.raises(ours, match="no map over reference 1"):
        imacs.execute(attribution, reference_mask=mask, **widgets)
    scores = imacs.execute(attribution, generated_mask=mask, **widgets).args[0]
    assert len(scores) == record.header.run.batch
