"""How the demo models are trained: the loop, its options, and the files it keeps.

Lengths are in steps, so a busy machine only takes longer. The saved weights are the running average
in half precision; the metadata holds all stages of the training.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tools.demo.scenes import HELD_OUT_SEEDS, TRAINING_SEEDS

WARM_UP = 100  # steps
EMA_DECAY = 0.998
AVERAGED_LOSSES = 50  # steps a reported loss is the mean of
SEEDS_PER_RUN = 1_000_000  # training scenes set aside for each value of --seed


@dataclass(frozen=True)
class Task:
    """What is learned: a model, where its scenes come from, and its loss."""

    title: str
    architecture: str
    model: nn.Module
    batch: Mapping[str, int]  # how many scenes of which kind are in a batch
    draw: Callable[[int], Any]  # seed of the first scene of a batch to the batch
    loss: Callable[[nn.Module, Any, torch.Generator], Tensor]
    report: Callable[[nn.Module], None]  # prints what the model does on held-out scenes


def training_options(description: str | None, steps: int, rate: float) -> argparse.ArgumentParser:
    """The options all trainings have; `steps` and `rate` are the defaults."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=steps, help="length of the schedule")
    parser.add_argument("--stop-at", type=int, help="end early; the schedule stays that of --steps")
    parser.add_argument("--rate", type=float, default=rate, help="peak learning rate")
    parser.add_argument("--muon", action="store_true", help="Muon for the blocks' matrices")
    parser.add_argument("--seed", type=int, default=0, choices=range(10))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--output", type=Path, help="the weights; the pack's own by default")
    parser.add_argument("--checkpoints", type=Path, help="folder for the weights along the way")
    parser.add_argument("--every", type=int, default=100, help="steps between those")
    parser.add_argument("--state", type=Path, help="file to resume from, and to keep up to date")
    parser.add_argument(
        "--start-from", type=Path, help="state or safetensors whose weights to begin with"
    )
    return parser


def train(task: Task, options: argparse.Namespace) -> None:
    """The whole run: draw, predict, step; save at the end and along the way."""
    model = task.model
    optimisers = optimisers_of(model, options.rate, options.muon)
    first, earlier = 0, []
    losses = deque[float](maxlen=AVERAGED_LOSSES)
    if options.start_from:
        weights, earlier = begin_with(options.start_from)
        model.load_state_dict(weights)
    average = {name: value.detach().clone() for name, value in model.named_parameters()}
    if options.state and options.state.exists():
        state = torch.load(options.state, weights_only=True)
        model.load_state_dict(state["model"])
        for optimiser, kept in zip(optimisers, state["optimisers"], strict=True):
            optimiser.load_state_dict(kept)
        average, first, earlier = state["average"], state["step"], state["stages"][:-1]
        losses.extend(state["losses"])

    def stages(step: int) -> list[dict[str, Any]]:
        stage = {"seed": options.seed, "batch": dict(task.batch), "steps": step}
        stage |= {"schedule": options.steps, "rate": options.rate, "loss": round(loss_now(), 4)}
        return [*earlier, stage | ({"optimiser": "muon"} if options.muon else {})]

    def loss_now() -> float:
        return sum(losses) / len(losses)

    def keep(path: Path, step: int) -> None:
        save(average, path, task.title, task.architecture, stages(step))

    scenes_a_batch = sum(task.batch.values())
    start = TRAINING_SEEDS.start + options.seed * SEEDS_PER_RUN
    last = options.stop_at or options.steps
    started = time.perf_counter()
    artist = ThreadPoolExecutor(max_workers=1)  # draws the next batch while this one is learned
    upcoming = artist.submit(task.draw, start + first * scenes_a_batch)
    for step in range(first, last):
        for group in (group for optimiser in optimisers for group in optimiser.param_groups):
            group["lr"] = options.rate * schedule(step, options.steps)
        scenes = upcoming.result()
        upcoming = artist.submit(task.draw, start + (step + 1) * scenes_a_batch)
        random = torch.Generator().manual_seed(options.seed << 32 | step)
        loss = task.loss(model, scenes, random)
        for optimiser in optimisers:
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        decay = min(EMA_DECAY, (step + 1) / (step + 10))
        torch._foreach_lerp_(
            list(average.values()), [p.detach() for p in model.parameters()], 1 - decay
        )
        losses.append(loss.item())

        done = step + 1
        if done % AVERAGED_LOSSES == 0 or done == last:
            seconds = time.perf_counter() - started
            print(f"step {done}  loss {loss_now():.4f}  {seconds:.0f} s", flush=True)
        if done % 250 == 0 or done == last:
            averaged = copy.deepcopy(model)
            averaged.load_state_dict(average)
            with torch.no_grad():
                task.report(averaged)
            if options.state:
                save_state(options.state, model, average, optimisers, losses, stages(done))
        if options.checkpoints and (done % options.every == 0 or done == last):
            keep(options.checkpoints / f"step_{done:05d}.safetensors", done)
    artist.shutdown(cancel_futures=True)
    keep(options.output, last)


