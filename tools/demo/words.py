"""Seeded scenes for the word model: two boxes to fill, with what words name or a reference shows.

A thing in words is a flat silhouette, "a red circle". A thing that is shown is an object of random
hues, which only its picture can tell: `tools/demo/insertions.py` draws it. One box is in the left
half of the picture and one in the right, at random heights. Two things in words stand in the order
of the prompt, from left to right; where a thing that is shown goes, nothing says.

Seeds work as in `tools/demo/scenes`. An even seed has two things in words, an odd one has one in
words and one that is shown. A quarter of all sets of two colours and two shapes are never trained
on, in neither pairing, and held-out seeds show no others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tools.demo.insertions import REFERENCE_SIDE, draw_object, resized
from tools.demo.scenes import HELD_OUT_SEEDS, HOLE_GREY, TOKEN, Recipe
from tools.demo.scenes.synthetic import draw_shape, draw_textures

COLOURS = {
    "red": (0.85, 0.12, 0.12),
    "orange": (0.95, 0.52, 0.08),
    "yellow": (0.95, 0.88, 0.15),
    "green": (0.15, 0.62, 0.22),
    "turquoise": (0.15, 0.80, 0.85),
    "blue": (0.15, 0.28, 0.85),
    "purple": (0.50, 0.15, 0.65),
    "pink": (0.98, 0.55, 0.75),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "ring", "cross", "moon")
FILLERS = ("a", "the", "and", "with", "picture", "of", ",")
WORDS = (*COLOURS, *SHAPES, *FILLERS)

SIZE = 128  # pixels of a scene, down and across
SIDE = 48  # pixels of a box, which begins on a token
COLOUR_JITTER = 0.04
DRAWN = 256  # pixels of a silhouette before it is shrunk
SILHOUETTES = Recipe("shown", blobs=0.5)
HUES = 24  # pixels of the texture stretched over a shown object: two hues across
ALONE = 0.1  # share of the scenes in words that have one thing only


Thing = tuple[str, str]  # colour, shape
Box = tuple[int, int, int, int]  # left, top, width, height in pixels


@dataclass(frozen=True)
class WordScenes:
    """A batch of scenes: pictures (B, H, W, 3) and a mask (B, H, W), 0 to 1."""

    prompts: tuple[str, ...]
    things: tuple[tuple[Thing, ...], ...]  # those in the prompt, in its order
    shown: Tensor  # (B,) bool: has an object that only the reference tells
    reference: Tensor  # (B, REFERENCE_SIDE, REFERENCE_SIDE, 3), black where nothing is shown
    scene: Tensor  # the picture with its boxes painted HOLE_GREY
    target: Tensor  # the whole picture
    box_mask: Tensor  # 1 inside the boxes
    boxes: tuple[tuple[Box, ...], ...]

    def __len__(self) -> int:
        return len(self.prompts)


def held_out(things: Sequence[Thing]) -> bool:
    """Whether two things have a set of colours and shapes that is never trained on.

    It is the same whichever colour goes with which shape, so what is never shown does not tell how
    they are paired in what is.
    """
    numbers = [tuple(COLOURS).index(colour) + SHAPES.index(shape) for colour, shape in things]
    return sum(numbers) % 4 == 0


def words_of(prompt: str) -> list[str]:
    """The words of a prompt, as the tokens that they are."""
    return prompt.replace(",", " ,").split()


def make_word_scenes(count: int, seed: int = HELD_OUT_SEEDS.start) -> WordScenes:
    """Draw `count` scenes, with the seeds from `seed` on."""
    return draw_word_scenes(range(seed, seed + count))


def draw_word_scenes(seeds: Sequence[int]) -> WordScenes:
    """Draw one scene for each seed."""
    rngs = [np.random.default_rng(seed) for seed in seeds]
    textures = draw_textures(rngs)[..., :HUES, :HUES]
    target = torch.stack([_background(rng) for rng in rngs])
    reference = torch.zeros(len(rngs), 3, REFERENCE_SIDE, REFERENCE_SIDE)
    box_mask = torch.zeros(len(rngs), SIZE, SIZE)
    shown = torch.tensor([seed % 2 == 1 for seed in seeds])
    things, prompts, boxes = [], [], []
    for n, (seed, rng) in enumerate(zip(seeds, rngs, strict=True)):
        alone = not shown[n] and rng.random() < ALONE
        held = seed in HELD_OUT_SEEDS
        named = draw_things(rng, 1 if shown[n] or alone else 2, held)
        halves = rng.permutation(2)[: 1 if alone else 2].tolist()
        if len(named) == 2:
            halves = [0, 1]  # as one reads
        boxes.append(tuple(_random_box(rng, half) for half in halves))
        for place, (left, top, width, height) in enumerate(boxes[-1]):
            here = np.s_[top : top + height, left : left + width]
            box_mask[n][here] = 1
            inside = target[n][:, here[0], here[1]]
            if place < len(named):
                inside.copy_(_with_thing(rng, inside, named[place]))
            else:
                inside.copy_(draw_object(inside, textures[n], draw_shape(rng, SILHOUETTES)))
                reference[n] = resized(inside, (REFERENCE_SIDE, REFERENCE_SIDE))
        things.append(named)
        prompts.append(_prompt(rng, named))
    return WordScenes(
        prompts=tuple(prompts),
        things=tuple(things),
        shown=shown,
        reference=reference.movedim(1, -1).contiguous(),
        scene=torch.where(box_mask[:, None] > 0, HOLE_GREY, target).movedim(1, -1).contiguous(),
        target=target.movedim(1, -1).contiguous(),
        box_mask=box_mask,
        boxes=tuple(boxes),
    )


def draw_things(rng: np.random.Generator, count: int, held: bool) -> tuple[Thing, ...]:
    """One or two things that differ in colour and in shape; two are held out or not."""
    while True:
        colours = rng.permutation(list(COLOURS))[:count].tolist()
        shapes = rng.permutation(SHAPES)[:count].tolist()
        things = tuple(zip(colours, shapes, strict=True))
        if count == 1 or held_out(things) == held:
            return things


@cache
def silhouette(shape: str, height: int, width: int) -> Tensor:
    """How much of each pixel a shape covers when it fills a box: (height, width), 0 to 1."""
    middles = (np.arange(DRAWN) + 0.5) / DRAWN * 2 - 1
    inside = _OUTLINES[shape](middles[None, :], middles[:, None])
    return resized(torch.tensor(inside).float()[None], (height, width))[0]


def _star(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Five points up; the border is straight between radius 1 and 0.42, 36 degrees apart."""
    y = y * 0.95 + 0.05
    step = np.pi / 5
    angle = np.abs((np.arctan2(x, -y) + step) % (2 * step) - step)
    inner = 0.42
    edge = inner * np.sin(step) / (np.sin(step - angle) * inner + np.sin(angle))
    return np.hypot(x, y) <= edge


