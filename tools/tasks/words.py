"""Which word won? Do word maps point at what the word became, on the word model.

    python -m tools.tasks.words

The model fills two boxes of a picture, one with what the prompt names and the other with a second
thing in words or with an object that only a reference shows. Two things in words have colours and
shapes that training never had together, in neither pairing; pictures and noise have seeds of their
own.

The map of a word is DAAM's quantity: the softmax over the whole context, its share on the word's
token, averaged over heads, layers and steps, and enlarged to the picture. It is computed here from
the attention layers' own projections, by hooks, and owes nothing to the pack's capture, which is
held against it. The map of the reference is the share of all its tokens.

The pointing game asks whether a map's highest value is in the box that shows the word, its colour
or its shape. The finished picture tells which box that is: if colours and shapes were paired
wrongly, a word's map still belongs to the box that the word went to. How often pairs are right is a
figure of its own. A word that no box shows counts as missed.
"""

from __future__ import annotations

import argparse
import importlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor, nn

from tools.comfyui.in_process import import_comfyui, import_pack
from tools.demo.scenes import HELD_OUT_SEEDS
from tools.demo.words import (
    COLOURS,
    SHAPES,
    SIZE,
    Box,
    Thing,
    WordScenes,
    draw_word_scenes,
    silhouette,
    words_of,
)
from tools.tasks.recorded_sampling import (
    STEPS,
    Conditions,
    Pack,
    interval,
    save_rows,
)

FIRST_SEED = HELD_OUT_SEEDS.start + 8000
GUIDANCE = 2.0  # cfg
GRID = (8, 8)  # tokens of the attention layers, down and across
TEXT = 77  # tokens of a text; the reference's are behind them
COLOURED = 0.2  # smallest spread of a pixel's channels that is no grey
SMALLEST = 250  # pixels of a thing
MATCHED = 48  # pixels along the side on which silhouettes are compared


@dataclass(frozen=True)
class Found:
    """What a box was filled with."""

    colour: str  # of most of what is coloured
    purity: float  # how much of that has this colour, 0 to 1
    shape: str  # the silhouette closest to it
    box: tuple[slice, slice]  # rows and columns


class WordShares:
    """Watches the cross-attention of a UNet: the share of each context token at each place.

    It watches as long as its context lasts. `mean()` is then the attention of the positive prompt,
    averaged over heads, layers and steps.
    """

    def __init__(self, unet: nn.Module, grid: tuple[int, int]) -> None:
        self.unet, self.grid = unet, grid
        self._sum: Any = 0
        self._layers = 0
        self._positive: list[bool] = []
        self._handles: list[Any] = []

    def __enter__(self) -> WordShares:
        self._handles = [self.unet.register_forward_pre_hook(self._begin, with_kwargs=True)]
        for module in self.unet.modules():
            if hasattr(module, "attn2"):
                attention: Any = module.attn2
                queries: list[Tensor] = []
                self._handles += [
                    attention.to_q.register_forward_hook(partial(_keep, queries)),
                    attention.to_k.register_forward_hook(
                        partial(self._add, queries, attention.heads)
                    ),
                ]
        return self

    def __exit__(self, *error: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, _module: nn.Module, _inputs: Any, options: dict[str, Any]) -> None:
        self._positive = [kind == 0 for kind in options["transformer_options"]["cond_or_uncond"]]

    def _add(
        self, queries: list[Tensor], heads: int, _module: nn.Module, _inputs: Any, keys: Tensor
    ) -> None:
        q, k = (
            part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in (queries.pop(), keys)
        )  # (parts * B, heads, tokens, width)
        shares = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1).mean(1)
        for positive, part in zip(self._positive, shares.chunk(len(self._positive)), strict=True):
            if positive:
                self._sum = self._sum + part.unflatten(1, self.grid)
                self._layers += 1

    def mean(self) -> Tensor:
        """(B, tokens, rows, columns)."""
        return (self._sum / self._layers).movedim(-1, 1)


def _keep(queries: list[Tensor], _module: nn.Module, _inputs: Any, output: Tensor) -> None:
    queries.append(output)


