"""The demo model's figures on the help pages of Pick Best, Influence and the truth test.

    python -m tools.tasks.verdicts

Held-out scenes are sampled through ComfyUI and judged by the nodes' own functions. Each row is one
figure, with one value for each scene: their mean and its 95 % bootstrap interval, the standard
error, and the smallest, median and largest. The parts:

    pick       Pick Best: the error in the hole (mean squared) of the try that a score picks among
               eight, divided by the mean error of the eight. Below 1, picking helps; a perfect
               judge picks the try with the least error.
    influence  Reference Influence: the model's attention to the object's reference, inside the hole
               and outside, and how far attention's output would move without it; with the right
               object, another scene's, plain grey, and the scene once more; steered by Reference
               Strength. The colours are held against the tokens of the hole by their IoU.
    truth      Does the Map Tell the Truth?: the change inside the hole with a fifth of the
               reference muted, as a part of the full range: the fifth the map points at, and an
               equal part elsewhere.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tools.comfyui.in_process import import_comfyui, import_pack, names_of
from tools.demo.scenes import (
    EVERYTHING,
    HELD_OUT_SEEDS,
    HOLE_GREY,
    OBJECTS,
    PHOTOGRAPHS,
    PLAIN,
    Recipe,
    Scenes,
    make_scenes,
    token_coverage,
)
from tools.fidelity.errors import mean_square
from tools.fidelity.host import MODEL, OBJECT, SCENE, STEPS, Host, load, pack_names
from tools.fidelity.statistics import mean_of

TRIES = 8
SCORES = ("inside_generated", "imacs_reference", "imacs_generated")  # outputs of IMACS
STRENGTHS = (0.0, 0.05, 0.1, 0.25, 4.0)  # of Reference Strength; 0 mutes
TOP = 20.0  # percent of the reference in the top part
NODES = ("nodes.ask.imacs", "nodes.ask.truth", "nodes.act.pick", "nodes.act.strength")
Figures = dict[str, Tensor]  # (scenes,), under the name of each row


def pick(host: Host, scenes: Scenes, steps: int) -> Figures:
    """The error of the try picked by each score, divided by the mean of all tries."""
    latents = host.encoded(scenes)
    rows: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(len(scenes)):
        one = slice(number, number + 1)
        given = [latent[one] for latent in latents]
        latent, record = host.sample(given, TRIES, sampled=steps, branch="conditional")
        hole = scenes.hole[one]
        errors = mean_square(decoded(host, latent), scenes.target[one], hole)
        scores = scores_of(host, host.pack.Attribution(record), hole, scenes.object[one])
        scores["a perfect judge"] = (-errors).tolist()
        for name, values in scores.items():
            rows[name].append(picked(errors, host.pack.rank(values, "higher")[0]))
    return {name: torch.tensor(values) for name, values in rows.items()}


def picked(errors: Tensor, number: int) -> float:
    """The error of one try, divided by the mean of all tries (tries,)."""
    return float(errors[number] / errors.mean())


def scores_of(
    host: Host, attribution: Any, hole: Tensor, on_object: Tensor
) -> dict[str, list[float]]:
    """The scores of the node IMACS by their names there, one for each try."""
    outputs = host.pack.Imacs.execute(
        attribution, reference=1 + OBJECT, generated_mask=hole, reference_mask=on_object
    ).args
    names = [output.display_name for output in host.pack.Imacs.define_schema().outputs]
    return {name: outputs[names.index(name)] for name in SCORES}


def influence(host: Host, scenes: Scenes, steps: int) -> Figures:
    """Shares and effects of several references, shares under several strengths, and colours."""
    scene, reference = host.encoded(scenes)
    grey = host.vae.encode(torch.full_like(scenes.reference, HOLE_GREY))
    given = {
        "right object": reference,
        "another object": reference.roll(1, 0),
        "grey": grey,
        "the scene once more": scene,
    }
    rows: Figures = {}
    for name, latent in given.items():
        record = recorded(host, [scene, latent], steps, definitions="all")
        rows |= {f"{name}: {row}": values for row, values in shares(host, record, scenes).items()}
        rows |= {f"{name}: {row}": values for row, values in effects(host, record, scenes).items()}
        if latent is reference:
            rows |= {f"colours: {row}": v for row, v in colours(host, record, scenes).items()}
    for strength in STRENGTHS:
        record = recorded(strengthened(host, strength), [scene, reference], steps)
        found = host.pack.measure_influence(record, scenes.hole)
        rows[f"strength {strength:g}: share inside"] = found.inside[:, 2 + OBJECT]
    return rows


def recorded(host: Host, latents: list[Tensor], steps: int, **plan: Any) -> Any:
    """The recording of one sampling of all scenes."""
    count = len(latents[SCENE])
    return host.sample(latents, count, sampled=steps, branch="conditional", **plan)[1]


def strengthened(host: Host, strength: float, part: Tensor | None = None) -> Host:
    """The host with the node Reference Strength on the object's reference, or a part of it."""
    node = host.pack.ReferenceStrength
    steered = node.execute(host.model, 1 + OBJECT, strength, reference_mask=part).args[0]
    return replace(host, model=steered)


def shares(host: Host, record: Any, scenes: Scenes) -> Figures:
    """The object's reference's share of the attention, inside the hole and outside.

    Likewise for the places where it is strongest, which are chosen to be high.
    """
    pack = host.pack
    strongest = pack.strongest_places(record, OBJECT).float()
    rows: Figures = {}
    for part, mask in (("hole", scenes.hole), ("strongest places", strongest)):
        if not bool(mask.flatten(1).any(1).all()):
            continue  # a reference that is nowhere above its average
        found = pack.measure_influence(record, mask)
        inside, outside = found.inside[:, 2 + OBJECT], found.outside[:, 2 + OBJECT]
        rows[f"share, {part}"] = inside
        rows[f"share, outside the {part}"] = outside
        rows[f"times, {part} by rest"] = inside / outside
    return rows


