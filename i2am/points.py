"""Places named before sampling: what each of them looked at, or was looked at by, in every layer.

The correspondence of a recording is pooled, and a mean over layers and steps. Of a few places that
are named in time there is all: the row of attention of a place g of the result, which is the
paper's SRAM, and the column of a place r of a reference, its inverse, which the paper lacks:

    of g, over the reference:  paper M_r[g, :],  model the model's own attention of g;
    of r, over the result:     paper M_g[:, r],  model the model's own attention on r;

both mean over heads, with the letters of `attention`. A few rows and columns are cheap; only the
model's column needs the sum of every row of logits, unless the model was heard computing it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .architectures.base import Layer
from .errors import I2AMError
from .geometry import WHOLE, Grid, Part, TokenLayout, spread
from .whole import Hearing

RESULT = -1  # instead of a reference's number
MOST_PLACES = 16
POINT_BYTES = 128 * 2**20  # of a run; beyond it, neighbouring steps are kept together
_SCRATCH_BYTES = 64 * 2**20
_CACHE_BYTES = 4 * 2**20  # of logits at once on a CPU
_TINY = torch.finfo(torch.float32).tiny
_NUMBER = r"\s*(\d*\.?\d+|\d+\.)\s*"
_CORNER = f"{_NUMBER},{_NUMBER}"
_PLACE = re.compile(rf"(?:\s*(\d+)\s*:)?{_CORNER}(?:-{_CORNER})?")


@dataclass(frozen=True)
class AskedPlace:
    """A point or rectangle of a picture, in parts of its sides from the top left.

    reference: the number of the reference it is in, from 0, or RESULT. A point is a rectangle
    without extent: it asks about the one token it lies in; of a video, in all frames.
    """

    reference: int
    left: float
    top: float
    right: float
    bottom: float

    @property
    def is_point(self) -> bool:
        """Whether it has no extent."""
        return (self.left, self.top) == (self.right, self.bottom)

    @property
    def name(self) -> str:
        """Short, for labels and messages: as it is written."""
        start, end = f"{self.left:g},{self.top:g}", f"{self.right:g},{self.bottom:g}"
        return start if self.is_point else f"{start}-{end}"

    def weights(self, grid: Grid, part: Part = WHOLE) -> Tensor:
        """How much of each token is asked about, 0 to 1: (grid's area,).

        part: of the picture, what the grid is of; what lies outside is not asked about there.
        """
        left, right = ((x - part.left) / part.width for x in (self.left, self.right))
        top, bottom = ((y - part.top) / part.height for y in (self.top, self.bottom))
        if self.is_point:
            frame = torch.zeros(grid.one_frame.area)
            if 0 <= left <= 1 and 0 <= top <= 1:
                frame[grid.cell_at(left, top)] = 1
        else:
            down = _covered(grid.height, grid.covered[0], top, bottom)
            across = _covered(grid.width, grid.covered[1], left, right)
            frame = (down[:, None] * across).flatten()
        return frame.repeat(grid.frames)


def _covered(cells: int, covered: float, low: float, high: float) -> Tensor:
    """How much of each cell of a line lies between two of its places, in parts of the line."""
    edges = torch.arange(cells + 1, dtype=torch.float64).div(covered).clamp(max=1)
    inside = edges[1:].clamp(max=high) - edges[:-1].clamp(min=low)
    # Rounded, so that a rectangle does not touch cells that it ends at.
    return (inside.clamp(min=0) / (edges[1:] - edges[:-1])).round(decimals=9).float()


def parse_places(text: str, name: str, *, numbered: bool = False) -> tuple[AskedPlace, ...]:
    """Read `0.5,0.4; 0.2,0.1-0.4,0.3`: points x,y and rectangles from corner to corner.

    numbered: places of references, each of reference 1 unless `2:` stands before it.

    Raises I2AMError naming the input `name` if the text is anything else.
    """
    example = "2: 0.5,0.4" if numbered else "0.2,0.7"
    places: list[AskedPlace] = []
    for one in filter(None, (one.strip() for one in text.split(";"))):
        match = _PLACE.fullmatch(one)
        if match is None or (match[1] and not numbered):
            raise I2AMError(
                f"{name} cannot be read: found “{one[:40]}”. Write x,y from 0 to 1, with ; between "
                f"places and - between the corners of a rectangle, such as 0.5,0.4; {example}; "
                "0.1,0.1-0.3,0.2."
            )
        number = int(match[1] or 1)
        left, top = float(match[2]), float(match[3])
        right, bottom = (float(match[4]), float(match[5])) if match[4] else (left, top)
        if not (0 <= left <= right <= 1 and 0 <= top <= bottom <= 1) or number < 1:
            raise I2AMError(
                f"{name} asks about “{one[:40]}”, which is no place of a picture. x and y go from "
                "0 at the left and top to 1 at the right and bottom, a rectangle from its top left "
                "to its bottom right corner, references are counted from 1."
            )
        if match[4] and (left == right or top == bottom):
            raise I2AMError(
                f"{name} asks about “{one[:40]}”, a rectangle of no area. Write its top left and "
                "bottom right corners, or one x,y for a point."
            )
        places.append(AskedPlace(number - 1 if numbered else RESULT, left, top, right, bottom))
    return tuple(places)


def check_count(places: tuple[AskedPlace, ...]) -> None:
    """Raises I2AMError for more places than are recorded."""
    if len(places) > MOST_PLACES:
        raise I2AMError(
            f"{len(places)} places are asked about, and at most {MOST_PLACES} can be, of the "
            "result and the references together. Take some out: the correspondence tells of all "
            "places at once, only less finely."
        )


@dataclass(frozen=True)
class Looks:
    """What one attention call says of the places asked about: sums, to be divided by a weight.

    rows: for each reference (batch, 2, places of the result, its tokens), paper and model.
    row_weight: (1 or batch, places). columns: for each reference (batch, 2, its places, tokens of
    the whole result). column_weight: (1 or batch,). grid: of the whole result; pictures: of each
    reference.
    """

    rows: tuple[Tensor, ...]
    row_weight: Tensor
    columns: tuple[Tensor, ...]
    column_weight: Tensor
    grid: Grid
    pictures: tuple[Grid, ...]

    @property
    def sums(self) -> tuple[Tensor, ...]:
        """Rows and columns, one after the other."""
        return *self.rows, *self.columns

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Of each of the sums, to divide it by."""
        rows, columns = self.row_weight[:, None, :, None], self.column_weight[:, None, None, None]
        return *(rows for _ in self.rows), *(columns for _ in self.columns)


def looks(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    places: tuple[AskedPlace, ...],
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    part: Part = WHOLE,
    portions: Tensor | None = None,
    heard: Hearing | None = None,
) -> Looks:
    """The rows and columns of the places asked about in one attention call.

    q, k, scale, mask, weights, heard: as `attention_marginals` takes them. part, portions: of the
    result, the rectangle that the call's conditioning acts in, and its portion of each of these
    tokens, (1 or batch, tokens), if it acts in a part alone; `weights` then hold these portions
    already.
    """
    tokens = layout.generated.grid or Grid(1, layout.generated.length)
    pictures = tuple(span.grid or Grid(1, span.length) for span in layout.references)
    whole = part.whole(tokens)
    call = _Call.of(q, k, layout, scale, mask, weights, heard)
    asked = torch.stack(
        [p.weights(tokens, part) for p in places if p.reference == RESULT]
        or [torch.zeros(0, tokens.area)]
    ).reshape(-1, tokens.area)
    everywhere = torch.ones(1, tokens.area) if portions is None else portions.float().cpu()
    level = everywhere.mean(1)
    rows = call.rows(asked) if len(asked) else ()
    columns: list[Tensor] = []
    for number, picture in enumerate(pictures):
        mine = [place.weights(picture) for place in places if place.reference == number]
        found = q.new_zeros(len(q), 2, 0, whole.area, dtype=torch.float32)
        if mine:
            found = call.columns(number, torch.stack(mine))
            # Attention of one place each is mass over all of them; the paper's sum to one.
            found[:, 0] *= (level * part.area).to(found)[:, None, None]
            found[:, 1] *= part.area / tokens.area
            found = spread(found, tokens, whole, part)
        columns.append(found)
    if portions is not None:  # the paper's rows count by their portion, not its ratio to the mean
        for row in rows:
            row[:, 0] *= level.to(row)[:, None, None]
    return Looks(
        rows, (everywhere @ asked.mT).to(q.device), tuple(columns),
        (level * part.area).to(q.device), whole, pictures,
    )  # fmt: skip


@dataclass(frozen=True)
class _Call:
    """One attention call, from which a few rows and columns are taken.

    queries, keys: where the generated tokens and the keys lie on their axes. mask: additive, with
    all four axes. portions, emphasis: as `attention_marginals` has them, (batch, softmaxes,
    generated). totals: the logarithm of each row's sum, (batch, heads, generated), if it is known.
    """

    q: Tensor
    k: Tensor
    layout: TokenLayout
    factor: float
    queries: Tensor
    keys: Tensor
    mask: Tensor | None
    portions: Tensor | None
    emphasis: Tensor | None
    totals: Tensor | None

    @staticmethod
    def of(
        q: Tensor,
        k: Tensor,
        layout: TokenLayout,
        scale: float | None,
        mask: Tensor | None,
        weights: Tensor | None,
        heard: Hearing | None,
    ) -> _Call:
        span = layout.generated
        queries = _positions(layout.query_order, q.shape[2], q.device)
        keys = _positions(layout.key_order, k.shape[2], k.device)
        if mask is not None:
            while mask.ndim < 4:
                mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
            if mask.dtype == torch.bool:
                mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, -math.inf)
        portions = emphasis = None
        if weights is not None:
            weights = weights[..., span.slice].float()
            portions = weights / weights.sum(1, keepdim=True)
            emphasis = (weights / weights.mean(-1, keepdim=True)).nan_to_num(0.0)
        totals = heard.log_sum if heard is not None and heard.complete else None
        factor = q.shape[-1] ** -0.5 if scale is None else scale
        queries = queries[span.slice]
        return _Call(q, k, layout, factor, queries, keys, mask, portions, emphasis, totals)

    def rows(self, asked: Tensor) -> tuple[Tensor, ...]:
        """Of places with these weights (places, generated): (batch, 2, places, reference)."""
        some = _touched(asked, self.q.device)
        asked = asked.to(self.q.device)
        every = torch.arange(len(self.keys), device=self.q.device)
        sums = tuple(
            self.q.new_zeros(len(self.q), 2, len(asked), span.length, dtype=torch.float32)
            for span in self.layout.references
        )
        for heads in self._heads():
            for tokens in self._tiles(some, heads, len(every)):
                logits = self._logits(heads, tokens, every)
                totals = self._totals(logits)
                for span, total in zip(self.layout.references, sums, strict=True):
                    own = logits[..., span.slice]
                    m_r = self._whole(own.softmax(-1))
                    if self.emphasis is not None:
                        m_r = m_r * self.emphasis[:, span.softmax, tokens, None].unsqueeze(1)
                    model = self._attention(own, totals[span.softmax], span.softmax, tokens)
                    both = torch.stack((m_r.sum(1), model.sum(1)), 1)
                    total += asked[:, tokens] @ both
        return tuple(total / self.q.shape[1] for total in sums)

    def columns(self, reference: int, asked: Tensor) -> Tensor:
        """Of places with these weights (places, reference tokens): (batch, 2, places, generated).

        A place of several tokens is their mean in the paper's definition, which sums to one, and
        their sum in the model's.
        """
        span = self.layout.references[reference]
        some = _touched(asked, self.q.device)
        asked = asked.to(self.q.device)
        every = torch.arange(len(self.queries), device=self.q.device)
        mean = asked / asked.sum(1, keepdim=True)
        paper, model = self.q.new_zeros(2, len(self.q), len(asked), len(every), dtype=torch.float32)
        for heads in self._heads():
            if self.totals is None:
                total = self._row_totals(heads, span.softmax)
            else:
                total = self.totals[:, heads]
            for tokens in self._tiles(some, heads, len(every)):
                logits = self._logits(heads, every, tokens + span.start)
                m_g = self._whole(logits.softmax(-2))
                if self.emphasis is not None:
                    m_g = m_g * self.emphasis[:, span.softmax, :, None].unsqueeze(1)
                if self.mask is not None or self.emphasis is not None:
                    m_g = m_g / m_g.sum(-2, keepdim=True).clamp(min=_TINY)
                paper += mean[:, tokens] @ m_g.sum(1).mT
                attention = self._attention(logits, total, span.softmax, every)
                model += asked[:, tokens] @ attention.sum(1).mT
        return torch.stack((paper, model), 1) / self.q.shape[1]

    def _attention(self, logits: Tensor, total: Tensor, softmax: int, tokens: Tensor) -> Tensor:
        """The model's own on some keys, by the logarithm of each row's sum; overwrites logits."""
        found = self._whole(logits.sub_(total.unsqueeze(-1)).exp_())
        if self.portions is not None:
            found *= self.portions[:, softmax, tokens, None].unsqueeze(1)
        return found

    def _totals(self, logits: Tensor) -> dict[int, Tensor]:
        """The logarithm of the sum of each softmax's rows: (batch, heads, rows)."""
        spans = [span for span in self.layout.keys if span.length]
        return {
            softmax: torch.stack(
                [logits[..., s.slice].logsumexp(-1) for s in spans if s.softmax == softmax]
            ).logsumexp(0)
            for softmax in {span.softmax for span in spans}
        }

    def _row_totals(self, heads: slice, softmax: int) -> Tensor:
        """That of all rows of one softmax: the one pass over all queries and keys."""
        spans = [span for span in self.layout.keys if span.softmax == softmax]
        keys = torch.cat([torch.arange(span.start, span.stop) for span in spans]).to(self.q.device)
        rows = torch.arange(len(self.queries), device=self.q.device)
        tiles = self._tiles(rows, heads, len(keys))
        return torch.cat([self._logits(heads, some, keys).logsumexp(-1) for some in tiles], -1)

    def _logits(self, heads: slice, tokens: Tensor, keys: Tensor) -> Tensor:
        """S of some generated tokens and keys, numbered as the layout does."""
        rows, columns = self.queries[tokens], self.keys[keys]
        count = self.q.shape[1]
        shared = [head * self.k.shape[1] // count for head in range(count)[heads]]
        k = self.k[:, shared][:, :, columns].float()
        logits = (self.q[:, heads][:, :, rows].float() * self.factor) @ k.mT
        if self.mask is not None:
            mask = self.mask if self.mask.shape[1] == 1 else self.mask[:, heads]
            mask = mask if mask.shape[2] == 1 else mask[:, :, rows]
            logits += mask if mask.shape[3] == 1 else mask[..., columns]
        return logits

    def _whole(self, values: Tensor) -> Tensor:
        """Nothing where a mask hides a whole row or column."""
        return values if self.mask is None else values.nan_to_num_(0.0)

    def _heads(self) -> Iterator[slice]:
        """Heads that fit, with their queries and keys in float32; on a CPU one after the other."""
        batch, count, queries, dim = self.q.shape
        each = 4 * batch * dim * (queries + self.k.shape[2])
        fitting = 1 if self.q.device.type == "cpu" else max(1, _SCRATCH_BYTES // each)
        for first in range(0, count, fitting):
            yield slice(first, min(first + fitting, count))

    def _tiles(self, tokens: Tensor, heads: slice, others: int) -> Iterator[Tensor]:
        """As many tokens at once as fit, each with so many logits."""
        room = _CACHE_BYTES if self.q.device.type == "cpu" else _SCRATCH_BYTES // 4
        size = max(1, room // (4 * len(self.q) * (heads.stop - heads.start) * others))
        for first in range(0, len(tokens), size):
            yield tokens[first : first + size]


def _touched(asked: Tensor, device: torch.device) -> Tensor:
    """The tokens of any place, found on the CPU: asking a device would wait for it."""
    return asked.any(0).nonzero().squeeze(-1).to(device)


def _positions(order: tuple[int, ...] | None, count: int, device: torch.device) -> Tensor:
    if order is None:
        return torch.arange(count, device=device)
    return torch.tensor(order, device=device)


class PointSums:
    """The looks of one run, added up: each layer by itself, each step, or as many as must be.

    planned: how many steps are to come. What the first step takes decides how many neighbouring
    ones are kept together, so that it all stays within POINT_BYTES, or one step's worth.
    """

    def __init__(self, places: tuple[AskedPlace, ...], planned: int) -> None:
        self.places = places
        self._planned = planned
        self._together = 1  # steps to a group; told by the first that is finished
        self._open: dict[Layer, Looks] = {}
        self._grids: dict[Layer, tuple[Grid, ...]] = {}  # of the result, and of each reference
        # By layer and group: the sums of its steps' means, and how many of them each is of.
        self._closed: dict[tuple[Layer, int], list[tuple[Tensor, Tensor]]] = {}

    def add(self, layer: Layer, found: Looks) -> None:
        """Take in one call."""
        self._grids[layer] = (found.grid, *found.pictures)
        before = self._open.get(layer)
        if before is not None:
            found = Looks(
                tuple(a + b for a, b in zip(before.rows, found.rows, strict=True)),
                before.row_weight + found.row_weight,
                tuple(a + b for a, b in zip(before.columns, found.columns, strict=True)),
                before.column_weight + found.column_weight,
                found.grid,
                found.pictures,
            )
        self._open[layer] = found

    def close(self, step: int) -> None:
        """The step of this number among those recorded is finished: to the CPU with it."""
        if not self._open:
            return
        if not self._closed:
            self._together = max(1, math.ceil(self._step_bytes() * self._planned / POINT_BYTES))
        for layer, found in self._open.items():
            key = layer, step // self._together
            means = [
                ((sums / weight.clamp(min=_TINY)).cpu(), (weight > 0).float().cpu())
                for sums, weight in zip(found.sums, found.weights, strict=True)
            ]
            before = self._closed.get(key)
            if before is not None:
                means = [(a + b, n + m) for (a, n), (b, m) in zip(before, means, strict=True)]
            self._closed[key] = means
        self._open = {}

    def _step_bytes(self) -> int:
        """What the open step takes in a recording, where its layers are on the finest grids."""
        finest, tracks = self.grids(), self._tracks()
        return sum(
            4 * sums.shape[:-1].numel() * finest[side].area
            for found in self._open.values()
            for sums, (_, _, side) in zip(found.sums, tracks, strict=True)
        )

    def _tracks(self) -> list[tuple[str, int, int]]:
        """What `Looks.sums` are, in order: direction, reference, and which of `grids` it is on."""
        references = range(len(self.grids()) - 1)
        on_result = any(place.reference == RESULT for place in self.places)
        rows = [("g2r", r, 1 + r) for r in references if on_result]
        return rows + [("r2g", r, 0) for r in references]

    def groups(self, steps: list[int]) -> tuple[int, ...]:
        """In which group each of the recorded steps is kept, from 0."""
        numbers = [step // self._together for step in steps]
        order = sorted(set(numbers))
        return tuple(order.index(number) for number in numbers)

    def grids(self) -> tuple[Grid, ...]:
        """The finest of any layer: of the result, and of each reference."""
        return tuple(
            max(grids, key=lambda grid: grid.area)
            for grids in zip(*self._grids.values(), strict=True)
        )

    def arrays(self, steps: list[int], layers: tuple[Layer, ...]) -> dict[str, Tensor]:
        """The arrays `point.…` of a Recording; of a layer and group not seen they are zero."""
        grids = self.grids()
        numbers = sorted({step // self._together for step in steps})
        kept: dict[str, Tensor] = {}
        for track, (direction, r, side) in enumerate(self._tracks()):
            table: list[Tensor] = []
            for number in numbers:
                for layer in layers:
                    found = self._closed.get((layer, number))
                    if found is None:
                        table.append(torch.zeros(()))
                        continue
                    sums, count = found[track]
                    mean = sums / count.clamp(min=1)
                    table.append(spread(mean, self._grids[layer][side], grids[side]))
            shape = max((one.shape for one in table), key=len)
            if shape[2] == 0:
                continue
            full = torch.stack([one.expand(shape) for one in table], 1)
            full = full.reshape(
                shape[0], len(numbers), len(layers), *shape[1:3], *grids[side].shape
            )
            for kind, definition in enumerate(("paper", "model")):
                kept[f"point.{definition}.{direction}.{r}"] = full[:, :, :, kind].contiguous()
        return kept
