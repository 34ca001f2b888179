"""Does the result change where the map says so? References occluded, models and references swapped.

An occluded cell of the reference is either muted, so that no token can attend to it, or painted
grey. The change of the result is the mean squared difference of its latent from the latent with the
whole reference. Everything else, including the noise, stays the same.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from tools.demo.flux import DemoFlux
from tools.demo.scenes import HOLE_GREY, TOKEN, Scenes, token_coverage
from tools.fidelity.host import MODEL, OBJECT, Host, load
from tools.fidelity.report import Series, Table
from tools.fidelity.statistics import (
    Estimate,
    area_under,
    mass,
    mean_of,
    pearson,
    spearman,
)

EFFECT = "effect, all layers"
STEPS = 4  # the demo model is as good in four as in twenty
CHUNK = 2  # scenes occluded at once, each with 64 cells
KEPT = (0, 4, 8, 16, 32, 64)  # cells muted or left, points of the curves
RANDOM_ORDERS = 3
DRAWN = (  # the curves in the plots; the table has all of them
    *("model, all layers (default)", "model, all layers, from the hole", "model, last layer"),
    EFFECT,
    *("paper, all layers", "paper, all layers, from the hole", "centre prior", "edges"),
    *("unusual colour", "likeness to the result", "the true object", "random"),
)


class Occluded:
    """Scenes sampled with any cells of their references muted or grey."""

    def __init__(self, host: Host, scenes: Scenes) -> None:
        self.host, self.scenes = host, scenes
        self.latents = host.encoded(scenes)
        self.latent, self.recording = host.sample(
            self.latents, len(scenes), sampled=STEPS, branch="conditional", definitions="all"
        )
        self.tokens = scenes.grid[0] * scenes.grid[1]

    def changes(self, muted: Tensor, grey: bool = False) -> Tensor:
        """How the result changes: (scenes, variants, cells) bool to (scenes, variants, cells)."""
        return torch.cat(
            [
                self._changes(start, muted[start : start + CHUNK], grey)
                for start in range(0, len(muted), CHUNK)
            ]
        )

    def each_alone(self, grey: bool = False) -> Tensor:
        """How the result changes when one cell is taken away: (scenes, cells of the reference,
        cells of the result)."""
        alone = torch.eye(self.tokens, dtype=torch.bool)
        return self.changes(alone.expand(len(self.scenes), -1, -1), grey)

    def _changes(self, start: int, muted: Tensor, grey: bool) -> Tensor:
        count, variants, _ = muted.shape
        batch = slice(start, start + count)
        latents = [latent[batch].repeat_interleave(variants, 0) for latent in self.latents]
        if grey:
            latents[OBJECT] = self.host.vae.encode(self._painted(batch, muted))
        latent, _ = self.host.sample(
            latents,
            count * variants,
            sampled=STEPS,
            copies=variants,
            first=start,
            muted=None if grey else muted.flatten(0, 1),
        )
        unchanged = self.latent[batch].repeat_interleave(variants, 0)
        error = F.avg_pool2d(((latent - unchanged) ** 2).mean(1, keepdim=True), 2)
        return error.reshape(count, variants, self.tokens)

    def _painted(self, batch: slice, muted: Tensor) -> Tensor:
        """The references with those cells grey: (scenes × variants, H, W, 3)."""
        down, across = self.scenes.grid
        where = muted.reshape(-1, 1, down, across).float()
        where = F.interpolate(where, scale_factor=TOKEN).movedim(1, -1)
        pictures = self.scenes.reference[batch].repeat_interleave(muted.shape[1], 0)
        return torch.lerp(pictures, torch.full_like(pictures, HOLE_GREY), where)


def maps_over_reference(host: Host, scenes: Scenes, recording: Any) -> dict[str, Tensor]:
    """The pack's maps to be tested, each (scenes, cells): definitions, layers, their weights, parts
    of the sampling, and the whole result or the hole alone."""
    pack = host.pack

    def g2r(definition: Any, within: Tensor | None = None, **choice: Any) -> Tensor:
        found = pack.attribution_map(
            recording,
            definition,
            pack.Direction.GENERATED_TO_REFERENCE,
            reference=OBJECT,
            selection=pack.Selection(**choice),
            within=within,
        )
        return found.values.flatten(1)

    maps: dict[str, Tensor] = {}
    for definition in pack.Definition:
        name, default = definition.value, definition is pack.Definition.MODEL
        maps[f"{name}, all layers{' (default)' if default else ''}"] = g2r(definition)
        maps[f"{name}, all layers, from the hole"] = g2r(definition, within=scenes.hole)
        equal = g2r(definition, weight=pack.LayerWeight.EQUAL)
        maps[f"{name}, layers weighted equally"] = equal
        for number, layer in enumerate(host.layers):
            layer = "last layer" if number == host.last else f"{layer} alone"
            maps[f"{name}, {layer}"] = g2r(definition, layers=str(number))
        for when, step in (("first", 0), ("last", STEPS - 1)):
            maps[f"{name}, {when} step"] = g2r(definition, steps=str(step))
    return maps


def baselines(reference: Tensor, result: Tensor) -> dict[str, Tensor]:
    """Guesses made without looking into the model, each (pictures, cells of the reference).

    reference, result: the pictures (B, H, W, 3) that the model is given and has made.
    """
    down, across = reference.shape[1] // TOKEN, reference.shape[2] // TOKEN
    rows = (torch.arange(down) + 0.5) / down - 0.5
    columns = (torch.arange(across) + 0.5) / across - 0.5
    centre = torch.exp(-(rows[:, None] ** 2 + columns[None] ** 2) / (2 * 0.25**2)).flatten()
    picture = reference.movedim(-1, 1)
    luma = picture.mean(1, keepdim=True)
    edges = (luma - luma.roll(1, 2)).abs() + (luma - luma.roll(1, 3)).abs()
    unusual = (picture - picture.mean((2, 3), keepdim=True)).square().sum(1, keepdim=True).sqrt()
    patches = F.unfold(picture, TOKEN, stride=TOKEN).mT
    made = F.unfold(result.movedim(-1, 1), TOKEN, stride=TOKEN).mT
    return {
        "centre prior": centre.expand(len(reference), -1),
        "edges": F.avg_pool2d(edges, TOKEN).flatten(1),
        "unusual colour": F.avg_pool2d(unusual, TOKEN).flatten(1),
        "likeness to the result": -torch.cdist(patches, made).amin(-1),
    }


def squared(guesses: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same guesses squared, from their lowest value: the change is a square, too."""
    return {
        f"{name}, squared": (guess - guess.amin(1, keepdim=True)).square()
        for name, guess in guesses.items()
    }


