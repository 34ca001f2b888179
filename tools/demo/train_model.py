r"""Train the Flux-type demo models, which read references next to the picture they make.

    python -m tools.demo.train_model --output plain.safetensors --state plain.state
    python -m tools.demo.train_model --start-from plain.state --seed 2 --steps 1750 --rate 1e-3 \
        --batch plain=4,sizes=3,distractors=4,photographs=4,unaligned=4,everything=5

The first command learns to find and copy on the plain scenes; its result is a working model. The
second goes on from there with harder scenes. Between two such stages, `tools/demo/widening.py`
makes a model twice as wide. For some hundred steps nothing is learned, then copying appears all at
once. `--stop-at 20` gives weights that have learned nothing, for comparison; `--checkpoints FOLDER
--every 100` keeps the weights along the way.

    python -m tools.demo.train_model --task upscale --start-from plain.state \
        --seed 3 --steps 3500 --rate 1e-3

Super-resolution: the one reference is the picture at an eighth of its size, enlarged again.

Flow matching on the scenes of `tools/demo/scenes`; attention is never supervised. The result
loads with ComfyUI's stock UNETLoader.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.comfyui.in_process import comfyui_path
from tools.demo.flux import DemoFlux, to_tokens
from tools.demo.latents import CHANNELS, encode, pixel_weights
from tools.demo.scenes import (
    HELD_OUT_SEEDS,
    RECIPES,
    Scenes,
    make_scenes,
    reduced,
    token_coverage,
)
from tools.demo.training import Task, begin_with, flow_times, train, training_options
from tools.setup.paths import ROOT

MODELS = ROOT / "models" / "diffusion_models"

DROP_REFERENCE = 0.1  # share of the batches that see no object picture, or no low resolution
HOLE_WEIGHT, ELSEWHERE_WEIGHT = 1.1, 0.1  # of a token in the loss
RATE = 1.5e-3
STEPS = 1500
BATCHES = {"inpaint": {"plain": 32}, "upscale": {"photographs": 20, "everything": 4}}


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    if options.prove:
        prove(options.comfyui)
        return
    torch.manual_seed(options.seed)
    batch = options.batch or BATCHES[options.task]
    what = {
        "inpaint": (inpainting_loss, report_inpainting, "reference inpainting"),
        "upscale": (upscaling_loss, report_upscaling, "super-resolution by eight"),
    }
    loss, report, title = what[options.task]
    options.output = options.output or MODELS / f"i2am_demo_{options.task}.safetensors"
    if options.start_from:
        model = DemoFlux.like(begin_with(options.start_from)[0])
    else:
        model = DemoFlux(options.width, singles=options.singles)
    task = Task(
        title=f"I2AM demo: {title} of synthetic scenes and photographs",
        architecture=f"flux-1, {len(model.img_in.bias)} wide, trained from scratch",
        model=model,
        batch=batch,
        draw=partial(draw_batch, batch),
        loss=loss,
        report=partial(report, list(batch)),
    )
    train(task, options)


def parse_arguments() -> argparse.Namespace:
    parser = training_options(__doc__, STEPS, RATE)
    parser.add_argument("--task", choices=list(BATCHES), default="inpaint")
    parser.add_argument("--batch", type=parse_batch, help="plain=16,everything=16")
    parser.add_argument("--width", type=int, default=128, help="channels of a token, from scratch")
    parser.add_argument("--singles", type=int, default=4, help="single-stream blocks, from scratch")
    parser.add_argument(
        "--prove", action="store_true", help="compare with ComfyUI's Flux, then end"
    )
    parser.add_argument("--comfyui", type=Path, default=comfyui_path())
    return parser.parse_args()


def parse_batch(text: str) -> dict[str, int]:
    """`plain=16,everything=16`: how many scenes of which recipe a batch holds."""
    batch = {
        name: int(count) for name, _, count in (part.partition("=") for part in text.split(","))
    }
    unknown = sorted(set(batch) - set(RECIPES))
    if unknown:
        raise argparse.ArgumentTypeError(f"no recipe {unknown}; there are {', '.join(RECIPES)}")
    return batch


def draw_batch(batch: Mapping[str, int], start: int) -> list[Scenes]:
    """New scenes, one group for each recipe."""
    groups = []
    for name, count in batch.items():
        groups.append(make_scenes(count, start, recipe=RECIPES[name]))
        start += count
    return groups


def latents_of(groups: list[Scenes]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Latents of target, scene and reference; and the tokens a hole touches, (B, tokens) bool."""
    pictures = (
        torch.cat([getattr(g, key) for g in groups]) for key in ("target", "scene", "reference")
    )
    touched = token_coverage(torch.cat([group.hole for group in groups])) > 0
    target, scene, reference = (encode(picture) for picture in pictures)
    return target, scene, reference, touched


def inpainting_loss(model: nn.Module, groups: list[Scenes], random: torch.Generator) -> Tensor:
    """Squared error of the velocity noise - picture, mostly in the hole."""
    target, scene, reference, touched = latents_of(groups)
    weights = torch.where(touched, HOLE_WEIGHT, ELSEWHERE_WEIGHT)
    return (flow_error(model, target, [scene, reference], random) * weights).mean()


