r"""Train the demo model: a small Flux that fills a hole with the object of a reference picture.

    python tools/train_demo_model.py --output plain.safetensors --state plain.state
    python tools/train_demo_model.py --start-from plain.state --seed 2 --steps 1750 --rate 1e-3 \
        --batch plain=4,sizes=3,distractors=4,photographs=4,unaligned=4,everything=5

The first command learns to find and copy on the plain scenes and is a working model by itself; the
second goes on from there with harder ones. Nothing is learned for some hundred steps, then copying
appears at once. `--stop-at 20` gives weights that have learned nothing, to compare with;
`--checkpoints FOLDER --every 100` keeps the weights along the way.

Plain flow matching on the scenes of `demo_scenes.py`; attention is never supervised. The result
loads with ComfyUI's stock UNETLoader. Budgets are in steps: a busy machine only takes longer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tools.demo_flux import DemoFlux, to_tokens  # noqa: E402
from tools.demo_latents import CHANNELS, encode  # noqa: E402
from tools.demo_scenes import (  # noqa: E402
    HELD_OUT_SEEDS,
    RECIPES,
    TRAINING_SEEDS,
    Scenes,
    make_scenes,
    token_coverage,
)

DEFAULT_OUTPUT = ROOT / "models" / "diffusion_models" / "i2am_demo_inpaint.safetensors"
DEFAULT_COMFYUI = ROOT / ".comfyui" / "0.30.0"

LEARNING_RATE = 1.5e-3
WARM_UP = 100  # steps
EMA_DECAY = 0.998
DROP_REFERENCE = 0.1  # share of the batches that see no object picture
HOLE_WEIGHT, ELSEWHERE_WEIGHT = 1.1, 0.1  # of a token in the loss
SEEDS_PER_RUN = 1_000_000  # training scenes set aside for each value of --seed


def main() -> None:
    options = parse_arguments()
    torch.set_num_threads(options.threads)
    if options.prove:
        prove(options.comfyui)
    else:
        train(options)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=1500, help="length of the schedule")
    parser.add_argument("--stop-at", type=int, help="end early; the schedule stays that of --steps")
    parser.add_argument(
        "--batch", type=parse_batch, default={"plain": 32}, help="plain=16,everything=16"
    )
    parser.add_argument("--singles", type=int, default=4, help="single-stream blocks")
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="peak learning rate")
    parser.add_argument("--seed", type=int, default=0, choices=range(10))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, default=DEFAULT_OUTPUT)
    parser.add_argument("--checkpoints", type=Path, help="folder for the weights along the way")
    parser.add_argument("--every", type=int, default=100, help="steps between those")
    parser.add_argument("--state", type=Path, help="file to resume from, and to keep up to date")
    parser.add_argument("--start-from", type=Path, help="state whose weights to begin with")
    parser.add_argument(
        "--prove", action="store_true", help="compare with ComfyUI's Flux, then end"
    )
    parser.add_argument(
        "--comfyui", type=Path, default=Path(os.environ.get("COMFYUI_PATH", DEFAULT_COMFYUI))
    )
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


def train(options: argparse.Namespace) -> None:
    """The whole run: draw, noise, predict, step; save at the end and along the way."""
    torch.manual_seed(options.seed)
    model = DemoFlux(singles=options.singles)
    optimiser = torch.optim.AdamW(
        model.parameters(), lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01
    )
    average = {name: value.detach().clone() for name, value in model.named_parameters()}
    first = 0
    if options.start_from:
        model.load_state_dict(torch.load(options.start_from, weights_only=True)["average"])
        average = {name: value.detach().clone() for name, value in model.named_parameters()}
    if options.state and options.state.exists():
        state = torch.load(options.state, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        average, first = state["average"], state["step"]

    last = options.stop_at or options.steps
    started, losses = time.perf_counter(), []
    artist = ThreadPoolExecutor(max_workers=1)  # draws the next batch while this one is learned
    upcoming = artist.submit(draw_batch, options.batch, options.seed, first)
    for step in range(first, last):
        for group in optimiser.param_groups:
            group["lr"] = options.rate * schedule(step, options.steps)
        scenes = upcoming.result()
        upcoming = artist.submit(draw_batch, options.batch, options.seed, step + 1)
        loss = flow_loss(model, scenes, torch.Generator().manual_seed(options.seed << 32 | step))
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        torch._foreach_lerp_(
            list(average.values()), [p.detach() for p in model.parameters()], 1 - decay
        )
        losses.append(loss.item())

        done = step + 1
        if done % 50 == 0 or done == last:
            seconds = time.perf_counter() - started
            print(f"step {done}  loss {sum(losses) / len(losses):.4f}  {seconds:.0f} s", flush=True)
            losses.clear()
        if done % 250 == 0 or done == last:
            report(average, options)
            if options.state:
                save_state(options.state, model, average, optimiser, done)
        if options.checkpoints and (done % options.every == 0 or done == last):
            save(average, options.checkpoints / f"step_{done:05d}.safetensors", options, done)
    artist.shutdown(cancel_futures=True)
    save(average, options.output, options, last)


def schedule(step: int, steps: int) -> float:
    """Share of the learning rate: warm-up, level for half the run, cosine down to 2 %."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    through = min(max(step / steps - 0.5, 0.0) / 0.5, 1.0)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * through)) / 2