def occlusion(host: Host, scenes: Scenes) -> tuple[list[Table], dict[str, float]]:
    """Each cell of the reference taken away alone: the maps against the change of the result."""
    pack, occluded = host.pack, Occluded(host, scenes)
    muted, grey = occluded.each_alone(), occluded.each_alone(grey=True)
    guesses = maps_over_reference(host, scenes, occluded.recording)
    outside = baselines(scenes.reference, host.vae.decode(occluded.latent).clamp(0, 1))
    outside |= squared(outside)
    rows: list[tuple[str, ...]] = []
    figures: dict[str, float] = {}
    for name, guess in (guesses | outside).items():
        found: list[Estimate] = []
        for change in (muted.mean(-1), grey.mean(-1)):
            found += [mean_of(pearson(guess, change)), mean_of(spearman(guess, change))]
        rows.append((name, *map(str, found)))
        if "default" in name:
            figures = {
                "occlusion_corr": found[0].value,
                "occlusion_rank_corr": found[1].value,
                "occlusion_corr_grey": found[2].value,
                "occlusion_rank_corr_grey": found[3].value,
            }
    columns = ("map or guess", "muted, r", "muted, ρ", "greyed, r", "greyed, ρ")
    note = f"{len(scenes)} scenes × {occluded.tokens} cells; means over scenes."
    tables = [Table("occlusion", columns, rows, note)]

    rows = []
    for definition in pack.Definition:
        pairs = pack.correspondence_of(occluded.recording, definition, OBJECT).values.flatten(1)
        found = []
        for change in (muted, grey):
            change = change.mT.flatten(1)  # result cells first
            found += [mean_of(pearson(pairs, change))]
        rows.append((f"{definition.value}: which cell made which place", *map(str, found)))
    every = torch.ones(len(scenes), 1, occluded.tokens, dtype=torch.bool)
    lost = occluded.changes(every).squeeze(1), occluded.changes(every, grey=True).squeeze(1)
    for definition in pack.Definition:
        r2g = pack.attribution_map(
            occluded.recording,
            definition,
            pack.Direction.REFERENCE_TO_GENERATED,
            reference=OBJECT,
        ).values.flatten(1)
        found = [mean_of(pearson(r2g, change)) for change in lost]
        rows.append((f"{definition.value}: where the reference was used", *map(str, found)))
    columns = ("map", "muted, r", "greyed, r")
    tables.append(Table("occlusion-pairs", columns, rows, f"{len(scenes)} scenes."))
    return tables, figures


