"""What a recording must hold, computed densely in float64 from the observed queries and keys.

Written only from the paper's formulas; shares no code with the pack.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

ARGUMENTS = (
    *("q", "k", "v", "heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape"),
)
Where = tuple[int, int] | list[int]  # tokens from one position to another, or a list of positions


@dataclass(frozen=True)
class Seen:
    """One attention call as seen by another node's override, with one key head per query head."""

    options: dict[str, Any]
    q: Tensor  # (batch, heads, queries, dim)
    k: Tensor
    mask: Tensor | None = None  # additive, (batch or 1, heads or 1, queries or 1, keys)
    scale: float | None = None
    v: Tensor | None = None


class Spy:
    """Another pack's attention override: records every call, changes nothing."""

    def __init__(self) -> None:
        self.calls: list[Seen] = []

    def __call__(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        given = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
        q, k, v, mask = given["q"], given["k"], given["v"], given.get("mask")
        if not given.get("skip_reshape"):
            dim = q.shape[-1] // given["heads"]
            q, k, v = (x.reshape(*x.shape[:2], -1, dim).transpose(1, 2) for x in (q, k, v))
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        if mask is not None:
            mask = mask[(None,) * (4 - mask.ndim)] if mask.ndim != 3 else mask[:, None]
            if mask.dtype == torch.bool:
                mask = torch.zeros(mask.shape).masked_fill(~mask, float("-inf"))
            mask = mask.double().clone()
        options = dict(given["transformer_options"])
        q, k, v = (x.double().clone() for x in (q, k, v))
        self.calls.append(Seen(options, q, k, mask, given.get("scale"), v))
        return func(*args, **kwargs)

    def on(self, model: Any) -> Any:
        """A clone of the model with this override, set as most packs set it."""
        spied = model.clone()
        spied.model_options["transformer_options"]["optimized_attention_override"] = self
        return spied


@dataclass(frozen=True)
class Place:
    """Where the tokens of one call lie, written down by hand."""

    layer: int
    generated: Where
    grid: tuple[int, int]
    own: Where | None  # the picture's own tokens among the keys
    references: tuple[Where, ...]
    reference_grids: tuple[tuple[int, int], ...]
    keys: int
    cell: int = 0  # side of a token in latent pixels, where levels round up
    # The keys of each token of the prompt, if any; by default those that are nothing else's.
    words: tuple[tuple[int, ...], ...] | None = None
    # The tokens of each place asked about: in the result, and in every reference.
    asked: tuple[tuple[int, ...], ...] = ()
    asked_of: tuple[tuple[tuple[int, ...], ...], ...] = ()


# Places x, y to ask about: in the result, and in every reference. It makes no difference to them
# whether the last row extends past the picture.
ASKED = ((0.3, 0.23), (0.9, 0.05))
ASKED_OF = ((0.45, 0.2),)


def asking(
    place_of: Callable[[Seen], Place | None],
    latent: tuple[int, int] = (0, 0),
    frames: int = 1,
    reference_frames: tuple[int, ...] = (),
) -> Callable[[Seen], Place | None]:
    """The same places, and the tokens asked about, which a video has in every frame."""

    def tokens(
        points: tuple[tuple[float, float], ...],
        grid: tuple[int, int],
        frames: int,
        sides: tuple[float, float],
    ) -> tuple[tuple[int, ...], ...]:
        height, width = grid[0] // frames, grid[1]
        cells = [(int(y * sides[0]), int(x * sides[1])) for x, y in points]
        starts = [height * width * frame for frame in range(frames)]
        return tuple(tuple(s + row * width + column for s in starts) for row, column in cells)

    def asked(call: Seen) -> Place | None:
        place = place_of(call)
        if place is None:
            return None
        sides = place.grid[0] / frames, float(place.grid[1])
        if place.cell:
            sides = latent[0] / place.cell, latent[1] / place.cell
        counts = reference_frames or (1,) * len(place.reference_grids)
        return replace(
            place,
            asked=tokens(ASKED, place.grid, frames, sides),
            asked_of=tuple(
                tokens(ASKED_OF, grid, count, (grid[0] / count, grid[1]))
                for grid, count in zip(place.reference_grids, counts, strict=True)
            ),
        )

    return asked


def left_out(logits: Tensor, v: Tensor, span: Where) -> tuple[Tensor, Tensor, Tensor]:
    """How far a call's output moves, squared, with each key of a span left out, (…, rows, span),
    and with all of it left out, (…, rows); and the output itself, squared, (…, rows).

    logits: (…, rows, keys). v: (…, keys, dim). Where no key is left there is no output.
    """
    weights = (logits - logits.amax(-1, keepdim=True)).exp()
    numerator, denominator = weights @ v, weights.sum(-1, keepdim=True)
    output = numerator / denominator
    own, values = _at(weights, span, -1), _at(v, span, -2)
    rest = denominator - own
    left = numerator.unsqueeze(-2) - own.unsqueeze(-1) * values.unsqueeze(-3)
    left = torch.where(rest.unsqueeze(-1) > 0, left / rest.unsqueeze(-1), 0)
    each = (left - output.unsqueeze(-2)).square().sum(-1)
    inside = set(range(*span)) if isinstance(span, tuple) else set(span)
    others = [key for key in range(logits.shape[-1]) if key not in inside]
    left = logits[..., others].softmax(-1) @ v[..., others, :]
    return each, (left - output).square().sum(-1), output.square().sum(-1)


def points(
    r: int,
    place: Place,
    over_result: Callable[[Tensor], Tensor],
    matrices: tuple[Tensor, ...],
    cells: tuple[int, int],
) -> dict[str, Tensor]:
    """What places asked about attended to, and what attended to them: (batch, heads, places, h, w).

    over_result: brings mass, (…, generated), to the finest grid. matrices: M_r, M_g, the model's
    own attention and, if requested, the effect, (batch, heads, generated, reference). cells: the
    grid of the reference.
    """
    if not place.asked:
        return {}
    m_r, m_g, model, *effects = matrices
    rows, columns = torch.tensor(place.asked), torch.tensor(place.asked_of[r])
    to_place = model[..., columns].sum(-1) / model.shape[2]
    found: dict[str, Tensor] = {}
    for effect in effects:
        moved = effect[..., columns].sum(-1).movedim(2, -1) / effect.shape[2]
        found[f"point.effect.g2r.{r}"] = effect[:, :, rows].mean(3).unflatten(-1, cells)
        found[f"point.effect.r2g.{r}"] = over_result(moved)
    return found | {
        f"point.paper.g2r.{r}": m_r[:, :, rows].mean(3).unflatten(-1, cells),
        f"point.model.g2r.{r}": model[:, :, rows].mean(3).unflatten(-1, cells),
        f"point.paper.r2g.{r}": over_result(m_g[..., columns].mean(-1).movedim(2, -1)),
        f"point.model.r2g.{r}": over_result(to_place.movedim(2, -1)),
    }


def expected(
    calls: list[Seen],
    rows_of: Callable[[Seen], list[slice]],
    place_of: Callable[[Seen], Place | None],
    step_of: Callable[[float], int],
    grid: tuple[int, int],
    heads: int,
    latent: tuple[int, int] = (0, 0),
    dense: Callable[..., dict[str, Tensor]] | None = None,
    effect: bool = False,
) -> dict[str, Tensor]:
    """Every array of a recording, from the calls of one run. effect: include the effect's arrays.

    rows_of: a call's rows for the recorded conditionings. grid: the finest generated grid; coarser
    layers are spread over it. latent: the size that places with a `cell` divide. heads: the most of
    any layer; missing heads are zero. dense: computes one call.
    """
    found: dict[tuple[int, int], list[dict[str, Tensor]]] = defaultdict(list)
    for call in calls:
        place = place_of(call)
        if place is None:
            continue
        step = step_of(float(call.options["sigmas"][0]))
        for rows in rows_of(call):
            made = dense or partial(_dense, effect=effect)
            found[step, place.layer].append(made(call, rows, place, grid, latent))
    steps = sorted({step for step, _ in found})
    layers = sorted({layer for _, layer in found})
    names = next(iter(found.values()))[0].keys()
    arrays: dict[str, Tensor] = {}
    for name in names:
        # (batch, heads, …) of each step and layer: evaluations of a step are averaged first
        table = [
            [torch.stack([d[name] for d in found[s, layer]]).mean(0) for layer in layers]
            for s in steps
        ]
        means = torch.stack([torch.stack([maps.mean(1) for maps in row]) for row in table])
        if name in ("share.map", "output.map"):
            arrays[name] = means.mean((0, 1))
        elif name == "share":
            arrays["share.step_layer"] = means.permute(2, 0, 1, 3)
        elif name == "output":
            arrays["output.step_layer"] = means.permute(2, 0, 1)
        elif name.startswith("correspondence"):
            arrays[name] = means.mean((0, 1))
        elif name.startswith("point"):
            arrays[name] = means.movedim(2, 0)
        else:
            arrays[f"{name}.step_layer"] = means.permute(2, 0, 1, 3, 4)
            by_head = torch.zeros(means.shape[2], len(layers), heads, *means.shape[3:]).double()
            for number in range(len(layers)):
                maps = torch.stack([row[number] for row in table]).mean(0)
                by_head[:, number, : maps.shape[1]] = maps
            arrays[f"{name}.layer_head"] = by_head
    assert max(maps.shape[1] for maps in table[0]) == heads
    return arrays


def words_of(place: Place, tokens: int) -> tuple[tuple[int, ...], ...]:
    """The keys of each of a prompt's tokens.

    By default they follow one another from the first key that is neither the picture's own nor a
    reference's, and those of references among them are no words.
    """
    if place.words is not None:
        return place.words
    taken: set[int] = set()
    for span in (*place.references, *(() if place.own is None else (place.own,))):
        taken.update(range(*span) if isinstance(span, tuple) else span)
    first = next((key for key in range(place.keys) if key not in taken), None)
    if first is None:
        return ()
    return tuple((key,) if key not in taken else () for key in range(first, first + tokens))


def expected_words(
    calls: list[Seen],
    rows_of: Callable[[Seen], list[slice]],
    place_of: Callable[[Seen], Place | None],
    step_of: Callable[[float], int],
    grid: tuple[int, int],
    sizes: tuple[int, int],
    latent: tuple[int, int] = (0, 0),
) -> dict[str, Tensor]:
    """What a recording must hold of a prompt's tokens; steps as in a run of at most four.

    DAAM: P[g, token], mean over heads, evaluations and the layers with text. sizes: how many layers
    there are, and how many tokens.
    """
    all_layers, tokens = sizes
    found: dict[tuple[int, int], list[tuple[Tensor, Tensor]]] = defaultdict(list)
    for call in calls:
        place = place_of(call)
        if place is None:
            continue
        words = words_of(place, tokens)
        if not words:
            continue
        for rows in rows_of(call):
            model = _softmax(call, rows, place).mean(1)  # (batch, generated, keys)
            each = [_at(model, list(keys), -1).sum(-1) for keys in words]
            maps = torch.stack(each, 1)  # (batch, tokens, generated)
            raster = latent if place.cell else grid
            _, as_mean = resampled(
                maps.unflatten(-1, place.grid), place.cell or grid[0] // place.grid[0], grid, raster
            )
            key = step_of(float(call.options["sigmas"][0])), place.layer
            found[key].append((as_mean, maps.mean(-1)))
    steps, layers = sorted({step for step, _ in found}), sorted({layer for _, layer in found})
    assert len(steps) <= 4

    def over(values: int) -> list[list[Tensor]]:
        """The mean of each step's and layer's evaluations."""
        return [
            [torch.stack([one[values] for one in found[s, n]]).mean(0) for n in layers]
            for s in steps
        ]

    shares = torch.stack([torch.stack(row, 1) for row in over(1)], 1)  # (batch, steps, …, tokens)
    share = shares.new_zeros(*shares.shape[:2], all_layers, tokens)
    share[:, :, layers] = shares
    maps = torch.stack([torch.stack(row).mean(0) for row in over(0)], 1)
    return {"words.0.map": maps, "words.0.share": share}


def _softmax(call: Seen, rows: slice, place: Place) -> Tensor:
    """The model's own attention of the generated tokens: (batch, heads, generated, keys)."""
    return _logits(call, rows, place).softmax(-1)


def _logits(call: Seen, rows: slice, place: Place) -> Tensor:
    q, k = call.q[rows], call.k[rows]
    scale = q.shape[-1] ** -0.5 if call.scale is None else call.scale
    logits = q @ k.transpose(-1, -2) * scale
    if call.mask is not None:
        logits = logits + (call.mask[rows] if call.mask.shape[0] > 1 else call.mask)
    return _at(logits, place.generated, -2)[..., : place.keys]


def _at(values: Tensor, where: Where, dim: int) -> Tensor:
    """The tokens at these positions along an axis."""
    positions = (
        torch.arange(*where) if isinstance(where, tuple) else torch.tensor(where, dtype=torch.long)
    )
    return values.index_select(dim, positions)


def resampled(
    maps: Tensor, cell: int, grid: tuple[int, int], latent: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """(…, h, w) to a finer grid through the latent's pixels, as mass and as a mean.

    For mass, each cell is divided among its pixels, and the pixels of a finer cell are summed.
    """
    rows, columns = (torch.arange(side) // cell for side in latent)
    pixels = maps[..., rows, :][..., columns]
    sizes = rows.bincount()[rows][:, None] * columns.bincount()[columns]
    fine = -(-latent[0] // grid[0])
    down, across = (
        torch.eye(n, dtype=maps.dtype)[torch.arange(side) // fine]
        for n, side in zip(grid, latent, strict=True)
    )

    def added(values: Tensor) -> Tensor:
        return down.T @ values @ across

    return added(pixels / sizes), added(pixels) / added(torch.ones(latent, dtype=maps.dtype))


def _dense(
    call: Seen,
    rows: slice,
    place: Place,
    grid: tuple[int, int],
    latent: tuple[int, int],
    effect: bool = False,
) -> dict[str, Tensor]:
    """All of one call: full matrices, one formula after the other. (batch, heads, …)."""
    logits = _logits(call, rows, place)
    model = logits.softmax(-1)  # the model's own attention
    height, width = place.grid
    cell, raster = (place.cell, latent) if place.cell else (grid[0] // height, grid)
    assert place.cell or (height * cell, width * cell) == grid

    def over_result(values: Tensor, mass: bool) -> Tensor:
        """(batch, heads, generated) to the finest grid."""
        as_mass, as_mean = resampled(values.unflatten(-1, place.grid), cell, grid, raster)
        return as_mass if mass else as_mean

    arrays: dict[str, Tensor] = {}
    own = _at(model, place.own, -1).sum(-1) if place.own else model[..., :0].sum(-1)
    shares = []
    for r, (span, reference_grid) in enumerate(
        zip(place.references, place.reference_grids, strict=True)
    ):
        block = _at(logits, span, -1)
        m_g = block.softmax(-2)  # softmax over the generated tokens
        m_r = block.softmax(-1)  # softmax over the reference's tokens
        mass = _at(model, span, -1)
        shares.append(mass.sum(-1))
        arrays[f"paper.r2g.{r}"] = over_result(m_g.mean(-1), mass=True)
        arrays[f"paper.g2r.{r}"] = m_r.mean(-2).unflatten(-1, reference_grid)
        arrays[f"model.r2g.{r}"] = over_result(mass.sum(-1) / (height * width), mass=True)
        arrays[f"model.g2r.{r}"] = mass.mean(-2).unflatten(-1, reference_grid)
        kinds = [("", m_r), ("model.", mass)]
        matrices = m_r, m_g, mass
        if effect:
            assert call.v is not None
            moved, whole, output = left_out(logits, call.v[rows][:, :, : place.keys], span)
            arrays[f"effect.r2g.{r}"] = over_result(whole / (height * width), mass=True)
            arrays[f"effect.g2r.{r}"] = moved.mean(-2).unflatten(-1, reference_grid)
            arrays["output"] = output.mean(-1)
            arrays["output.map"] = over_result(output, mass=False)
            kinds.append(("effect.", moved))
            matrices = *matrices, moved
        for kind, values in kinds:
            pairs = over_result(values.transpose(-1, -2), mass=False).movedim(2, -1)
            arrays[f"correspondence.{kind}{r}"] = pairs.unflatten(-1, reference_grid)
        arrays |= points(r, place, lambda v: over_result(v, True), matrices, reference_grid)
    text = 1 - own - sum(shares)
    every = torch.stack((text, own, *shares), dim=2)
    arrays["share"] = every.mean(-1)
    arrays["share.map"] = over_result(every, mass=False)
    return arrays


def largest_deviation(actual: dict[str, Tensor], wanted: dict[str, Tensor]) -> dict[str, float]:
    """Per array, the largest difference relative to the array's largest value."""
    assert actual.keys() == wanted.keys()
    deviations: dict[str, float] = {}
    for name, array in wanted.items():
        assert actual[name].shape == array.shape, name
        difference = (actual[name].double() - array).abs().max()
        deviations[name] = float(difference / array.abs().max())
    return deviations