def effects(host: Host, record: Any, scenes: Scenes) -> Figures:
    """How far attention's output would move without the object's reference."""
    change = host.pack.output_change
    return {
        "effect, hole": change(record, scenes.hole)[:, OBJECT],
        "effect, outside the hole": change(record, 1 - scenes.hole)[:, OBJECT],
        "effect, whole": change(record)[:, OBJECT],
    }


def colours(host: Host, record: Any, scenes: Scenes) -> Figures:
    """IoU of the places in a reference's colour with the tokens where it belongs.

    Touched are the tokens with any of the hole, covered those with at least half of it.
    """
    covered = token_coverage(scenes.hole)
    touched, half = covered > 0, covered >= 0.5
    rows: Figures = {}
    for by in host.pack.ColorBy:
        coloured = host.pack.strength_maps(record, by).argmax(1).flatten(1)
        on_object, on_scene = coloured == 1 + OBJECT, coloured == 1 + SCENE
        rows[f"{by.value}, object, touched"] = iou(on_object, touched)
        rows[f"{by.value}, object, covered"] = iou(on_object, half)
        rows[f"{by.value}, scene, not touched"] = iou(on_scene, ~touched)
    return rows


def iou(found: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of places, bool: (B, places) twice to (B,)."""
    return (found & truth).sum(1) / (found | truth).sum(1)


def truth(host: Host, scenes: Scenes, steps: int) -> Figures:
    """The node's ratio and its two changes, scene by scene, since a part is of one scene."""
    pack, latents = host.pack, host.encoded(scenes)
    rows: defaultdict[str, list[float]] = defaultdict(list)
    for number in range(len(scenes)):
        one = slice(number, number + 1)
        given, hole = [latent[one] for latent in latents], scenes.hole[one]
        latent, record = host.sample(given, 1, sampled=steps, branch="conditional")
        plain, attribution = decoded(host, latent), pack.Attribution(record)
        parts = pack.TopPart.execute(attribution, 1 + OBJECT, TOP, region=hole).args
        without = [strengthened(host, 0.0, part) for part in parts]
        muted = [decoded(host, one.sample(given, 1, sampled=steps)[0]) for one in without]
        top, elsewhere = (pack.mean_change(plain, other, hole) for other in muted)
        rows["change without the top part"].append(top)
        rows["change without an equal part elsewhere"].append(elsewhere)
        rows["ratio"].append(pack.TruthTest.execute(plain, *muted, hole).args[0])
    return {name: torch.tensor(values) for name, values in rows.items()}


def decoded(host: Host, latent: Tensor) -> Tensor:
    """The pictures, (B, H, W, 3)."""
    return host.vae.decode(latent).clamp(0, 1)


@dataclass(frozen=True)
class Part:
    """Figures of one help page: how they are made, and by default of what, in how many steps."""

    measure: Callable[[Host, Scenes, int], Figures]
    scenes: int
    steps: int  # as in the example workflow of the node
    recipes: tuple[Recipe, ...]


PARTS = {
    "pick": Part(pick, 24, 4, (PLAIN, OBJECTS, EVERYTHING)),
    "influence": Part(influence, 16, STEPS, (PLAIN, PHOTOGRAPHS, EVERYTHING)),
    "truth": Part(truth, 12, STEPS, (PLAIN,)),
}
COLUMNS = (
    f"{'mean':>8}",
    f"{'95 % interval':19}",
    f"{'error':>8}",
    "      min    median       max",
)
HEAD = f"  {'':52} " + "  ".join(COLUMNS)


def line(name: str, values: Tensor) -> str:
    """A row of the table: what the scenes' values (scenes,) are on the whole."""
    mean = mean_of(values)
    error = float(values.double().std() / len(values) ** 0.5)
    ends = (float(value) for value in (values.min(), values.quantile(0.5), values.max()))
    low, median, high = (f"{value:9.4g}" for value in ends)
    interval = f"{mean.low:8.4g} … {mean.high:8.4g}"
    return f"  {name:52} {mean.value:8.4g}  {interval}  {error:8.2g}  {low} {median} {high}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--scenes", type=int, help="of each recipe; by default as on the pages")
    parser.add_argument("--steps", type=int, help="of the sampler; by default as in the workflows")
    parser.add_argument("--model", type=Path, default=MODEL, help="another file of the demo model")
    options = parser.parse_args()
    torch.set_num_threads(1)  # tensors this small only wait for a second one
    import_comfyui()
    package = import_pack().__name__
    pack = pack_names(package)
    vars(pack).update(vars(names_of(package, *NODES)))
    with torch.inference_mode():
        host = load(pack, options.model)
        for name in options.parts:
            part = PARTS[name]
            count, steps = options.scenes or part.scenes, options.steps or part.steps
            for recipe in part.recipes:
                start = time.monotonic()
                scenes = make_scenes(count, HELD_OUT_SEEDS.start, recipe=recipe)
                figures = part.measure(host, scenes, steps)
                taken = f"{steps} steps, {time.monotonic() - start:.0f} s"
                print(f"{name}: {count} held-out scenes, {recipe.name}, {taken}\n{HEAD}")
                print("\n".join(line(*row) for row in figures.items()), flush=True)


if __name__ == "__main__":
    main()