@dataclass(frozen=True)
class Painted:
    """Scenes as the model painted them, and where each token had its share."""

    scenes: WordScenes
    pictures: Tensor  # (B, H, W, 3)
    shares: dict[int, Tensor]  # of each picture: (tokens, rows, columns)
    off: dict[int, float]  # how far the pack's capture is from them, at most

    def found(self, number: int) -> list[Found]:
        return find_things(self.pictures[number].numpy(), self.scenes.boxes[number])

    def word_map(self, number: int, word: str) -> Tensor:
        """(H, W)."""
        place = 1 + words_of(self.scenes.prompts[number]).index(word)  # behind the start token
        return self._enlarged(self.shares[number][place])

    def reference_map(self, number: int) -> Tensor:
        """(H, W)."""
        return self._enlarged(self.shares[number][TEXT:].sum(0))

    def _enlarged(self, share: Tensor) -> Tensor:
        size = (self.pictures.shape[1], self.pictures.shape[2])
        return F.interpolate(share[None, None], size=size, mode="bicubic")[0, 0]


def find_things(picture: np.ndarray, boxes: Sequence[Box]) -> list[Found]:
    """What is in some boxes of a picture (H, W, 3), 0 to 1; nothing where all is grey."""
    palette = np.array(list(COLOURS.values()))
    found = []
    for left, top, width, height in boxes:
        box = np.s_[top : top + height, left : left + width]
        inside = _coloured(picture[box])
        if inside.sum() < SMALLEST:
            continue
        nearest = ((picture[box][inside][:, None] - palette) ** 2).sum(-1).argmin(-1)
        counts = np.bincount(nearest)
        colour, purity = tuple(COLOURS)[counts.argmax()], counts.max() / counts.sum()
        found.append(Found(colour, float(purity), closest_shape(inside), box))
    return found


def _coloured(picture: np.ndarray) -> np.ndarray:
    """The largest connected part that is no grey."""
    labelled: Any = ndimage.label(picture.max(-1) - picture.min(-1) > COLOURED)
    parts: np.ndarray = labelled[0]
    sizes = np.bincount(parts.flat)
    sizes[0] = 0
    return (parts == sizes.argmax()) & (parts > 0)


def closest_shape(inside: np.ndarray) -> str:
    """The shape whose silhouette covers a mask best, both cropped to what they cover."""
    mask = _matched(inside[ndimage.find_objects(inside.astype(int))[0]])
    overlaps = {
        shape: float(torch.minimum(mask, other).sum() / torch.maximum(mask, other).sum())
        for shape, other in _silhouettes().items()
    }
    return max(overlaps, key=lambda shape: overlaps[shape])


@cache
def _silhouettes() -> dict[str, Tensor]:
    drawn = {shape: silhouette(shape, SIZE, SIZE).numpy() > 0.5 for shape in SHAPES}
    return {
        shape: _matched(mask[ndimage.find_objects(mask.astype(int))[0]])
        for shape, mask in drawn.items()
    }


def _matched(mask: np.ndarray) -> Tensor:
    size = (MATCHED, MATCHED)
    return F.interpolate(torch.tensor(mask)[None, None].float(), size=size, mode="area")[0, 0]


