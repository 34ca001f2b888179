"""Make the demo model's VAE: a hand-written encoder and a trained decoder.

    python -m tools.demo.train_vae

The layout is TAESD's (Ollin Boer Bohan's tiny autoencoder) with 16 channels, the smallest one that
ComfyUI's stock VAELoader knows. The encoder's weights spell out `tools/demo/latents.py` in that
layout, so each latent pixel depends on its own 8x8 block and on nothing else.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from tools.demo.latents import (
    BLOCK,
    CHANNELS,
    GREY_OFFSET,
    SCALE,
    SHIFT,
    encode,
    latent_kernel,
)
from tools.demo.scenes import HELD_OUT_SEEDS, RECIPES, TRAINING_SEEDS, make_scenes
from tools.demo.scenes.photographs import crop
from tools.setup.paths import ROOT

DEFAULT_OUTPUT = ROOT / "models" / "vae" / "i2am_demo_vae.safetensors"
WIDTH = 64  # fixed by the layout
LEARNING_RATE = 2e-3
WARM_UP = 50  # steps
EMA_DECAY = 0.99
CROP = 64  # pixels: the decoder is convolutional, so it learns as well from parts
CROPS = 16  # in a batch
CROPPED = ("plain", "objects", "shapes", "transformed")  # recipes of the scenes, in turn
MOST_STEPS = 10_000  # so many training scenes are set aside for a --seed
ENCODER_STAGES = (2, 6, 10)  # positions of the strided convolutions in the layout
ENCODER_BLOCKS = (1, 3, 4, 5, 7, 8, 9, 11, 12, 13)
ENCODER_OUT = 14


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    encoder = written_encoder()
    decoder = train_decoder(options)
    weights = {f"taesd_encoder.{name}": value for name, value in encoder.items()}
    weights |= {f"taesd_decoder.{name}": value for name, value in decoder.items()}
    weights |= {"vae_scale": torch.tensor(SCALE), "vae_shift": torch.tensor(SHIFT)}
    about = {
        "modelspec.title": "I2AM demo VAE: block DCT encoder, trained decoder",
        "modelspec.architecture": "taesd layout, 16 channels",
        "modelspec.license": "GPL-3.0-or-later",
        "i2am": json.dumps({"seed": options.seed, "steps": options.steps}),
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: value.half().contiguous() for name, value in weights.items()}, options.output, about
    )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0, choices=range(10))
    parser.add_argument(
        "--photographs", type=int, default=4, help=f"of the {CROPS} crops in a batch"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument(
        "--start-from", type=Path, help="safetensors file whose decoder to begin with"
    )
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    return parser.parse_args()


def written_encoder() -> dict[str, Tensor]:
    """The weights that make TAESD's encoder compute `tools.demo.latents.encode`.

    Every value before the DCT is a colour, so never negative, and ReLUs leave it alone; the DCT's
    signed coefficients travel as pairs of positive and negative part.
    """
    weights = {"0.weight": torch.zeros(WIDTH, 3, 3, 3), "0.bias": torch.zeros(WIDTH)}
    for channel in range(3):
        weights["0.weight"][channel, channel, 1, 1] = 1
    for block in ENCODER_BLOCKS:  # residual blocks that add nothing
        for part in (0, 2, 4):
            weights[f"{block}.conv.{part}.weight"] = torch.zeros(WIDTH, WIDTH, 3, 3)
            weights[f"{block}.conv.{part}.bias"] = torch.zeros(WIDTH)

    # Twice: each 2x2 pixels become four channels. A kernel's middle is the upper left of them.
    channels = 3
    for stage in ENCODER_STAGES[:2]:
        weight = torch.zeros(WIDTH, WIDTH, 3, 3)
        for channel in range(channels):
            for place, (row, column) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
                weight[place * channels + channel, channel, 1 + row, 1 + column] = 1
        weights[f"{stage}.weight"] = weight
        channels *= 4

    # Then the DCT, over 2x2 of those 4x4 pixels, in the order the channels were laid out above.
    kernel = latent_kernel()  # (16, 3, 8, 8)
    weight = torch.zeros(WIDTH, WIDTH, 3, 3)
    for source in range(channels):
        colour, first, second = source % 3, source // 3 % 4, source // 12
        # the first stage split neighbouring pixels, the second neighbouring pairs
        row, column = first // 2 + second // 2 * 2, first % 2 + second % 2 * 2
        taps = kernel[:, colour, row::4, column::4]  # (16, 2, 2)
        weight[:CHANNELS, source, 1:, 1:] = taps
        weight[CHANNELS : 2 * CHANNELS, source, 1:, 1:] = -taps
    weights[f"{ENCODER_STAGES[2]}.weight"] = weight

    out = torch.zeros(CHANNELS, WIDTH, 3, 3)
    for channel in range(CHANNELS):
        out[channel, channel, 1, 1] = 1
        out[channel, CHANNELS + channel, 1, 1] = -1
    bias = torch.zeros(CHANNELS)
    bias[0] = -GREY_OFFSET
    return weights | {f"{ENCODER_OUT}.weight": out, f"{ENCODER_OUT}.bias": bias}


class Block(nn.Module):
    """Three convolutions beside the identity, then ReLU; starts as the identity."""

    def __init__(self) -> None:
        super().__init__()
        last = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)
        for parameter in last.parameters():
            nn.init.zeros_(parameter)
        self.conv = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            last,
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.conv(x) + x)


class Decoder(nn.Module):
    """TAESD's decoder, less the blocks that stay the identity: 3 at 1/8, 3 at 1/4, 1 at 1/2."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({"1": nn.Conv2d(CHANNELS, WIDTH, 3, padding=1)})
        for position in (3, 4, 5, 8, 9, 10, 13):
            self.layers[str(position)] = Block()
        for position in (7, 12, 17):
            self.layers[str(position)] = nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False)
        colours = nn.Conv2d(WIDTH, 3, 3, padding=1)
        colours.load_state_dict({"bias": torch.full((3,), 0.5)}, strict=False)
        self.layers["19"] = colours

    def forward(self, z: Tensor) -> Tensor:
        """Latents (B, 16, h, w) to pictures (B, 3, 8h, 8w)."""
        layer = self.layers
        x = F.relu(layer["1"](torch.tanh(z / 3) * 3))
        for blocks, up in ((("3", "4", "5"), "7"), (("8", "9", "10"), "12"), (("13",), "17")):
            for block in blocks:
                x = layer[block](x)
            x = layer[up](F.interpolate(x, scale_factor=2))
        # the layout has one more block here, and a block that adds nothing is still a ReLU
        return layer["19"](F.relu(x))

    def in_layout(self) -> dict[str, Tensor]:
        """The weights by TAESD's names, with zeros for the blocks left out."""
        weights = {name.removeprefix("layers."): value for name, value in self.state_dict().items()}
        for position in (14, 15, 18):
            for part in (0, 2, 4):
                weights[f"{position}.conv.{part}.weight"] = torch.zeros(WIDTH, WIDTH, 3, 3)
                weights[f"{position}.conv.{part}.bias"] = torch.zeros(WIDTH)
        return weights