def effect_and_guess(host: Host, scenes: Scenes) -> tuple[float, float]:
    """Pearson with the change from muting each cell: of the effect's map over the reference, and of
    the best guess that never looks into the model."""
    occluded = Occluded(host, scenes)
    change = occluded.each_alone().mean(-1)
    effect = maps_over_reference(host, scenes, occluded.recording)[EFFECT]
    guesses = baselines(scenes.reference, host.vae.decode(occluded.latent).clamp(0, 1))
    guesses |= squared(guesses)
    found = [mean_of(pearson(guess, change)).value for guess in guesses.values()]
    return mean_of(pearson(effect, change)).value, max(found)


def curves(host: Host, scenes: Scenes) -> tuple[Table, list[Series], list[Series]]:
    """Deletion and insertion: cells muted, or given back, from the highest of each map down."""
    occluded = Occluded(host, scenes)
    guesses = maps_over_reference(host, scenes, occluded.recording)
    guesses |= baselines(scenes.reference, host.vae.decode(occluded.latent).clamp(0, 1))
    guesses["the true object"] = token_coverage(scenes.object)
    random = torch.Generator().manual_seed(0)
    orders = {name: [guess] for name, guess in guesses.items()}
    shape = (len(scenes), occluded.tokens)
    orders["random"] = [torch.rand(shape, generator=random) for _ in range(RANDOM_ORDERS)]

    rows: list[tuple[str, ...]] = []
    deletion: list[Series] = []
    insertion: list[Series] = []
    parts = torch.tensor(KEPT) / occluded.tokens
    for name, repeats in orders.items():
        lines: list[Tensor] = []
        for guess in repeats:
            rank = guess.argsort(1, descending=True).argsort(1)
            counts = torch.tensor(KEPT)[None, :, None]
            muted = rank.unsqueeze(1) < counts
            lines.append(
                torch.stack([occluded.changes(kind).mean(-1) for kind in (muted, ~muted)], 1)
            )
        line = torch.stack(lines).mean(0)  # (scenes, 2, points)
        line = line / line[:, :1, -1:]  # everything muted: 1
        areas = area_under(parts, line)
        rows.append((name, str(mean_of(areas[:, 0])), str(mean_of(areas[:, 1]))))
        if name not in DRAWN:
            continue
        for kept, which in ((deletion, 0), (insertion, 1)):
            mean = line[:, which].mean(0)
            kept.append(Series(name, list(zip(parts.tolist(), mean.tolist(), strict=True))))
    columns = ("order of the cells", "deletion, higher is better", "insertion, lower is better")
    note = f"{len(scenes)} scenes. Random: mean of {RANDOM_ORDERS} orders per scene."
    return Table("curves", columns, rows, note), deletion, insertion