class WordModel:
    """The model and its sampling."""

    def __init__(self, pack: Pack, path: Path | None = None) -> None:
        self.pack = pack
        words = pack.module("nodes.prepare.words")
        self.model, self.clip = words.load_word_model(path or words.WORD_MODEL)
        self.reference_tokens = pack.module("nodes.prepare.demo").ReferenceTokens

    def encoded(self, prompt: str) -> Any:
        return self.clip.encode_from_tokens_scheduled(self.clip.tokenize(prompt))

    def paint(self, scenes: WordScenes, cfg: float = GUIDANCE, steps: int = STEPS) -> Painted:
        """All scenes, those without a reference and those with one apart."""
        pictures = torch.empty_like(scenes.target)
        shares: dict[int, Tensor] = {}
        off: dict[int, float] = {}
        for shown in sorted(set(scenes.shown.tolist())):
            numbers = torch.nonzero(scenes.shown == shown).flatten()
            conditions = self._conditions(scenes, numbers, shown)
            with WordShares(self.model.model.diffusion_model, GRID) as watch:
                latent, record = self.pack.record(
                    self.model, conditions, steps, cfg, words=True, definitions="both"
                )
            pictures[numbers] = self.pack.decode(latent)
            own = watch.mean()
            captured = self.pack.module("i2am.maps").token_maps(record)[:, :TEXT]
            differences = (captured - own[:, :TEXT]).abs().amax((1, 2, 3))
            shares |= dict(zip(numbers.tolist(), own, strict=True))
            off |= dict(zip(numbers.tolist(), differences.tolist(), strict=True))
        return Painted(scenes, pictures, shares, off)

    def _conditions(self, scenes: WordScenes, numbers: Tensor, shown: bool) -> Conditions:
        """As the stock nodes make them, with the texts of the pictures as one batch."""
        nodes: Any = importlib.import_module("nodes")  # ComfyUI's: its folder comes first
        texts = torch.cat([self.encoded(scenes.prompts[n])[0][0] for n in numbers.tolist()])
        positive: list[Any] = [[texts, {}]]
        if shown:
            reference = scenes.reference[numbers]
            positive = self.reference_tokens.execute(reference, self.pack.vae, positive).args[0]
        positive, negative, latent = nodes.InpaintModelConditioning().encode(
            positive,
            self.encoded(""),
            scenes.scene[numbers],
            self.pack.vae,
            scenes.box_mask[numbers],
            noise_mask=False,
        )
        return Conditions(positive, negative, latent["samples"])


def measure(painted: Painted) -> dict[str, list[float]]:
    """The values of each row of the table, one for each word, thing, object or picture."""
    rows: dict[str, list[float]] = defaultdict(list)
    for number, things in enumerate(painted.scenes.things):
        found = painted.found(number)
        for thing in things:
            _score_thing(rows, painted, number, thing, found)
        rows["capture: largest difference"].append(painted.off[number])
        painted_things = {(one.colour, one.shape) for one in found}
        rows["obeyed: all things of a picture"].append(painted_things >= set(things))
        if painted.scenes.shown[number]:
            (thing,) = things
            place = _place(found, thing[0], thing[1])
            others = [one for one in found if one is not place]
            _score_shown(rows, painted, number, others[0] if len(others) == 1 else None, place)
    return rows


def points_at(values: Tensor, place: Found | None) -> bool:
    """Whether a map's highest value is in the box; False if there is no box."""
    if place is None:
        return False
    row, column = divmod(int(values.argmax()), values.shape[1])
    rows, columns = place.box
    return rows.start <= row < rows.stop and columns.start <= column < columns.stop


def _place(found: list[Found], word: str, partner: str) -> Found | None:
    """The box that shows a word, a colour or a shape.

    If several do, the one that shows its partner in the prompt too, or else has the purest colour.
    """
    showing = [one for one in found if word in (one.colour, one.shape)]
    return max(
        showing,
        key=lambda one: (partner in (one.colour, one.shape), one.purity),
        default=None,
    )


def _score_thing(
    rows: dict[str, list[float]], painted: Painted, number: int, thing: Thing, found: list[Found]
) -> None:
    two = "two things" if len(painted.scenes.things[number]) == 2 else "one thing"
    with_what = "with a reference" if painted.scenes.shown[number] else two
    places = [_place(found, *thing), _place(found, *reversed(thing))]
    for kind, word, place in zip(("colour", "shape"), thing, places, strict=True):
        values = painted.word_map(number, word)
        hit = points_at(values, place)
        rows[f"pointing: {kind} word"].append(hit)
        rows[f"pointing: {kind} word, {with_what}"].append(hit)
        rows[f"pointing: {kind} word, at the other box"].append(
            any(points_at(values, one) for one in found if one is not place)
        )
        rows[f"obeyed: {kind} word, {with_what}"].append(place is not None)
        if place:
            rows["pointing: by chance"].append(_area(place, painted))
    rows[f"obeyed: both in one, {with_what}"].append(
        any((one.colour, one.shape) == thing for one in found)
    )


