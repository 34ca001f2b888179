r"""Train the demo insertion model: a small UNet that reads an object by attention and puts it back.

    python -m tools.demo.train_unet

ComfyUI's own UNet class, at a fraction of its size, with the picture's noise, the box and the
picture around it as channels, and the tokens of the reference as its whole context: the mechanism
of Paint-by-Example, the model on which the I2AM paper locates objects. Plain flow matching on the
scenes of `tools/demo/insertions.py`; attention is never supervised.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.comfyui.in_process import import_comfyui, import_pack
from tools.demo.insertions import Insertions, make_insertions
from tools.demo.latents import encode
from tools.demo.training import Task, flow_times, train, training_options
from tools.setup.paths import ROOT

DEFAULT_OUTPUT = ROOT / "models" / "diffusion_models" / "i2am_demo_insertion.safetensors"
STEPS = 3000
BATCH = 16
RATE = 1e-3
DROP_REFERENCE = 0.1  # share of the scenes that see no reference, for guidance
BOX_WEIGHT, ELSEWHERE_WEIGHT = 1.0, 0.1  # of a latent pixel in the loss
CHANNELS, CONTEXT = 16, 80

# Level 0 is the latent's grid (16×16 at 128 px), level 1 half of it; cross-attention at both and in
# the middle: seven layers.
UNET = {
    "image_size": 16,  # not used
    "in_channels": 2 * CHANNELS + 1,  # noise, box, picture around it
    "out_channels": CHANNELS,
    "model_channels": 64,
    "channel_mult": [1, 1],
    "num_res_blocks": [1, 1],
    "transformer_depth": [1, 1],
    "transformer_depth_middle": 1,
    "transformer_depth_output": [1, 1, 1, 1],
    "context_dim": CONTEXT,
    "use_spatial_transformer": True,
    "legacy": False,
}


def main() -> None:
    options = training_options(__doc__, STEPS, RATE).parse_args()
    options.output = options.output or DEFAULT_OUTPUT
    demo = importlib.import_module(f"{ready_to_train(options)}.nodes.prepare.demo")
    train(
        Task(
            title="I2AM demo: object insertion, reference read by cross-attention",
            architecture="stable-diffusion-1 UNet, 64 wide, flow matching, trained from scratch",
            model=new_unet(UNET, demo.InsertionUNet.unet_extra_config["num_heads"]),
            batch={"insertions": BATCH},
            draw=partial(make_insertions, BATCH),
            loss=partial(flow_loss, demo.picture_tokens),
            report=partial(report, demo.picture_tokens),
        ),
        options,
    )


def ready_to_train(options: argparse.Namespace) -> str:
    """Seed torch, and load ComfyUI for training and the pack; the pack's name."""
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    import_comfyui()
    import comfy.cli_args

    comfy.cli_args.args.use_pytorch_cross_attention = True  # the fastest on a CPU
    import comfy.model_management

    comfy.model_management.in_training = True  # ComfyUI's attention then keeps its gradients
    return import_pack().__name__


def new_unet(sizes: Mapping[str, Any], heads: int) -> nn.Module:
    """ComfyUI's UNet before training; its layers come without initial weights."""
    import comfy.ops
    from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel

    model = UNetModel(
        **sizes, num_heads=heads, dtype=torch.float32, operations=comfy.ops.disable_weight_init
    )
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.xavier_uniform_(module.weight)
        elif isinstance(module, nn.GroupNorm | nn.LayerNorm):
            nn.init.ones_(module.weight)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    for name, weight in model.named_parameters():  # each block adds nothing at first
        if name.endswith(("out_layers.3.weight", "proj_out.weight")) or name == "out.2.weight":
            nn.init.zeros_(weight)
    return model


def given(scenes: Insertions) -> tuple[Tensor, Tensor, Tensor]:
    """Latents of the target; the channels beside the noise; latents of the reference."""
    around = to_fill(scenes.scene, scenes.box_mask)
    return encode(scenes.target), around, encode(scenes.reference)


def to_fill(scene: Tensor, box_mask: Tensor) -> Tensor:
    """The channels beside the noise: the box (B, 1, H/8, W/8) and the picture's latent around it.

    The box is the latent pixels whose middle is inside it, as ComfyUI shrinks a mask.
    """
    latent = encode(scene)
    box = F.interpolate(box_mask[:, None], size=latent.shape[-2:], mode="bilinear").round()
    return torch.cat((box, latent), dim=1)


def in_boxes(error: Tensor, around: Tensor) -> Tensor:
    """The loss: the mean error of all latent pixels, mostly of those in a box."""
    return (error * torch.where(around[:, :1] > 0, BOX_WEIGHT, ELSEWHERE_WEIGHT)).mean()


def flow_loss(tokens_of, model: nn.Module, scenes: Insertions, random: torch.Generator) -> Tensor:
    """Squared error of the velocity noise - picture, mostly in the box."""
    target, around, reference = given(scenes)
    t = flow_times(len(target), random)
    noise = torch.randn(target.shape, generator=random)
    noisy = torch.lerp(target, noise, t[:, None, None, None])
    tokens = tokens_of(reference)
    tokens = tokens * (torch.rand(len(tokens), 1, 1, generator=random) >= DROP_REFERENCE)
    velocity = model(torch.cat((noisy, around), dim=1), t * 1000, tokens)
    error = F.mse_loss(velocity, noise - target, reduction="none")
    return in_boxes(error, around)


def report(tokens_of, model: nn.Module) -> None:
    """Print the error, in held-out boxes, of a one-step guess from pure noise."""
    target, around, reference = given(make_insertions(64))
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    tokens = tokens_of(reference)
    inside = around[:, :1].expand_as(target) > 0
    errors = []
    for given_tokens in (tokens, tokens.roll(1, 0), torch.zeros_like(tokens)):
        velocity = model(
            torch.cat((noise, around), dim=1), torch.full((len(noise),), 1000.0), given_tokens
        )
        errors.append(((noise - velocity - target) ** 2)[inside].mean().item())
    print("  right {:.3f}  wrong {:.3f}  none {:.3f}".format(*errors), flush=True)


if __name__ == "__main__":
    main()