_OUTLINES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "circle": lambda x, y: np.hypot(x, y) <= 1,
    "square": lambda x, y: np.maximum(np.abs(x), np.abs(y)) <= 0.9,
    "triangle": lambda x, y: (np.abs(x) <= (y + 1) / 1.9) & (y <= 0.9),
    "star": _star,
    "heart": lambda x, y: (
        ((1.2 * x) ** 2 + (0.15 - 1.2 * y) ** 2 - 1) ** 3 <= (1.2 * x) ** 2 * (0.15 - 1.2 * y) ** 3
    ),
    "ring": lambda x, y: (np.hypot(x, y) <= 1) & (np.hypot(x, y) >= 0.55),
    "cross": lambda x, y: (np.minimum(np.abs(x), np.abs(y)) <= 0.33) & (np.abs(x + y * 0) <= 1),
    "moon": lambda x, y: (np.hypot(x, y) <= 1) & (np.hypot(x - 0.55, y + 0.1) >= 0.85),
}


def _background(rng: np.random.Generator) -> Tensor:
    """Light grey that changes slowly from corner to corner: (3, SIZE, SIZE)."""
    grey = rng.uniform(0.6, 0.85)
    corners = torch.tensor(grey + rng.uniform(-0.08, 0.08, (1, 1, 2, 2))).float()
    return F.interpolate(corners, size=(SIZE, SIZE), mode="bilinear")[0].expand(3, -1, -1).clone()


def _random_box(rng: np.random.Generator, half: int) -> Box:
    """A square in the left half of the scene (0) or in the right (1)."""
    left = int(rng.integers(0, (SIZE // 2 - SIDE) // TOKEN + 1)) * TOKEN + half * SIZE // 2
    top = int(rng.integers(0, (SIZE - SIDE) // TOKEN + 1)) * TOKEN
    return left, top, SIDE, SIDE


def _with_thing(rng: np.random.Generator, picture: Tensor, thing: Thing) -> Tensor:
    """A picture (3, H, W) with the thing all over it."""
    colour, shape = thing
    jitter = rng.uniform(-COLOUR_JITTER, COLOUR_JITTER, 3)
    flat = torch.tensor(np.array(COLOURS[colour]) + jitter).float().clamp(0, 1)
    return torch.lerp(picture, flat[:, None, None], silhouette(shape, *picture.shape[1:]))


def _prompt(rng: np.random.Generator, things: Sequence[Thing]) -> str:
    """The things in words: "picture of a red circle and the blue star"."""
    joiner = str(rng.choice((" and ", " with ", ", ")))
    articles = rng.choice(("a ", "the ", ""), len(things)).tolist()
    phrases = [f"{before}{' '.join(thing)}" for before, thing in zip(articles, things, strict=True)]
    opening = str(rng.choice(("", "", "picture of ", "a picture of ")))
    return opening + joiner.join(phrases)