def train_decoder(options: argparse.Namespace) -> dict[str, Tensor]:
    """Adam on the squared error of random crops; returns the averaged weights in TAESD's layout."""
    torch.manual_seed(options.seed)
    decoder = Decoder()
    if options.start_from:
        load_decoder(decoder, options.start_from)
    average = {name: value.detach().clone() for name, value in decoder.named_parameters()}
    optimiser = torch.optim.Adam(decoder.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98))
    started, losses = time.perf_counter(), []
    for step in range(options.steps):
        warm = min((step + 1) / WARM_UP, 1.0)
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * warm * (1 + math.cos(math.pi * step / options.steps)) / 2
        pictures = draw_crops(options.seed, step, options.photographs)
        loss = F.mse_loss(decoder(encode(pictures)), pictures.movedim(-1, 1))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimiser.step()
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        torch._foreach_lerp_(
            list(average.values()), [p.detach() for p in decoder.parameters()], 1 - decay
        )
        losses.append(loss.item())
        if (step + 1) % 50 == 0 or step + 1 == options.steps:
            decibels = -10 * math.log10(sum(losses) / len(losses))
            seconds = time.perf_counter() - started
            print(f"step {step + 1}  training {decibels:.2f} dB  {seconds:.0f} s", flush=True)
            losses.clear()
    decoder.load_state_dict(average)
    report(decoder)
    return decoder.in_layout()


def load_decoder(decoder: Decoder, path: Path) -> None:
    """Weights of an earlier file, as far as this decoder has the layer."""
    from safetensors.torch import load_file

    found = load_file(path)
    decoder.load_state_dict(
        {
            name: found[name.replace("layers.", "taesd_decoder.")].float()
            for name in decoder.state_dict()
        }
    )


def draw_crops(seed: int, step: int, photographs: int) -> Tensor:
    """Crops of training scenes and photographs, (CROPS, CROP, CROP, 3)."""
    rng = np.random.default_rng((seed, step))
    scenes = CROPS - photographs
    recipe = RECIPES[CROPPED[step % len(CROPPED)]]
    start = TRAINING_SEEDS.stop - (seed * MOST_STEPS + step + 1) * CROPS
    drawn = make_scenes(-(-scenes // 3), start, recipe=recipe)
    pictures = torch.cat((drawn.target, drawn.reference, drawn.scene))[:scenes]
    limit = (pictures.shape[1] - CROP) // BLOCK + 1
    crops = []
    for picture in pictures:
        # favours what is hard: of three places, the one with the most contrast
        places = rng.integers(0, limit, (3, 2)) * BLOCK
        parts = [picture[top : top + CROP, left : left + CROP] for top, left in places]
        crops.append(max(parts, key=lambda part: part.var().item()))
    for _ in range(photographs):
        crops.append(torch.tensor(crop(rng, CROP, held_out=False)).movedim(0, -1))
    return torch.stack(crops)


@torch.no_grad()
def report(decoder: Decoder) -> None:
    """Print the PSNR on held-out scenes and on photographs never trained on."""
    pictures_of = {}
    for recipe in ("plain", "objects"):
        scenes = make_scenes(32, HELD_OUT_SEEDS.start, recipe=RECIPES[recipe])
        pictures_of[recipe] = torch.cat((scenes.target, scenes.reference, scenes.scene))
    rng = np.random.default_rng(0)
    photographs = torch.tensor(np.stack([crop(rng, 128, held_out=True) for _ in range(32)]))
    for name, pictures in (*pictures_of.items(), ("photographs", photographs.movedim(1, -1))):
        error = (decoder(encode(pictures)).clamp(0, 1) - pictures.movedim(-1, 1)).square()
        each = -10 * error.mean((1, 2, 3)).log10()
        pooled = -10 * math.log10(error.mean())
        print(
            f"{name}: PSNR {pooled:.2f} dB over all pixels, {each.mean():.2f} dB mean of pictures"
        )


if __name__ == "__main__":
    main()
