"""`attention_marginals` on an NVIDIA card: the logits are made twice and never reach its memory.

Each quantity needs the sums that its exponentials are divided by, so there are two passes:

1. the generated queries with all keys: each row's log-sum over each span, which gives the shares,
   and each reference token's log-sum over the generated tokens;
2. the generated queries with each reference's keys again: all that is divided by those sums, both
   directions of both definitions; head after head, so that the correspondence is added up over
   heads, and pooled, where it is made.

Triton comes with torch's CUDA builds. Where it is missing, cannot compile, or gives other sums
than the plain path in a trial before its first use, the plain path is used.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..tokens import Grid, Role, Span, TokenLayout, grid_of, pooling_weights, spread
from .blocked import blocked_marginals
from .marginals import SCRATCH_BYTES, Marginals, Workspace
from .pooling import correspondence_grid

PARTIAL_BYTES = 64 * 2**20  # of what blocks leave to be added up, at once
LARGEST_DIM = 256
_LARGEST_OFFSET = 2**31  # within one item and head, which the kernels count in 32 bits
_CLOSE = 1e-4  # of the largest value: how near the kernels' sums must come to the plain path's
_log = logging.getLogger(__name__)


def triton_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float,
    mask: Tensor | None,
    weights: Tensor | None,
    correspondence: bool,
) -> Marginals | None:
    """What `blocked_marginals` gives, or None where the kernels are not for this call.

    q: of the generated tokens alone. The first call of a kind of inputs on a device compiles and
    tries the kernels, which waits for the device; later calls do not wait.
    """
    if mask is not None or weights is not None or not _suits(q, k, layout):
        return None
    kind = (q.device, q.dtype, q.shape[-1])
    if not _TRIALS.passed(*kind):
        return None
    try:
        return kernel_marginals(q, k, layout, scale=scale, correspondence=correspondence)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # whatever a compiler or a driver says of a shape not tried
        _TRIALS.fail(*kind, _first_line(error))
        return None


def _suits(q: Tensor, k: Tensor, layout: TokenLayout) -> bool:
    """Whether the kernels are made for such a call."""
    return (
        q.device.type == "cuda"
        and torch.version.hip is None
        and q.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and k.dtype == q.dtype
        and q.shape[-1] <= LARGEST_DIM
        and q.shape[1] % k.shape[1] == 0
        and all(x.shape[2] * max(x.stride(2), x.shape[3]) < _LARGEST_OFFSET for x in (q, k))
        and all(span.softmax == 0 and span.length > 0 for span in layout.keys)
    )


@dataclass(frozen=True)
class Tile:
    """How many queries and keys a program of a kernel takes at once, and with how many warps."""

    rows: int
    columns: int
    warps: int
    stages: int


def tiles(dtype: torch.dtype, dim: int) -> tuple[Tile, Tile]:
    """Those of the first and of the second pass: what fits into a card's registers.

    The second keeps two more tiles, of the correspondence, all the while.
    """
    if dtype == torch.float32:  # without tensor cores
        return Tile(32, 32, 8, 1), Tile(32, 32, 8, 1)
    if padded(dim) > 128:
        return Tile(64, 64, 4, 2), Tile(64, 64, 8, 1)
    return Tile(128, 64, 4, 3), Tile(128, 64, 8, 2)


def padded(count: int) -> int:
    """The width the kernels need for so many: a power of two, and at least a tensor core's."""
    return max(16, 1 << (count - 1).bit_length())


# --- the two passes ----------------------------------------------------------------------------


