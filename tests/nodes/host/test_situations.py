"""Other things a graph may contain: samplers, guiders, stages, LoRAs, ControlNets.

Each on one family: the maps equal the dense oracle's, and the latent is unchanged.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import tiny
import torch
from oracle import Place, Seen
from proof import prove, recording
from torch import Tensor

START = tiny.latent(22, 2, 16, 9, 10)
REFERENCES = (tiny.latent(10, 1, 16, 7, 14), tiny.latent(11, 1, 16, 6, 5))
POSITIVE = tiny.conditioning(20, 7, 16, REFERENCES)
NEGATIVE = tiny.conditioning(21, 7, 16, REFERENCES)
PLAIN = tiny.conditioning(23, 7, 16)


def place(call: Seen) -> Place | None:
    """[text 7 | result 25, 5×5 | reference 1 28, 4×7 | reference 2 9, 3×3]"""
    if call.k.shape[2] != 69:
        return None
    return Place(
        layer=call.options["block_index"] + 2 * (call.options["block_type"] == "single"),
        generated=(7, 32),
        grid=(5, 5),
        own=(7, 32),
        references=((32, 60), (60, 69)),
        reference_grids=((4, 7), (3, 3)),
        keys=69,
    )


@pytest.fixture
def proven(comfy: Any, record_property: Any) -> Any:
    return partial(prove, comfy, place_of=place, grid=(5, 5), heads=2, note=record_property)


@pytest.mark.parametrize(
    ("sampler", "evaluations"), [("heun", 5), ("dpm_2", 5), ("dpmpp_2s_ancestral", 5)]
)
def test_several_evaluations_a_step(proven: Any, sampler: str, evaluations: int) -> None:
    record, _ = proven(tiny.flux, POSITIVE, NEGATIVE, START, sampler=sampler, cfg=2.0)
    assert record.header.evaluations == evaluations
    assert record.header.steps == (0, 1, 2)


@pytest.mark.parametrize(("sampler", "evaluations"), [("euler", 3), ("dpmpp_2s_ancestral", 5)])
def test_noise_levels_that_come_late(
    comfy: Any, proven: Any, monkeypatch: pytest.MonkeyPatch, sampler: str, evaluations: int
) -> None:
    """As from a card that works behind the processor: the step is known at its first call."""
    copy = comfy.pack("i2am.recording").HostCopy
    monkeypatch.setattr(copy, "on_the_way", property(lambda self: True))
    record, _ = proven(tiny.flux, POSITIVE, NEGATIVE, START, sampler=sampler, cfg=2.0)
    assert record.header.evaluations == evaluations
    assert record.header.steps == (0, 1, 2)


def test_part_of_the_schedule(proven: Any) -> None:
    """A denoise below one samples the end of a longer schedule."""
    record, _ = proven(tiny.flux, POSITIVE, NEGATIVE, START, denoise=0.5)
    assert record.header.evaluations == 3
    assert record.header.run.schedule[0] < 0.9


def test_two_stages(comfy: Any, proven: Any) -> None:
    """KSamplerAdvanced twice: each stage's latent leads to that stage's steps."""

    def stage(
        model: Any, positive: Any, negative: Any, start: Tensor, first: int, last: int
    ) -> Tensor:
        noise, left = ("enable", "enable") if first == 0 else ("disable", "disable")
        with torch.inference_mode():
            (latent,) = comfy.node("KSamplerAdvanced")().sample(
                *(model, noise, 1, 4, 2.0, "euler", "simple", positive, negative),
                *({"samples": start}, first, last, left),
            )
        return latent["samples"]

    first, second = partial(stage, first=0, last=2), partial(stage, first=2, last=10000)
    one, _ = proven(tiny.flux, POSITIVE, NEGATIVE, START, sample=first)
    between = first(tiny.flux(), POSITIVE, NEGATIVE, START)
    two, _ = proven(tiny.flux, POSITIVE, NEGATIVE, between, sample=second)
    assert len(one.header.steps) == len(two.header.steps) == 2
    assert one.header.sigmas[-1] > two.header.sigmas[0]
    assert recording(comfy, between).header.sigmas == one.header.sigmas


@pytest.mark.parametrize(
    ("guider", "index"),
    [("dual", 2), ("nested", 2), ("perp-neg", 0)],
)
def test_guiders(comfy: Any, proven: Any, guider: str, index: int) -> None:
    """SamplerCustomAdvanced: guiders with three conditionings, two of them with references."""

    def sample(model: Any, positive: Any, negative: Any, start: Tensor) -> Tensor:
        node = comfy.node
        if guider == "perp-neg":
            made = node("PerpNegGuider").execute(model, positive, negative, PLAIN, 2.0, 1.0)[0]
        else:
            style = "nested" if guider == "nested" else "regular"
            made = node("DualCFGGuider").execute(model, positive, PLAIN, negative, 2.0, 3.0, style)
            made = made[0]
        noise = node("RandomNoise").execute(1)[0]
        sampler = node("KSamplerSelect").execute("euler")[0]
        sigmas = node("BasicScheduler").execute(model, "simple", 2, 1.0)[0]
        with torch.inference_mode():
            out = node("SamplerCustomAdvanced").execute(
                *(noise, made, sampler, sigmas, {"samples": start})
            )
        return out[0]["samples"]

    proven(tiny.flux, POSITIVE, NEGATIVE, START, sample=sample, index=index)


def test_lora(comfy: Any, proven: Any) -> None:
    import comfy.sd as loaders

    name = "diffusion_model.double_blocks.0.img_attn.qkv"
    lora = {
        f"{name}.lora_down.weight": tiny.latent(1, 4, 256) / 4,
        f"{name}.lora_up.weight": tiny.latent(2, 768, 4) / 4,
    }

    def model(strength: float = 1.0) -> Any:
        return loaders.load_lora_for_models(tiny.flux(), None, lora, strength, 0)[0]

    record, _ = proven(model, POSITIVE, NEGATIVE, START)
    without, _ = proven(partial(model, 0.0), POSITIVE, NEGATIVE, START)
    assert not torch.equal(record.arrays["share.map"], without.arrays["share.map"])


def test_controlnet(comfy: Any, record_property: Any) -> None:
    """A ControlNet runs the same kinds of blocks; only the UNet's are recorded."""
    import comfy.cldm.cldm as networks
    import comfy.controlnet as controls
    from comfy.ops import disable_weight_init

    config: dict[str, Any] = {
        "image_size": 32,
        "in_channels": 4,
        "model_channels": 32,
        "hint_channels": 3,
        "num_res_blocks": [1, 1],
        "channel_mult": [1, 2],
        "transformer_depth": [1, 1],
        "transformer_depth_middle": 1,
        "context_dim": 24,
        "num_heads": 8,
        "use_spatial_transformer": True,
        "legacy": False,
        "dtype": torch.float32,
    }
    network = networks.ControlNet(**config, operations=disable_weight_init)
    network.load_state_dict(tiny._random_weights(network, 6))
    cpu = torch.device("cpu")
    control = controls.ControlNet(network, load_device=cpu, manual_cast_dtype=torch.float32)
    hint = tiny.latent(7, 1, 128, 96, 3).sigmoid()
    positive = tiny.conditioning(30, 19, 24, i2am_image_tokens=[(5, 3, 4)])
    negative = tiny.conditioning(31, 19, 24)
    applied = comfy.node("ControlNetApplyAdvanced")().apply_controlnet
    controlled = applied(positive, negative, control, hint, 1.0, 0.0, 1.0)

    def cross(call: Seen) -> Place | None:
        """Latent 16×12, then 8×6; [text 5 | picture 3×4 | text 2]; no level has 19 queries."""
        if call.k.shape[2] != 19:
            return None
        layers = [("input", 1), ("input", 3), ("middle", 0), *(("output", i) for i in range(4))]
        height, width = call.options["activations_shape"][-2:]
        return Place(
            layer=layers.index(call.options["block"]),
            generated=(0, height * width),
            grid=(height, width),
            own=None,
            references=((5, 17),),
            reference_grids=((3, 4),),
            keys=19,
        )

    start = tiny.latent(32, 2, 4, 16, 12)
    options: dict[str, Any] = {"grid": (16, 12), "heads": 8, "scheduler": "normal", "cfg": 2.0}
    pair = controlled[0], controlled[1]
    record, _ = prove(comfy, tiny.unet, *pair, start, cross, note=record_property, **options)
    without, _ = prove(comfy, tiny.unet, positive, negative, start, cross, **options)
    assert not torch.equal(record.arrays["share.map"], without.arrays["share.map"])