def sanity(host: Host, scenes: Scenes) -> list[Table]:
    """Maps with the model's blocks made random one by one, and with another reference: by the
    model's definition, and by the effect's."""
    occluded = Occluded(host, scenes)
    on_object = (token_coverage(scenes.object) > 0).float()
    changes: list[tuple[str, Any, Tensor]] = [("nothing changed", occluded.recording, on_object)]
    with tempfile.TemporaryDirectory() as folder:
        for change, recording in _randomised(host, occluded, Path(folder)):
            changes.append((change, recording, on_object))
    other = [occluded.latents[0], occluded.latents[1].roll(1, 0)]
    _, recording = host.sample(other, len(scenes), sampled=STEPS, definitions="all")
    on_its_own = on_object.roll(1, 0)
    changes += [
        ("another scene's reference; mass on its object", recording, on_its_own),
        ("another scene's reference; mass on the original object", recording, on_object),
    ]
    columns = ("change", "G2R, r", "R2G, r", "G2R, ρ", "R2G, ρ", "G2R mass on the object")
    tables: list[Table] = []
    for table, definition in (("sanity", "model"), ("sanity-effect", "effect")):
        first = _both(host, occluded.recording, definition)
        rows: list[tuple[str, ...]] = []
        for change, recording, on in changes:
            maps = _both(host, recording, definition)
            found = [mean_of(pearson(new, old)) for new, old in zip(maps, first, strict=True)]
            found += [mean_of(spearman(new, old)) for new, old in zip(maps, first, strict=True)]
            rows.append((change, *map(str, found), str(mean_of(mass(maps[0], on)))))
        even = float(on_object.mean())
        note = f"{len(scenes)} scenes; {definition} definition; an even map has {even:.2f} on the "
        tables.append(Table(table, columns, rows, note + "object."))
    return tables


def _both(host: Host, recording: Any, definition: str) -> list[Tensor]:
    """The maps of all layers, over the reference and over the result."""
    pack = host.pack
    directions = (pack.Direction.GENERATED_TO_REFERENCE, pack.Direction.REFERENCE_TO_GENERATED)
    return [
        pack.attribution_map(
            recording, pack.Definition(definition), direction, reference=OBJECT
        ).values.flatten(1)
        for direction in directions
    ]


def _randomised(host: Host, occluded: Occluded, folder: Path) -> list[tuple[str, Any]]:
    """Recordings of the model with more and more blocks, from the output backwards, at the weights
    of before training."""
    torch.manual_seed(0)
    trained = load_file(MODEL)
    fresh = DemoFlux.like(trained).state_dict()
    backwards = host.layers[::-1]
    changes = [
        (f"random from {name} on", mixed(trained, fresh, backwards[: number + 1]))
        for number, name in enumerate(backwards)
    ]
    changes.append(("everything random", {name: fresh[name].half() for name in trained}))
    recordings: list[tuple[str, Any]] = []
    for name, weights in changes:
        path = folder / f"{name}.safetensors"
        save_file(weights, path)
        _, recording = load(host.pack, path).sample(
            occluded.latents, len(occluded.scenes), sampled=STEPS, definitions="all"
        )
        recordings.append((name, recording))
    return recordings


def mixed(
    trained: Mapping[str, Tensor], fresh: Mapping[str, Tensor], layers: Sequence[str]
) -> dict[str, Tensor]:
    """Trained weights, but fresh ones in the blocks of these layers."""
    blocks = tuple("{}_blocks.{}.".format(*layer.split()) for layer in layers)
    return {
        name: fresh[name].to(value).contiguous() if name.startswith(blocks) else value
        for name, value in trained.items()
    }