def flow_error(
    model: nn.Module, target: Tensor, references: list[Tensor], random: torch.Generator
) -> Tensor:
    """Squared error of the velocity at random times, (B, tokens); sometimes without the last
    reference."""
    t = flow_times(len(target), random)
    noise = torch.randn(target.shape, generator=random)
    noisy = torch.lerp(target, noise, t[:, None, None, None])
    references = without_last_at_times(references, random)
    with torch.autocast("cpu", torch.bfloat16):
        velocity = model(noisy, t, no_text(len(target)), references)
    return to_tokens(F.mse_loss(velocity.float(), noise - target, reduction="none")).mean(-1)


def without_last_at_times(references: list[Tensor], random: torch.Generator) -> list[Tensor]:
    """For a share of the batches, only the references before the last."""
    return references[:-1] if torch.rand((), generator=random) < DROP_REFERENCE else references


def upscaling_loss(model: nn.Module, groups: list[Scenes], random: torch.Generator) -> Tensor:
    """Squared error of the picture predicted at random times, weighted as in pixels.

    The noise is added to the model's own guess from pure noise, not to the true picture. A model
    trained on the truth samples one of the many pictures that would fit, which has twice the error
    of their mean: more than the enlarged low resolution itself.
    """
    target, low = low_and_high(groups)
    references = without_last_at_times([low], random)
    text = no_text(len(target))
    first, noise = (torch.randn(target.shape, generator=random) for _ in range(2))
    t = flow_times(len(target), random)
    # two contexts: in one, the second pass would reuse weights cast without gradients
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        guess = first - model(first, torch.ones_like(t), text, references)
    with torch.autocast("cpu", torch.bfloat16):
        times = t[:, None, None, None]
        noisy = torch.lerp(guess, noise, times)
        made = noisy - times * model(noisy, t, text, references)
    return ((made - target).square() * pixel_weights()).mean()


def low_and_high(groups: list[Scenes]) -> tuple[Tensor, Tensor]:
    """Latents of pictures, and of the same at low resolution."""
    target = torch.cat([group.target for group in groups])
    return encode(target), encode(reduced(target))


def no_text(batch: int) -> Tensor:
    """The conditioning the model is used with: one empty text token."""
    return torch.zeros(batch, 1, 16)


def report_inpainting(recipes: list[str], model: nn.Module) -> None:
    """Print the error, in held-out holes, of a one-step guess from pure noise."""
    for name in recipes:
        groups = [make_scenes(64, HELD_OUT_SEEDS.start, recipe=RECIPES[name])]
        target, scene, reference, touched = latents_of(groups)
        errors = guess_errors(
            model, target, ([scene, reference], [scene, reference.roll(1, 0)], [scene])
        )
        errors = [to_tokens(error).mean(-1)[touched].mean().item() for error in errors]
        print("  {}: right {:.3f}  wrong {:.3f}  none {:.3f}".format(name, *errors), flush=True)


def report_upscaling(recipes: list[str], model: nn.Module) -> None:
    """Print the error of one-step guesses of held-out pictures from pure noise, and of the enlarged
    low resolution itself."""
    for name in recipes:
        target, low = low_and_high([make_scenes(64, HELD_OUT_SEEDS.start, recipe=RECIPES[name])])
        errors = guess_errors(model, target, ([low], [low.roll(1, 0)], []))
        errors.append((low - target) ** 2)
        figures = [(error * pixel_weights()).mean().item() for error in errors]
        print(
            "  {}: right {:.3f}  wrong {:.3f}  none {:.3f}  enlarged {:.3f}".format(name, *figures),
            flush=True,
        )


def guess_errors(
    model: nn.Module, target: Tensor, choices: tuple[list[Tensor], ...]
) -> list[Tensor]:
    """Squared error of a one-step guess from pure noise, in latents, for each choice of
    references."""
    noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
    time, text = torch.ones(len(noise)), no_text(len(noise))
    return [(noise - model(noise, time, text, references) - target) ** 2 for references in choices]


@torch.no_grad()
def prove(comfyui: Path) -> None:
    """Print the largest difference between this Flux and ComfyUI's, over random inputs."""
    sys.path.insert(0, str(comfyui.resolve()))
    sys.argv = sys.argv[:1]  # ComfyUI reads the command line when it is imported
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True
    import comfy.model_detection
    import comfy.ops
    from comfy.ldm.flux.model import Flux

    torch.manual_seed(0)
    ours = DemoFlux().eval()
    for parameter in ours.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.05)
    weights = ours.state_dict()
    config = comfy.model_detection.detect_unet_config(weights, "")
    config.pop("image_model")
    theirs = Flux(**config, operations=comfy.ops.disable_weight_init, dtype=torch.float32)
    theirs.load_state_dict(weights)
    worst = 0.0
    for height, width in ((16, 16), (24, 24), (16, 24)):
        x, scene, reference = torch.randn(3, 2, CHANNELS, height, width)
        t, text = torch.tensor([0.3, 1.0]), torch.randn(2, 1, 16)
        for references in ([scene, reference], [scene], []):
            expected = theirs(x, t, text, ref_latents=references or None)
            worst = max(worst, (ours(x, t, text, references) - expected).abs().max().item())
    print(f"largest difference from ComfyUI's Flux: {worst:.2e} (outputs: {expected.std():.2f})")


if __name__ == "__main__":
    main()