def optimisers_of(model: nn.Module, rate: float, muon: bool) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or all but what Muon (Jordan et al. 2024) is for: the matrices inside
    the blocks, less those that read the time."""
    for_muon = {
        name: parameter
        for name, parameter in model.named_parameters()
        if muon and parameter.ndim == 2 and "blocks" in name and "mod" not in name
    }
    others = [value for name, value in model.named_parameters() if name not in for_muon]
    adam = torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    if not muon:
        return [adam]
    matched = {"adjust_lr_fn": "match_rms_adamw", "weight_decay": 0.01}  # one rate for both
    return [torch.optim.Muon(for_muon.values(), lr=rate, **matched), adam]


def schedule(step: int, steps: int) -> float:
    """Share of the learning rate: warm-up, level for half the run, cosine down to 2 %."""
    if step < WARM_UP:
        return (step + 1) / WARM_UP
    through = min(max(step / steps - 0.5, 0.0) / 0.5, 1.0)
    return 0.02 + 0.98 * (1 + math.cos(math.pi * through)) / 2


def flow_times(batch: int, random: torch.Generator) -> Tensor:
    """Times of flow matching, (batch,), 1 is noise: half of them where the content is decided, the
    others anywhere."""
    t = torch.rand(batch, generator=random)
    t[batch // 2 :] = 0.6 + 0.4 * t[batch // 2 :]
    return t[torch.randperm(batch, generator=random)]


def begin_with(path: Path) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Weights to go on from, and the stages of training behind them."""
    if path.suffix != ".safetensors":
        state = torch.load(path, weights_only=True)
        return state["average"], state["stages"]
    with safe_open(path, framework="pt") as file:
        about = json.loads((file.metadata() or {}).get("i2am", "{}"))
    weights = {name: value.float() for name, value in load_file(path).items()}
    return weights, about.get("stages", [])


def save(
    weights: Mapping[str, Tensor],
    path: Path,
    title: str,
    architecture: str,
    stages: list[dict[str, Any]],
) -> None:
    """Half-precision weights with what they are, as ComfyUI's loader reads them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "modelspec.title": title,
        "modelspec.architecture": architecture,
        "modelspec.license": "GPL-3.0-or-later",
        "i2am": json.dumps(
            {
                "training_seeds": [TRAINING_SEEDS.start, TRAINING_SEEDS.stop],
                "held_out_seeds": [HELD_OUT_SEEDS.start, HELD_OUT_SEEDS.stop],
                "stages": stages,
            }
        ),
    }
    save_file({name: value.half().contiguous() for name, value in weights.items()}, path, about)


def save_state(
    path: Path,
    model: nn.Module,
    average: Mapping[str, Tensor],
    optimisers: Sequence[torch.optim.Optimizer],
    losses: Sequence[float],
    stages: list[dict[str, Any]],
) -> None:
    """Everything a resumed run needs; replaced whole, so an interruption leaves the old one."""
    state = {
        "model": model.state_dict(),
        "average": dict(average),
        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
        "losses": list(losses),
        "step": stages[-1]["steps"],
        "stages": stages,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path.with_suffix(".new"))
    path.with_suffix(".new").replace(path)