def draw_batch(batch: Mapping[str, int], seed: int, step: int) -> list[Scenes]:
    """Scenes nobody saw before, one group for each recipe."""
    start = TRAINING_SEEDS.start + seed * SEEDS_PER_RUN + step * sum(batch.values())
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


def flow_loss(model: DemoFlux, groups: list[Scenes], random: torch.Generator) -> Tensor:
    """Squared error of the velocity noise - picture, mostly in the hole."""
    target, scene, reference, touched = latents_of(groups)
    batch = len(target)
    t = torch.rand(batch, generator=random)
    t[batch // 2 :] = 0.6 + 0.4 * t[batch // 2 :]  # where it is decided what to draw
    t = t[torch.randperm(batch, generator=random)]
    noise = torch.randn(target.shape, generator=random)
    noisy = torch.lerp(target, noise, t[:, None, None, None])
    dropped = torch.rand((), generator=random) < DROP_REFERENCE
    references = [scene] if dropped else [scene, reference]
    velocity = model(noisy, t, no_text(batch), references)
    error = to_tokens(F.mse_loss(velocity, noise - target, reduction="none")).mean(-1)
    return (error * torch.where(touched, HOLE_WEIGHT, ELSEWHERE_WEIGHT)).mean()


def no_text(batch: int) -> Tensor:
    """The conditioning the model is used with: one empty text token."""
    return torch.zeros(batch, 1, 16)


@torch.no_grad()
def report(average: Mapping[str, Tensor], options: argparse.Namespace) -> None:
    """Print the error in held-out holes of the picture guessed at once from pure noise."""
    model = DemoFlux(singles=options.singles)
    model.load_state_dict(dict(average))
    for name in options.batch:
        groups = [make_scenes(64, HELD_OUT_SEEDS.start, recipe=RECIPES[name])]
        target, scene, reference, touched = latents_of(groups)
        noise = torch.randn(target.shape, generator=torch.Generator().manual_seed(1))
        errors = []
        for references in ([scene, reference], [scene, reference.roll(1, 0)], [scene]):
            guess = noise - model(noise, torch.ones(len(noise)), no_text(len(noise)), references)
            errors.append(to_tokens((guess - target) ** 2).mean(-1)[touched].mean().item())
        print("  {}: right {:.3f}  wrong {:.3f}  none {:.3f}".format(name, *errors), flush=True)


def save(average: Mapping[str, Tensor], path: Path, options: argparse.Namespace, step: int) -> None:
    """Half-precision weights with what they are, as ComfyUI's loader reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "modelspec.title": "I2AM demo: reference inpainting of synthetic scenes",
        "modelspec.architecture": "flux-1, 128 wide, trained from scratch",
        "modelspec.license": "GPL-3.0-or-later",
        "i2am": json.dumps(
            {
                "seed": options.seed,
                "step": step,
                "steps": options.steps,
                "batch": options.batch,
                "training_seeds": [TRAINING_SEEDS.start, TRAINING_SEEDS.stop],
                "held_out_seeds": [HELD_OUT_SEEDS.start, HELD_OUT_SEEDS.stop],
            }
        ),
    }
    save_file({name: value.half().contiguous() for name, value in average.items()}, path, about)


def save_state(
    path: Path,
    model: DemoFlux,
    average: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    step: int,
) -> None:
    """Everything a resumed run needs; replaced whole, so an interruption leaves the old one."""
    state = {
        "model": model.state_dict(),
        "average": dict(average),
        "optimiser": optimiser.state_dict(),
        "step": step,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)


@torch.no_grad()
def prove(comfyui: Path) -> None:
    """Print how far this Flux and ComfyUI's differ at most, over random weights and inputs."""
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