def kernel_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float,
    correspondence: bool,
) -> Marginals:
    """What `blocked_marginals` gives, by the kernels, of a call that suits them."""
    references = layout.references
    q, k = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k))
    batch, heads, queries, dim = q.shape
    tile = tiles(q.dtype, dim)[1]
    cuts = [
        (
            pooling_plan(grid_of(layout.generated), tile.rows, correspondence, True, q.device),
            pooling_plan(grid_of(span), tile.columns, correspondence, False, q.device),
        )
        for span in references
    ]

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float32, device=q.device)

    share = zeros(batch, heads, 2 + len(references), queries)
    paper_r2g = zeros(batch, heads, len(references), queries)
    g2r = tuple(zeros(batch, heads, 2, span.length) for span in references)
    matches = [zeros(batch, 2, one.cells, other.cells) for one, other in cuts if correspondence]
    on_device = contextlib.nullcontext() if q.device.type == "cpu" else torch.cuda.device(q.device)
    with on_device:
        for here in _chunks(batch, heads, cuts, correspondence):
            part = _Part(q[here], k[here[0]], here[1].start, heads // k.shape[1], scale)
            log_sums = [part.log_sums(span) for span in layout.keys]
            portions = torch.stack([over_columns for over_columns, _ in log_sums]).softmax(0)
            found = iter(range(len(references)))
            for span, sums, portion in zip(layout.keys, log_sums, portions, strict=True):
                if span.role is not Role.REFERENCE:
                    share[here][:, :, 0 if span.role is Role.TEXT else 1] += portion
                    continue
                r = next(found)
                share[here][:, :, 2 + r] = portion
                over_generated, over_reference, pairs = part.marginals(
                    span, *sums, portion, *cuts[r], correspondence
                )
                paper_r2g[here][:, :, r] = over_generated.div_(span.length)
                g2r[r][here] = over_reference.div_(queries)
                if pairs is not None:
                    matches[r][here[0]] += pairs.div_(heads)
    return Marginals(share, paper_r2g, g2r, tuple(matches))


@dataclass(frozen=True)
class _Part:
    """Some items and heads of a call: q (items, heads, rows, dim), k (items, key heads, …).

    first_head: the call's number of its first; heads_each: how many share a key head.
    """

    q: Tensor
    k: Tensor
    first_head: int
    heads_each: int
    scale: float

    def _inputs(self, span: Span) -> tuple[Tensor, Tensor]:
        return self.q, self.k[:, :, span.slice]

    @property
    def _layout(self) -> tuple[int, ...]:
        """Where the kernels find what of the inputs."""
        heads = (self.q.shape[1], self.first_head, self.heads_each)
        return *self.q.stride()[:3], *self.k.stride()[:3], *heads

    def _options(self, tile: Tile) -> dict[str, int]:
        """What both kernels are compiled for."""
        return {
            "BLOCK_ROWS": tile.rows,
            "BLOCK_COLUMNS": tile.columns,
            "BLOCK_DIM": padded(self.q.shape[-1]),
            "num_warps": tile.warps,
            "num_stages": tile.stages,
        }

    def _empty(self, *shape: int) -> Tensor:
        return torch.empty(shape, dtype=torch.float32, device=self.q.device)

    def log_sums(self, span: Span) -> tuple[Tensor, Tensor]:
        """Of the logits with a span's keys, over them and over all rows: (items, heads, rows),
        (items, heads, keys). The second of a reference only."""
        items, heads, rows, dim = self.q.shape
        tile = tiles(self.q.dtype, dim)[0]
        blocks = math.ceil(rows / tile.rows)
        over_rows = span.role is Role.REFERENCE
        sums = self._empty(items, heads, rows)
        parts = self._empty(items, heads, blocks, span.length if over_rows else 0)
        _kernels().log_sums[blocks, items * heads](
            *(*self._inputs(span), sums, parts),
            *(*self._layout, rows, span.length, dim, self.scale),
            WITH_COLUMNS=over_rows,
            **self._options(tile),
        )
        return sums, parts.logsumexp(2)

    def marginals(
        self,
        span: Span,
        row_sums: Tensor,
        column_sums: Tensor,
        share: Tensor,
        by_row: PoolingPlan,
        by_column: PoolingPlan,
        correspondence: bool,
    ) -> tuple[Tensor, Tensor, Tensor | None]:
        """The sums of one reference over its tokens, (items, heads, rows), of M_g; over the rows,
        (items, heads, 2, keys), of M_r and the model's; and of both over heads, pooled, (items, 2,
        generated cells, reference cells)."""
        items, heads, rows, dim = self.q.shape
        r2g = self._empty(items, heads, by_column.blocks, rows)
        g2r = self._empty(items, heads, 2, by_row.blocks, span.length)
        pairs = self._empty(items, 2, by_row.slots, by_column.slots) if correspondence else None
        at_once = heads if correspondence else 1
        grid = (by_column.blocks, by_row.blocks, items * heads // at_once)
        _kernels().marginal_sums[grid](
            *(*self._inputs(span), row_sums, column_sums, share, by_row.order, by_column.order),
            *(by_row.weights, by_column.weights, r2g, g2r, g2r if pairs is None else pairs),
            *(*self._layout, at_once, rows, span.length, dim, self.scale),
            *(by_row.slots // by_row.blocks, by_column.slots // by_column.blocks),
            WITH_PAIRS=correspondence,
            ROW_CELLS=by_row.pooled,
            COLUMN_CELLS=by_column.pooled,
            **self._options(tiles(self.q.dtype, dim)[1]),
        )
        if pairs is not None:
            pairs = by_column.gathered(by_row.gathered(pairs, -2), -1)
        return r2g.sum(2), g2r.sum(3), pairs


def _kernels() -> Any:
    """Where something runs them: without Triton there is no such module."""
    from . import triton_kernels

    return triton_kernels


def _chunks(
    batch: int, heads: int, cuts: list[tuple[PoolingPlan, PoolingPlan]], correspondence: bool
) -> Iterator[tuple[slice, slice]]:
    """Cut a call into items × heads that leave no more than PARTIAL_BYTES to be added up."""
    pair = item = 0
    for by_row, by_column in cuts:
        tokens = (by_row.tokens * by_column.blocks, 2 * by_row.blocks * by_column.tokens)
        pair = max(pair, 4 * sum(tokens))
        item = max(item, 8 * by_row.slots * by_column.slots * correspondence)
    items = PARTIAL_BYTES // (heads * pair + item)
    if items:
        for first in range(0, batch, items):
            yield slice(first, first + items), slice(0, heads)
        return
    some = max(1, PARTIAL_BYTES // pair)
    for number, first in itertools.product(range(batch), range(0, heads, some)):
        yield slice(number, number + 1), slice(first, first + some)


# --- pooling -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class PoolingPlan:
    """The tokens of one picture in blocks of neighbours, and how they are pooled to its cells.

    A block has a slot for each cell it touches; a cell that several blocks touch is in several.
    order: (blocks · size,), the tokens of each block, -1 where it has no more. pooled: how many
    cells the kernels take a block to touch; 0 where tokens are not pooled, but slots and cells
    themselves. weights: (blocks, pooled, size), the part each token is of each cell. places:
    (most, cells), the slots of each cell; there: (most, cells), 1 for those, 0 for what fills up.
    """

    tokens: int
    blocks: int
    slots: int
    pooled: int
    order: Tensor
    weights: Tensor
    places: Tensor
    there: Tensor

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return self.places.shape[1]

    def gathered(self, pairs: Tensor, axis: int) -> Tensor:
        """From slots to cells along the last axis, -1, or the one before it, -2."""
        total = pairs.index_select(axis, self.places[0])
        for place, there in zip(self.places[1:], self.there[1:], strict=True):
            more = pairs.index_select(axis, place)
            total += more.mul_(there if axis == -1 else there.unsqueeze(-1))
        return total


@lru_cache(maxsize=16)  # small constants, slow to find out; a call has two for each reference
def pooling_plan(
    grid: Grid, size: int, pooled: bool, mean: bool, device: torch.device
) -> PoolingPlan:
    """Blocks of so many tokens of a grid; its cells are the mean of their tokens, or the sum."""
    cells = correspondence_grid(grid)
    blocks = math.ceil(grid.area / size)
    order = torch.full((blocks * size,), -1, dtype=torch.int32)
    if not pooled or cells == grid:
        order[: grid.area] = torch.arange(grid.area)
        order, places = order.to(device), torch.arange(grid.area, device=device)[None]
        return PoolingPlan(
            grid.area, blocks, len(order), 0, order, order, places, torch.ones_like(places)
        )
    order[: grid.area] = _neighbours(grid, size)
    down, across = pooling_weights(grid, cells)
    frame = grid.height * grid.width
    if mean:
        times = down.new_full((cells.area,), 1 / grid.frames)
    else:  # how many tokens of a frame a cell is of
        times = spread(down.new_ones(frame), grid.one_frame, cells)
    touching: list[tuple[Tensor, Tensor]] = []
    for block in range(blocks):
        tokens = order[block * size : (block + 1) * size]
        places = tokens[tokens >= 0] % frame
        portions = down[:, None, places // grid.width] * across[:, places % grid.width]
        numbers = portions.any(2).flatten().nonzero().squeeze(1)
        touching.append((numbers, portions.flatten(0, 1)[numbers] * times[numbers, None]))
    most = max(len(numbers) for numbers, _ in touching)
    weights = torch.zeros(blocks, padded(most), size)
    slots: list[list[int]] = [[] for _ in range(cells.area)]
    for block, (numbers, portions) in enumerate(touching):
        weights[block, : portions.shape[0], : portions.shape[1]] = portions
        for slot, number in enumerate(numbers):
            slots[int(number)].append(block * most + slot)
    places = torch.tensor(list(itertools.zip_longest(*slots, fillvalue=-1)), device=device)
    return PoolingPlan(
        grid.area,
        blocks,
        blocks * most,
        padded(most),
        order.to(device),
        weights.to(device),
        places.clamp(min=0),
        (places >= 0).float(),
    )


def _neighbours(grid: Grid, size: int) -> Tensor:
    """All tokens, so that each `size` of them are near each other, and touch few cells.

    In bands of rows from the top, each from left to right, column by column; what stands at one
    place in all frames of a video together.
    """
    places = max(1, size // grid.frames)
    band = 2 ** (int(math.log2(places)) // 2)  # so that a block is about a square
    place = torch.arange(grid.height * grid.width)
    row, column = place // grid.width, place % grid.width
    order = torch.argsort((row // band * grid.width + column) * band + row % band)
    frames = torch.arange(grid.frames) * (grid.height * grid.width)
    return (order[:, None] + frames).flatten()


# --- the trial before the first use ------------------------------------------------------------


class _Trials:
    """Which kinds of inputs the kernels serve: each is tried once, on the device itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._good: dict[tuple[torch.device, torch.dtype, int], bool] = {}
        self._told: set[tuple[torch.device, str]] = set()

    def passed(self, device: torch.device, dtype: torch.dtype, dim: int) -> bool:
        """Whether the kernels may be used; the first time, they are tried."""
        with self._lock:
            if (device, dtype, dim) not in self._good:
                self._note(device, dtype, dim, _trouble(device, dtype, dim))
            return self._good[device, dtype, dim]

    def fail(self, device: torch.device, dtype: torch.dtype, dim: int, trouble: str) -> None:
        """They passed, and failed later: they are not used any more."""
        with self._lock:
            self._note(device, dtype, dim, trouble)

    def _note(self, device: torch.device, dtype: torch.dtype, dim: int, trouble: str) -> None:
        self._good[device, dtype, dim] = not trouble
        if trouble and (device, trouble) not in self._told:
            self._told.add((device, trouble))
            _log.warning(
                "I2AM: the fused kernels are off for %s heads of %d on %s, recording takes longer "
                "and gives the same: %s",
                *(str(dtype).removeprefix("torch."), dim, device, trouble),
            )


_TRIALS = _Trials()


def _trouble(device: torch.device, dtype: torch.dtype, dim: int) -> str:
    """What is wrong with the kernels, or nothing: small calls with all that they serve."""
    try:
        for q, k, layout, options, close in _trial_calls(dtype, dim):
            found = kernel_marginals(q.to(device), k.to(device), layout, **options)
            wanted = blocked_marginals(q, k, layout, **options, **_PLAIN)
            for name, one, other in zip(_NAMES, _sums(found), _sums(wanted), strict=True):
                off = max((_difference(*pair) for pair in zip(one, other, strict=True)), default=0)
                if not off <= close:  # nor if it is no number
                    return f"{name} differs by {off:.1e}"
    except Exception as error:  # of the compiler, of the driver, or for want of Triton
        return _first_line(error)
    return ""


_PLAIN: dict[str, Any] = {
    "mask": None,
    "weights": None,
    "scratch_bytes": SCRATCH_BYTES,
    "workspace": Workspace(),
}
_NAMES = ("share", "R2G", "G2R", "correspondence")


def _sums(marginals: Marginals) -> tuple[tuple[Tensor, ...], ...]:
    """As many as there are names."""
    return (marginals.share,), (marginals.paper_r2g,), marginals.g2r, marginals.correspondence


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest, in parts of the largest value."""
    return float((one.cpu() - other).abs().max() / other.max())


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _trial_calls(
    dtype: torch.dtype, dim: int
) -> Iterator[tuple[Tensor, Tensor, TokenLayout, dict[str, Any], float]]:
    """q, k, layout, options, and how near the sums must come: several blocks each way, a shared
    key head, pooling by whole cells and by parts of them, rows and columns of all levels."""
    generated = Grid(36, 5, (35.5, 4.75))
    pictures = (None, generated, Grid(64, 2), Grid(3, 7))
    roles = (Role.TEXT, Role.GENERATED, Role.REFERENCE, Role.REFERENCE)
    rows = (Span(Role.GENERATED, 0, generated.area, generated),)
    for order, level, scale, correspondence, close in (
        ((0, 1, 2, 3), 0.0, dim**-0.5, True, _CLOSE),
        ((2, 1, 3, 0), 100.0, 1.0, True, 20 * _CLOSE),
        ((3, 0, 2, 1), 0.0, 0.1, False, _CLOSE),
    ):
        keys: list[Span] = []
        for index in order:
            start, grid = keys[-1].stop if keys else 0, pictures[index]
            keys.append(Span(roles[index], start, start + (grid.area if grid else 9), grid))
        random = torch.Generator().manual_seed(1)  # of its own: the host's stays where it is
        q = torch.randn(2, 2, generated.area, dim, generator=random)
        k = torch.randn(2, 1, keys[-1].stop, dim, generator=random)
        if level:  # logits are lifted by so much, each row and each column by itself
            q[..., 0], k[..., 1] = (x[..., 0].clamp(-1, 1) * level for x in (q, k))
            q[..., 1] = k[..., 0] = 1.0
        options = {"scale": scale, "correspondence": correspondence}
        yield q.to(dtype), k.to(dtype), TokenLayout(rows, tuple(keys)), options, close
