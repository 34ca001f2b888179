"""Conditionings limited to areas and masks: maps are summed like the predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import tiny
import torch
from oracle import (
    ASKED,
    ASKED_OF,
    Place,
    Seen,
    Spy,
    expected,
    largest_deviation,
    left_out,
    resampled,
)
from proof import TOLERANCE, arm_model, point_queries, recording, refusal_reason, step_finder
from tiny_unets import GRIDS, MARKS, SD15, SPANS, TWO_LEVEL_SITES
from torch import Tensor

LATENT = (12, 16)
START = tiny.latent(22, 2, 16, *LATENT)
REFERENCES = (tiny.latent(10, 1, 16, 7, 14), tiny.latent(11, 1, 16, 6, 5))


@dataclass(frozen=True)
class Acting:
    """A handwritten conditioning: its rectangle's corner and size, its portion at each pixel."""

    top: int
    left: int
    height: int
    width: int
    portion: Tensor  # (12, 16)

    @property
    def window(self) -> tuple[slice, slice]:
        """An index of its rectangle in a latent."""
        rows = slice(self.top, self.top + self.height)
        return rows, slice(self.left, self.left + self.width)


def cells_of(pixels: Tensor, cell: int) -> Tensor:
    """The mean of a latent over each cell; cells divide its sides."""
    height, width = pixels.shape
    return pixels.double().reshape(height // cell, cell, width // cell, cell).mean((1, 3))


def dense(of: Callable[[Seen], Acting], covered: Tensor, count: int) -> Any:
    """All of one call of one of `count` conditionings, which together make `covered` of each place.

    Everything is a sum over places, weighted by portions and divided by the sum of all portions.
    """

    def one(
        call: Seen, rows: slice, place: Place, grid: tuple[int, int], latent: tuple[int, int]
    ) -> dict[str, Tensor]:
        acting, cell, (height, width) = of(call), place.cell, place.grid
        portion = cells_of(acting.portion[acting.window], cell).flatten()
        # `expected` takes the mean over conditionings; one token of the picture, and all of them
        times = count / float(covered.mean())
        each = times * cell * cell / covered.numel()
        weight = portion.sum() * each

        def over_result(values: Tensor, mass: bool = True) -> Tensor:
            """Tokens of the rectangle, (…, tokens), in the cells of the whole picture."""
            canvas = values.new_zeros(*values.shape[:-1], latent[0] // cell, latent[1] // cell)
            top, left = acting.top // cell, acting.left // cell
            tokens = values.unflatten(-1, (height, width))
            canvas[..., top : top + height, left : left + width] = tokens
            return resampled(canvas, cell, grid, latent)[0 if mass else 1]

        by_place = resampled(cells_of(covered, cell), cell, grid, latent)[1].clamp(min=1e-30)
        q, k = call.q[rows], call.k[rows]
        logits = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5)[..., : place.keys]
        logits = logits[:, :, slice(*place.generated)]
        model = logits.softmax(-1)
        arrays: dict[str, Tensor] = {}
        shares: list[Tensor] = []
        for r, (span, cells) in enumerate(
            zip(place.references, place.reference_grids, strict=True)
        ):
            block, mass = logits[..., slice(*span)], model[..., slice(*span)]
            assert call.v is not None
            v = call.v[rows][:, :, : place.keys]
            moved, whole, output = left_out(logits, v, span)
            arrays[f"effect.r2g.{r}"] = over_result(whole * portion * each)
            arrays["output"] = (output * portion).sum(-1) * each
            arrays["output.map"] = over_result(output * portion, mass=False) * times
            shares.append(mass.sum(-1))
            r2g = block.softmax(-2).mean(-1) * portion
            arrays[f"paper.r2g.{r}"] = over_result(r2g / r2g.sum(-1, keepdim=True) * weight)
            arrays[f"model.r2g.{r}"] = over_result(shares[-1] * portion * each)
            for kind, name, values in (
                ("paper", "", block.softmax(-1)),
                ("model", "model.", mass),
                ("effect", "effect.", moved),
            ):
                values = values * portion[:, None]
                arrays[f"{kind}.g2r.{r}"] = (values.sum(-2) * each).unflatten(-1, cells)
                pairs = over_result(values.transpose(-1, -2), mass=False) / by_place * count
                arrays[f"correspondence.{name}{r}"] = pairs.movedim(2, -1).unflatten(-1, cells)
                at = [pairs[..., int(y * grid[0]), int(x * grid[1])] for x, y in ASKED]
                arrays[f"point.{kind}.g2r.{r}"] = torch.stack(at, 2).unflatten(-1, cells)
            tokens = [int(y * cells[0]) * cells[1] + int(x * cells[1]) for x, y in ASKED_OF]
            m_g = (block.softmax(-2)[..., tokens] * portion[:, None]).movedim(-1, 2)
            columns = over_result(m_g / m_g.sum(-1, keepdim=True) * weight)
            arrays[f"point.paper.r2g.{r}"] = columns
            to_places = (mass[..., tokens] * portion[:, None]).movedim(-1, 2)
            arrays[f"point.model.r2g.{r}"] = over_result(to_places * each)
            moved = (moved[..., tokens] * portion[:, None]).movedim(-1, 2)
            arrays[f"point.effect.r2g.{r}"] = over_result(moved * each)
        own = model[..., slice(*place.own)].sum(-1) if place.own else torch.zeros_like(shares[0])
        every = torch.stack((1 - own - sum(shares), own, *shares), dim=2) * portion
        arrays["share"] = every.sum(-1) * each
        arrays["share.map"] = over_result(every, mass=False) * times
        return arrays

    return one


def prove(
    comfy: Any,
    model: Callable[[], Any],
    positive: list[Any],
    start: Tensor,
    place: Callable[[Seen], Place | None],
    of: Callable[[Seen], Acting],
    count: int,
    grid: tuple[int, int],
    heads: int,
    negative: list[Any],
    covered: Tensor | None = None,
    **options: Any,
) -> Any:
    """Samples with and without capture: the same latent, and the recording of these regions."""
    spy = Spy()
    options = {"cfg": 2.0, "steps": 2} | options
    plain = tiny.sample(model(), positive, negative, start, **options)
    plan = {"places": point_queries(comfy, 8), "definitions": "all"}
    armed = arm_model(comfy, spy.on(model()), **plan)
    sampled = tiny.sample(armed, positive, negative, start, **options)
    assert torch.equal(sampled, plain)
    record = recording(comfy, sampled)

    def rows_of(call: Seen) -> list[slice]:
        chunks = call.options["cond_or_uncond"]
        size = call.q.shape[0] // len(chunks)
        return [slice(n * size, (n + 1) * size) for n, c in enumerate(chunks) if c == 0]

    wanted = expected(
        *(spy.calls, rows_of, place),
        step_finder(record.header.run.schedule),
        *(
            grid,
            heads,
            LATENT,
            dense(of, torch.ones(LATENT) if covered is None else covered, count),
        ),
    )
    deviations = largest_deviation(dict(record.arrays), wanted)
    assert max(deviations.values()) < TOLERANCE, deviations
    sums = record.arrays["share.step_layer"].sum(-1)
    assert float((sums - 1).abs().max()) < 1e-5
    return record


def flux_place(texts: dict[int, tuple[int, int]]) -> Callable[[Seen], Place | None]:
    """[text | result | reference 1 28 | reference 2 9]; the number of keys identifies the text."""

    def place(call: Seen) -> Place | None:
        keys = call.k.shape[2]
        if keys not in texts:
            return None
        text, (height, width) = KEYS[keys], texts[keys]
        end = text + height * width
        return Place(
            layer=call.options["block_index"] + 2 * (call.options["block_type"] == "single"),
            generated=(text, end),
            grid=(height, width),
            own=(text, end),
            references=((end, end + 28), (end + 28, end + 37)),
            reference_grids=((4, 7), (3, 3)),
            keys=keys,
            cell=2,
        )

    return place


KEYS: dict[int, int] = {}


def text(seed: int, tokens: int, grid: tuple[int, int], references: Any = REFERENCES) -> list[Any]:
    KEYS[tokens + grid[0] * grid[1] + 37] = tokens
    pooled: dict[str, Any] = {"pooled_output": tiny.latent(5, 1, 8)}
    return tiny.conditioning(seed, tokens, 16, references, **pooled)


def test_an_area_in_the_whole(comfy: Any) -> None:
    """The left half has its own text, which fades into the other one at its right edge."""
    area = comfy.node("ConditioningSetArea")()
    (left,) = area.append(text(25, 7, (6, 4)), width=64, height=96, x=0, y=0, strength=1.0)
    positive = [*left, *text(26, 9, (6, 8))]
    mult = torch.zeros(LATENT)
    mult[:, :8] = 1
    mult[:, 7] = 0.5  # a quarter of its width would be two pixels: half, then full
    halves = {
        7 + 24 + 37: Acting(0, 0, 12, 8, mult / (mult + 1)),
        9 + 48 + 37: Acting(0, 0, 12, 16, 1 / (mult + 1)),
    }
    record = prove(
        *(comfy, tiny.flux, positive, START),
        flux_place({7 + 24 + 37: (6, 4), 9 + 48 + 37: (6, 8)}),
        lambda call: halves[call.k.shape[2]],
        *(2, (6, 8), 2),
        negative=text(27, 9, (6, 8), ()),
    )
    assert record.header.generated.grid.shape == (6, 8)


@pytest.mark.parametrize("with_reference", [True, False])
def test_masks(comfy: Any, with_reference: bool) -> None:
    """Two texts for two overlapping halves; no map where the active one has no references."""
    masked = comfy.node("ConditioningSetMask")().append
    left = torch.zeros(1, 12, 16)
    left[..., :8] = 1
    left[..., 8:10] = 0.25
    right = 1 - left.clone()
    right[..., 6:8] = 0.75
    references = REFERENCES if with_reference else ()
    positive = [
        *masked(text(25, 7, (6, 8)), left, "default", 1.0)[0],
        *masked(text(26, 9, (6, 8), references), right, "default", 0.8)[0],
    ]
    mults = left[0], right[0] * 0.8
    portions = [mult / (mults[0] + mults[1]) for mult in mults]
    both = {
        7 + 48 + 37: Acting(0, 0, 12, 16, portions[0]),
        9 + 48 + 37: Acting(0, 0, 12, 16, portions[1]),
    }
    prove(
        *(comfy, tiny.flux, positive, START),
        flux_place({7 + 48 + 37: (6, 8), 9 + 48 + 37: (6, 8)}),
        lambda call: both[call.k.shape[2]],
        *(2 if with_reference else 1, (6, 8), 2),
        covered=None if with_reference else portions[0],
        negative=text(27, 9, (6, 8), ()),
    )


def test_an_area_over_levels(comfy: Any) -> None:
    """A UNet's layers see the area in cells of one and two pixels. The host gives the negative a
    copy of the positive's area, which is not recorded."""
    area = comfy.node("ConditioningSetArea")()
    pooled: dict[str, Any] = {"pooled_output": tiny.latent(5, 1, 10)}
    first = tiny.conditioning(30, 23, 24, **pooled, i2am_image_tokens=MARKS)
    second = [[torch.cat((first[0][0], first[0][0][:, :1]), 1), first[0][1]]]
    (low,) = area.append(first, width=128, height=64, x=0, y=32, strength=0.5)
    mult = torch.zeros(LATENT)
    mult[4:] = 0.5
    mult[4], mult[5] = 0.25, 0.5  # two pixels fade in at the upper edge, its only edge
    parts = {
        23: Acting(4, 0, 8, 16, mult / (mult + 1)),
        24: Acting(0, 0, 12, 16, 1 / (mult + 1)),
    }
    sites = list(TWO_LEVEL_SITES)

    def place(call: Seen) -> Place | None:
        site, keys = (*call.options["block"], call.options["block_index"]), call.k.shape[2]
        cell = TWO_LEVEL_SITES[site]
        if keys not in parts:
            return None
        acting = parts[keys]
        grid = acting.height // cell, acting.width // cell
        spans = (0, grid[0] * grid[1])
        return Place(sites.index(site), spans, grid, None, SPANS, GRIDS, keys, cell)

    prove(
        *(comfy, lambda: tiny.build("SD15", **SD15), [*low, *second]),
        tiny.latent(32, 2, 4, *LATENT),
        *(place, lambda call: parts[call.k.shape[2]], 2, LATENT, 8),
        negative=tiny.conditioning(31, 29, 24, **pooled),
    )


def test_an_area_of_some_frames(comfy: Any) -> None:
    """The refusal says what was found; the video is unharmed."""
    from tiny_wan import START, texts, wan

    image = tiny.latent(65, 1, 16, 1, 8, 10)
    positive, negative = texts(reference_latents=[image])
    area = [[positive[0][0], positive[0][1] | {"area": (2, 7, 10, 0, 0, 0)}]]
    model = wan("WAN21_T2V", in_dim_ref_conv=16)
    sampled = tiny.sample(arm_model(comfy, model), area, negative, START, steps=1)
    assert torch.equal(sampled, tiny.sample(model, area, negative, START, steps=1))
    reason = refusal_reason(comfy, sampled)
    assert "limited to 2 of 3 latent frames" in reason


@pytest.mark.neighbour(
    "Context windows: the model sees some frames at a time",
    "No maps, and why",
)
def test_windows(comfy: Any) -> None:
    """A sampler that gives the model some frames at a time is refused; the video is unharmed."""
    import comfy.context_windows as windows
    from tiny_wan import EVEN, texts, wan

    positive, negative = texts(reference_latents=[tiny.latent(65, 1, 16, 1, 8, 10)])
    model = wan("WAN21_T2V", in_dim_ref_conv=16)
    model.model_options["context_handler"] = windows.IndexListContextHandler(
        context_schedule=windows.get_matching_context_schedule("standard_static"),
        fuse_method=windows.get_matching_fuse_method("flat"),
        context_length=2,
        context_overlap=1,
        dim=2,
    )
    sampled = tiny.sample(arm_model(comfy, model), positive, negative, EVEN[:1], steps=1)
    assert torch.equal(sampled, tiny.sample(model, positive, negative, EVEN[:1], steps=1))
    reason = refusal_reason(comfy, sampled)
    assert "tiles or windows" in reason
    assert "2×8×10 of a latent of 3×8×10" in reason
