r"""Make a Flux-type demo model twice as wide, so that its training can go on from what it knows.

    python -m tools.demo.widening models/diffusion_models/i2am_demo_inpaint.safetensors \
        wide.safetensors --without 1
    python -m tools.demo.train_model --start-from wide.safetensors --muon ...

Every channel is there twice, and the weights that read the two copies add up to the old weight, so
the wide model computes what the narrow one did (Net2Net's wider network, Chen et al. 2016, section
2.1). How the old weight is divided between the copies is random; otherwise both would learn the
same for ever. `--without N` then takes a single block out: what it did must be learned again.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tools.demo.flux import HEAD
from tools.demo.training import begin_with, save

READ_OTHERS = ("img_in", "txt_in", "in_layer")  # layers whose inputs are no channels of tokens
SPREAD = 0.5  # of a weight's halves around one half of it, in standard deviations of the layer


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("narrow", type=Path, help="state or safetensors of the model to widen")
    parser.add_argument("wide", type=Path, help="safetensors to write")
    parser.add_argument("--without", type=int, help="number of the single block to take out")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    weights, stages = begin_with(options.narrow)
    wide = widened(weights, torch.Generator().manual_seed(options.seed))
    stage = {"widened": len(wide["img_in.bias"]), "seed": options.seed}
    if options.without is not None:
        wide = without_single_block(wide, options.without)
        stage["without_single_block"] = options.without
    title = "I2AM demo: reference inpainting, widened and to be trained on"
    save(wide, options.wide, title, "flux-1", [*stages, stage])


def widened(weights: Mapping[str, Tensor], random: torch.Generator) -> dict[str, Tensor]:
    """Weights of `DemoFlux` at twice the width that compute the same."""
    wide = {}
    for name, weight in weights.items():
        if "_norm" not in name:  # one head's, the same for all
            if not name.startswith("final_layer.linear"):
                weight = _twice(weight)
            if weight.ndim == 2 and not any(layer in name for layer in READ_OTHERS):
                weight = _divided(weight, random)
        wide[name] = weight
    return wide


def without_single_block(weights: Mapping[str, Tensor], block: int) -> dict[str, Tensor]:
    """The weights of all blocks but one, counted anew."""
    kept = {}
    for name, weight in weights.items():
        kind, number, *rest = name.split(".")
        if kind == "single_blocks":
            if int(number) == block:
                continue
            name = ".".join((kind, str(int(number) - (int(number) > block)), *rest))
        kept[name] = weight
    return kept


def _twice(weight: Tensor) -> Tensor:
    """Every head's worth of outputs, followed by its copy."""
    return weight.unflatten(0, (-1, HEAD)).repeat_interleave(2, 0).flatten(0, 1)


def _divided(weight: Tensor, random: torch.Generator) -> Tensor:
    """A weight's inputs, followed by their copies; what reads the two adds up to the weight."""
    parts = weight.unflatten(1, (-1, 1, HEAD))
    more = torch.randn(parts.shape, generator=random) * parts.std() * SPREAD
    return torch.cat((parts / 2 + more, parts / 2 - more), 2).flatten(1)


if __name__ == "__main__":
    main()