def _score_shown(
    rows: dict[str, list[float]],
    painted: Painted,
    number: int,
    shown: Found | None,
    thing: Found | None,
) -> None:
    values = painted.reference_map(number)
    rows["pointing: reference"].append(points_at(values, shown))
    rows["obeyed: reference, the closest of all"].append(
        shown is not None and _closest_reference(painted, number, shown) == number
    )
    if shown and thing:
        outside = torch.ones_like(values)
        outside[shown.box] = outside[thing.box] = 0
        rows["share of the reference: on its object"].append(float(values[shown.box].mean()))
        rows["share of the reference: on the thing in words"].append(
            float(values[thing.box].mean())
        )
        rows["share of the reference: elsewhere"].append(float(values[outside > 0].mean()))


def _area(place: Found, painted: Painted) -> float:
    """The box's part of the picture."""
    rows, columns = place.box
    pixels = (rows.stop - rows.start) * (columns.stop - columns.start)
    return pixels / painted.pictures[0, ..., 0].numel()


def _closest_reference(painted: Painted, number: int, shown: Found) -> int:
    """The number of the reference that a painted object looks most like, place by place."""
    seen = _small(painted.pictures[number][shown.box])
    errors = {}
    for other in torch.nonzero(painted.scenes.shown).flatten().tolist():
        reference = painted.scenes.reference[other]
        errors[other] = float((_small(reference) - seen).square().mean())
    return min(errors, key=lambda other: errors[other])


def _small(picture: Tensor) -> Tensor:
    """A picture (H, W, 3) at the size of the attention's grid."""
    return F.interpolate(picture.movedim(-1, 0)[None], size=GRID, mode="area")[0]


def figure(painted: Painted, path: Path, heatmap: Any) -> None:
    """For each picture: reference, result, and the maps of its things' words or its reference."""
    columns = []
    for number, things in enumerate(painted.scenes.things):
        maps = [painted.word_map(number, word) for thing in things for word in thing]
        if painted.scenes.shown[number]:
            maps.append(painted.reference_map(number))
        maps += [torch.zeros_like(maps[0])] * (4 - len(maps))
        drawn = [heatmap(one / one.max().clamp(min=1e-6)) for one in maps]
        columns.append([painted.scenes.reference[number], painted.pictures[number], *drawn])
    save_rows([torch.stack(list(row)) for row in zip(*columns, strict=True)], path)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--pictures", type=int, default=256)
    parser.add_argument("--cfg", type=float, default=GUIDANCE)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--seed", type=int, default=0, help="of the intervals")
    parser.add_argument("--model", type=Path, help="another file; the pack's own by default")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--figure", type=Path, help="draw the first twelve pictures into this file")
    options = parser.parse_args()
    torch.set_num_threads(1)  # tensors this small only wait for a second one
    import_comfyui()
    pack = Pack(import_pack().__name__)
    seeds = range(FIRST_SEED, FIRST_SEED + options.pictures)
    scenes = draw_word_scenes(seeds)
    with torch.inference_mode():
        painted = WordModel(pack, options.model).paint(scenes, options.cfg, options.steps)
        rows = measure(painted)
    figures = {name: interval(np.array(v, float), options.seed) for name, v in rows.items()}
    print(f"{options.pictures} held-out pictures, {options.steps} steps, cfg {options.cfg:g}")
    for name, (mean, low, high) in sorted(figures.items()):
        print(f"  {name:48} {len(rows[name]):4}  {mean:.3f}  {low:.3f} … {high:.3f}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    if options.figure:
        first = draw_word_scenes(seeds[:12])
        display = pack.module("i2am.display")
        heatmap = partial(display.heatmap, colormap=display.Colormap.INFERNO)
        figure(replace(painted, scenes=first), options.figure, heatmap)


if __name__ == "__main__":
    main()
