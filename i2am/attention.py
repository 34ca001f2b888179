"""One attention call → what it says about its references, without ever holding its full matrix.

With the logits S = q·kᵀ/√d of the generated tokens g (rows) and the tokens r of one reference
(columns), the paper's two score matrices are (I2AM, section 3):

    M_g = softmax of S over g, one distribution over the result for each reference token;  (R2G)
    M_r = softmax of S over r, one distribution over the reference for each generated token. (G2R)

Their mean over the other side's tokens is a map over one picture. The model's own softmax runs
over *all* keys; summed over the reference it is the share of its attention a generated token
gives it, which is the model's R2G, and its column means are the model's G2R. Both definitions are
built from generated queries: in the last block the queries of reference tokens are never trained.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from .errors import LayoutMismatch
from .geometry import Grid, Role, Span, TokenLayout, means_of_lines, runs, spread

SCRATCH_BYTES = 256 * 2**20
CORRESPONDENCE_SIDE = 32
_CACHE_BYTES = 4 * 2**20  # of logits at once on a CPU: every pass after the first finds them near
SMALL_BYTES = 2**20  # of logits: a call so small is a matter of how many operations it takes
_FEW = 64  # places of a row
_ENOUGH_ROWS = 256  # at once: a product of fewer is slow
_LOWEST = torch.finfo(torch.float32).min
_WEAK = 1e-25  # a column sum below this may have lost what underflowed; a float32 ends at 1e-38


@dataclass(frozen=True)
class Marginals:
    """The sums of one attention call, float32, on the device of its queries.

    share: (batch, heads, 2 + references, generated). The attention each generated token gives to
        the text, to the picture itself, to reference 1, 2, …; sums to one over axis 2.
    paper_r2g: (batch, heads, references, generated). Mean over r of M_g; sums to one over g.
    g2r: per reference (batch, heads, 2, reference). Mean over g of M_r, which sums to one, and of
        the model's attention, which sums to the mean share.
    correspondence: per reference (batch, 2, generated cells, reference cells), mean over heads of
        M_r, whose rows sum to one, and of the model's attention, whose rows sum to the share;
        pooled to the grids of `correspondence_grid`. Empty if it was not asked for.
    """

    share: Tensor
    paper_r2g: Tensor
    g2r: tuple[Tensor, ...]
    correspondence: tuple[Tensor, ...]


@dataclass(frozen=True)
class Overheard:
    """What a model's own attention computes on its way, masks included, float32.

    logits, and their softmax over all keys: (batch, heads, queries, keys).
    """

    logits: Tensor
    softmax: Tensor

    def of(self, items: slice) -> Overheard:
        """Of some of the batch."""
        return Overheard(self.logits[items], self.softmax[items])


class Workspace:
    """Buffers that are used again: a system takes its time to hand out fresh memory."""

    def __init__(self) -> None:
        self._buffers: dict[tuple[object, torch.device], Tensor] = {}

    def take(self, name: object, device: torch.device, *shape: int) -> Tensor:
        """A float32 tensor of this shape, of any values; what had this name before is lost."""
        size = math.prod(shape)
        buffer = self._buffers.get((name, device))
        if buffer is None or buffer.numel() < size:
            buffer = self._buffers[name, device] = torch.empty(size, device=device)
        return buffer[:size].view(shape)


@lru_cache(maxsize=64)
def correspondence_grid(grid: Grid) -> Grid:
    """The grid a correspondence is pooled to on one side: of all frames of a video together."""
    return grid.at_most(CORRESPONDENCE_SIDE).one_frame


def _is_kept(grid: Grid) -> bool:
    """Whether a correspondence has this very grid on one side."""
    return grid.frames == 1 and max(grid.sides) <= CORRESPONDENCE_SIDE


def mean_over_cells(rows: Tensor, source: Grid, target: Grid) -> Tensor:
    """Average (…, source area, n) over the source cells in each target cell, by their area."""
    if source == target:
        return rows
    pooled = spread(rows.mT, source, target)
    return (pooled / spread(rows.new_ones(source.area), source, target)).mT


def attention_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float | None = None,
    mask: Tensor | None = None,
    weights: Tensor | None = None,
    correspondence: bool = True,
    scratch_bytes: int = SCRATCH_BYTES,
    workspace: Workspace | None = None,
    heard: Overheard | None = None,
) -> Marginals:
    """Sum the attention between the generated tokens and each reference.

    q: (batch, heads, queries, dim), k: (batch, heads or fewer, keys, dim), as the model's own
    attention gets them, after positions and norms; fewer key heads are shared by groups of heads.
    scale: of the logits, 1/√dim if left out. mask: as torch's scaled_dot_product_attention takes
    it, broadcastable to (batch, heads, queries, keys). weights: (batch, softmaxes, queries), how
    strongly what each softmax found counts at each place, where the layout has several; shares
    are of the sum, and both definitions count a place by its weight.

    workspace: memory of earlier calls to use again, by one thread at a time. heard: of this very
    call, so that it need not be computed again; on the CPU.

    Works in float32, block by block within `scratch_bytes`. Raises LayoutMismatch if the layout
    does not account for every key, or holds no reference.
    """
    if layout.query_order is not None or layout.key_order is not None:
        heard = None
    q, k, mask = _in_order(q, k, mask, layout)
    if layout.key_count != k.shape[2]:
        raise LayoutMismatch(f"{k.shape[2]} keys, but the layout accounts for {layout.key_count}")
    references = layout.references
    if not references:
        raise LayoutMismatch("the call holds no reference")
    rows = layout.generated
    batch, heads, _, dim = q.shape
    q = q[:, :, rows.slice]
    if mask is not None:
        mask = _rows_of(mask, rows, q.shape[2], k.shape[2])
    factor = dim**-0.5 if scale is None else scale
    workspace = workspace or Workspace()
    if weights is None and not any(span.softmax for span in layout.keys):
        if heard is not None and rows.stop <= heard.softmax.shape[2]:
            heard = Overheard(heard.logits[:, :, rows.slice], heard.softmax[:, :, rows.slice])
        elif _may_wait(q.device) and 4 * batch * heads * rows.length * k.shape[2] <= SMALL_BYTES:
            heard = _softmax_at_once(q, k, factor, mask)
        found = None if heard is None else _marginals_of(heard, layout, correspondence)
        if found is not None:
            return found
    portions = emphasis = None
    if weights is not None:
        weights = weights[..., rows.slice].float()
        portions = weights / weights.sum(1, keepdim=True)
        emphasis = (weights / weights.mean(-1, keepdim=True)).nan_to_num(0.0)  # mean one, or none

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float32, device=q.device)

    share = zeros(batch, heads, 2 + len(references), rows.length)
    paper_r2g = zeros(batch, heads, len(references), rows.length)
    g2r = tuple(zeros(batch, heads, 2, span.length) for span in references)
    matches = [
        _Match(zeros, batch, _grid(rows), _grid(span)) for span in references if correspondence
    ]

    for items, some_heads, tiles, keep in _blocks(q, k, layout, scratch_bytes):
        here = (items, some_heads)
        block = _Block(
            q[here].float() * factor,
            k[items, _key_heads(some_heads, heads, k.shape[1])].float().mT,
            _part_of(mask, here),
            workspace,
        )
        columns = [_Columns() for _ in references]
        kept: list[list[_Softmax]] = []
        for tile in tiles:
            # What is kept has a buffer for each tile, what is not one for all.
            names = [
                (span, tile.start if keep and span in references else -1) for span in layout.keys
            ]
            found = [block.softmax(tile, span, (span, at)) for span, at in names]
            portion = None if portions is None else portions[items, :, tile]
            row_share = _share_out(found, layout, portion, share[here][..., tile])
            over = [f for f, span in zip(found, layout.keys, strict=True) if span in references]
            for index, (span, m_r) in enumerate(zip(references, over, strict=True)):
                level, lift = columns[index].lift(m_r.log_sum)
                even = torch.ones_like(lift)
                if emphasis is not None:
                    even *= emphasis[items, span.softmax, tile].unsqueeze(1)
                # One product takes both G2R and the columns' sums.
                factors = torch.stack((even, row_share[index], lift), dim=-2)
                sums = factors @ m_r.values
                g2r[index][here] += sums[:, :, :2]
                columns[index].add(sums[:, :, 2], level)
                if correspondence:
                    matches[index].add(items, tile, factors[:, :, :2], m_r.values)
            kept.append(over if keep else [])
        for index, span in enumerate(references):
            if not _may_wait(q.device):  # there, which columns are weak is not to be asked
                paper_r2g[here][:, :, index] += columns[index].mean_of(block, span, scratch_bytes)
                continue
            for tile, over in zip(tiles, kept, strict=True):
                m_r = over[index] if keep else block.softmax(tile, span, (span, -1))
                paper_r2g[here][:, :, index, tile] = columns[index].mean_of_rows(m_r)
            weak = columns[index].weak
            if weak is not None:
                paper_r2g[here][:, :, index] += columns[index].mean_of(
                    block, span, scratch_bytes, weak
                )

    for sums in g2r:
        sums /= rows.length
    if emphasis is not None:
        paper_r2g *= torch.stack([emphasis[:, span.softmax] for span in references], 1).unsqueeze(1)
    if mask is not None or emphasis is not None:
        # Keys hidden from every query have no column of M_g: leave them out.
        paper_r2g /= paper_r2g.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return Marginals(share, paper_r2g, g2r, tuple(match.mean(heads) for match in matches))


def _softmax_at_once(q: Tensor, k: Tensor, factor: float, mask: Tensor | None) -> Overheard:
    """The logits of a call, and their softmax over all keys."""
    k = k.float()
    if k.shape[1] != q.shape[1]:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    logits = (q.float() * factor) @ k.mT
    if mask is not None:
        logits += mask
    return Overheard(logits, logits.softmax(-1))


def _marginals_of(heard: Overheard, layout: TokenLayout, correspondence: bool) -> Marginals | None:
    """The sums of a call from one softmax over all its keys, of the generated rows.

    With P that softmax, s_r a row's sum of it over reference r (its share), and L the log of what
    the row was divided by: M_r = P / s_r, and M_g = P·exp(L) over its column's sum.

    None if a share or a column's sum is so small that float32 may have lost what it is made of.
    """
    references, rows = layout.references, layout.generated
    count, seen = len(references), slice(references[0].start, references[-1].stop)
    # Of each reference: its places among those seen; its own row and the last of `count` + 1.
    places = [slice(s.start - seen.start, s.stop - seen.start) for s in references]
    kinds = [slice(index, count + 1, count - index) for index in range(count)]
    logits, values = heard.logits[..., seen], heard.softmax[..., seen]

    share = _shares(heard.softmax, layout)
    over = share[:, :, 2:]
    if not float(over.amin()) >= _WEAK:  # which is so of what is not a number, too
        return None
    log_sum = _log_sum(logits, values)
    lift = (log_sum - log_sum.amax(-1, keepdim=True)).exp_().unsqueeze(2)
    # One product takes G2R in both definitions and the columns' sums.
    factors = torch.cat((over.reciprocal(), torch.ones_like(lift), lift), 2)
    sums = factors @ values
    columns = sums[:, :, -1:]
    if not float(columns.amin()) >= _WEAK:
        return None
    inverse = columns.reciprocal()
    means = [inverse[..., place] @ values[..., place].mT for place in places]
    lengths = lift.new_tensor([[span.length] for span in references])
    g2r = sums / rows.length
    return Marginals(
        share,
        torch.cat(means, 2) * (lift / lengths),
        tuple(g2r[:, :, k, place] for k, place in zip(kinds, places, strict=True)),
        tuple(
            _match_of(factors[:, :, k], values[..., place], _grid(rows), _grid(span))
            for k, place, span in zip(kinds, places, references, strict=True)
            if correspondence
        ),
    )


def _shares(softmax: Tensor, layout: TokenLayout) -> Tensor:
    """What each row of a softmax gives text, the picture itself and each reference."""
    shares: list[Tensor | None] = [None, None]
    for span in layout.keys:
        sums = softmax[..., span.slice].sum(-1)
        if span.role is Role.REFERENCE:
            shares.append(sums)
            continue
        role = int(span.role is Role.GENERATED)
        before = shares[role]
        shares[role] = sums if before is None else before + sums
    none = softmax.new_zeros(())
    return torch.stack([none.expand(softmax.shape[:-1]) if s is None else s for s in shares], 2)


def _log_sum(logits: Tensor, values: Tensor) -> Tensor:
    """The log of what rows were divided by when their softmax was taken: (…, rows).

    Any place that did not underflow tells; the largest of a few does, or else that of all.
    """
    few = values.shape[-1] > 2 * _FEW and float(values[..., :_FEW].amax(-1).amin()) >= _WEAK
    if few:
        logits, values = logits[..., :_FEW], values[..., :_FEW]
    return logits.amax(-1) - values.amax(-1).log_()


def _match_of(weights: Tensor, values: Tensor, rows: Grid, keys: Grid) -> Tensor:
    """Correspondence from (batch, heads, 2, rows) and (batch, heads, rows, keys)."""
    batch, heads, count, width = values.shape
    if 8 * values.numel() <= SMALL_BYTES and _is_kept(rows) and _is_kept(keys):
        return (weights.unsqueeze(-1) * values.unsqueeze(2)).mean(1)
    match = _Match(values.new_zeros, batch, rows, keys)
    at_once = max(1, min(_ENOUGH_ROWS, _CACHE_BYTES // (8 * batch * width)))
    for first in range(0, count, at_once):
        tile = slice(first, min(first + at_once, count))
        match.add(slice(None), tile, weights[..., tile], values[:, :, tile])
    return match.mean(heads)


def _may_wait(device: torch.device) -> bool:
    """Whether reading a value costs no wait for a device that works by itself."""
    return device.type == "cpu"


def _key_heads(some: slice, heads: int, key_heads: int) -> slice | list[int]:
    """The key heads of some heads, which may share them in groups."""
    if key_heads == heads:
        return some
    return [head * key_heads // heads for head in range(heads)[some]]


def _in_order(
    q: Tensor, k: Tensor, mask: Tensor | None, layout: TokenLayout
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The tokens in the order of the layout's spans."""
    if layout.query_order is not None:
        order = torch.tensor(layout.query_order, device=q.device)
        q = q[:, :, order]
        mask = mask[..., order, :] if mask is not None and mask.shape[-2] > 1 else mask
    if layout.key_order is not None:
        order = torch.tensor(layout.key_order, device=k.device)
        k = k[:, :, order]
        mask = mask[..., order] if mask is not None and mask.shape[-1] > 1 else mask
    return q, k, mask


def _grid(span: Span) -> Grid:
    """The grid of a span; tokens without a place of their own count as one row."""
    return span.grid or Grid(1, span.length)


def _rows_of(mask: Tensor, rows: Span, queries: int, keys: int) -> Tensor:
    """The generated rows of a mask, additive, as a (batch|1, heads|1, generated, keys) view."""
    while mask.ndim < 4:
        mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
    if mask.shape[-2] != 1:
        mask = mask[:, :, rows.slice]
    if mask.dtype == torch.bool:
        mask = torch.zeros_like(mask, dtype=torch.float32).masked_fill(~mask, -math.inf)
    return mask.expand(*mask.shape[:2], queries, keys)


def _blocks(
    q: Tensor, k: Tensor, layout: TokenLayout, scratch_bytes: int
) -> Iterator[tuple[slice, slice, list[slice], bool]]:
    """Cut a call into blocks of batch items × heads, each in tiles of queries that fit.

    Also says whether what a block finds over its references can be kept until its columns are
    known; if not, it is computed twice.
    """
    batch, heads, queries, dim = q.shape
    on_cpu = _may_wait(q.device)
    widest = max(span.length for span in layout.keys)
    widths = sum(span.length for span in layout.references)
    pair = 4 * max(queries * widths, 1)  # bytes of what one item and head keeps
    keep = on_cpu and pair <= scratch_bytes // 4
    if not keep:
        pair = 4 * widest
    copies = 8 * dim * (queries + k.shape[2])  # scaled queries, and keys, in float32
    tile_bytes = scratch_bytes // 4 * widest // k.shape[2]  # of its widest span
    if on_cpu:
        tile_bytes = min(tile_bytes, _CACHE_BYTES)
    at_once = tile_bytes // (4 * widest * min(queries, _ENOUGH_ROWS))
    fitting = (at_once, scratch_bytes // 4 // pair, scratch_bytes // 4 // copies, batch * heads)
    pairs = max(1, min(fitting))
    rows = max(1, min(queries, tile_bytes // (4 * widest * pairs)))
    tiles = [slice(first, min(first + rows, queries)) for first in range(0, queries, rows)]
    if pairs >= heads:
        for first in range(0, batch, pairs // heads):
            yield slice(first, first + pairs // heads), slice(0, heads), tiles, keep
        return
    for item in range(batch):
        for first in range(0, heads, pairs):
            yield slice(item, item + 1), slice(first, first + pairs), tiles, keep


@dataclass(frozen=True)
class _Block:
    """The scaled queries (items, heads, rows, dim) and keys (…, dim, keys) of one block."""

    q: Tensor
    k: Tensor
    mask: Tensor | None
    workspace: Workspace

    @property
    def masked(self) -> bool:
        return self.mask is not None

    def logits(self, rows: slice, keys: slice | Tensor, out: Tensor | None = None) -> Tensor:
        """S of some rows and keys: (items, heads, rows, keys)."""
        logits = torch.matmul(self.q[:, :, rows], self.k[..., keys], out=out)
        return logits if self.mask is None else logits.add_(self.mask[:, :, rows][..., keys])

    def softmax(self, rows: slice, keys: Span, name: object) -> _Softmax:
        """M_r of some rows and one span, in the workspace's buffer of this name."""
        shape = (*self.q.shape[:2], rows.stop - rows.start, keys.length)
        out = self.workspace.take(name, self.q.device, *shape)
        return _Softmax.of(self.logits(rows, keys.slice, out), self.masked)


@dataclass(frozen=True)
class _Softmax:
    """The softmax over the keys of one span, each row by itself, so that no row is ever lost.

    values: (items, heads, rows, keys); log_sum: (items, heads, rows), of what was divided by.
    """

    values: Tensor
    log_sum: Tensor

    @staticmethod
    def of(logits: Tensor, masked: bool) -> _Softmax:
        """Overwrites the logits."""
        high = logits.amax(-1)
        values = torch.softmax(logits, -1, out=logits)
        if masked:  # a row that a mask hides altogether has a sum of nothing
            values.nan_to_num_(0.0)
        # The row's largest was exp(high) before it was divided.
        return _Softmax(values, high - values.amax(-1).log_().clamp_(min=_LOWEST))


class _Columns:
    """The sums of M_g's columns, and what follows from them, for one block and reference.

    A column's sum is taken of softmaxes that were made row by row: rows are brought to one
    level, that of the highest. What underflows on the way is below 1e-38, so a column whose sum is
    far above that is exact, and the others, which are rare, are computed by themselves.
    """

    def __init__(self) -> None:
        self._level = torch.zeros(())  # (items, heads, 1)
        self._sums: Tensor | None = None  # (items, heads, keys), relative to the level

    def lift(self, log_sum: Tensor) -> tuple[Tensor, Tensor]:
        """The level of some rows, (items, heads, 1), and their sums relative to it."""
        level = log_sum.amax(-1, keepdim=True).clamp_(min=_LOWEST)
        return level, (log_sum - level).exp_()

    def add(self, sums: Tensor, level: Tensor) -> None:
        """Take in the columns' sums (items, heads, keys) of some rows, relative to their level."""
        if self._sums is None:
            self._sums, self._level = sums, level
            return
        higher = torch.maximum(level, self._level)
        self._sums = self._sums * (self._level - higher).exp_() + sums * (level - higher).exp_()
        self._level = higher

    @property
    def _found(self) -> Tensor:
        assert self._sums is not None, "no rows were added"
        return self._sums

    @property
    def weak(self) -> Tensor | None:
        """Where columns are weak, (items, heads, keys); None if none is. Waits for the device."""
        if float(self._found.amin()) >= _WEAK:
            return None
        return self._found < _WEAK

    def mean_of_rows(self, m_r: _Softmax) -> Tensor:
        """Mean over the columns of M_g of these rows, weak columns left out."""
        inverse = torch.where(self._found < _WEAK, 0, 1 / self._found)
        means = (m_r.values @ inverse.unsqueeze(-1)).squeeze(-1)
        return means * (m_r.log_sum - self._level).exp_() / inverse.shape[-1]

    def mean_of(
        self, block: _Block, span: Span, scratch_bytes: int, weak: Tensor | None = None
    ) -> Tensor:
        """That mean of all rows, column by column: (items, heads, rows). Of the weak ones alone
        if it is told which they are."""
        items, heads, rows, _ = block.q.shape
        if weak is None:
            keys = torch.arange(span.start, span.stop, device=block.q.device)
        else:
            keys = weak.any(0).any(0).nonzero().squeeze(-1) + span.start
        means = block.q.new_zeros(items, heads, rows)
        at_once = max(1, scratch_bytes // (16 * items * heads * rows))
        for first in range(0, len(keys), at_once):
            some = keys[first : first + at_once]
            columns = block.logits(slice(None), some)
            columns = torch.softmax(columns, -2)
            if block.masked:
                columns.nan_to_num_(0.0)
            if weak is not None:
                columns *= weak[..., some - span.start].unsqueeze(-2)
            means += columns.sum(-1)
        return means / span.length


def _share_out(
    found: list[_Softmax], layout: TokenLayout, portions: Tensor | None, share: Tensor
) -> list[Tensor]:
    """Write the shares of these rows; return those of each reference, (items, heads, rows).

    portions: (items, softmaxes, rows), of each softmax in the whole.
    """
    together: dict[int, list[int]] = {}
    for index, span in enumerate(layout.keys):
        together.setdefault(span.softmax, []).append(index)
    parts: dict[int, Tensor] = {}
    for softmax, members in together.items():
        split = torch.stack([found[i].log_sum for i in members]).softmax(0)
        if portions is not None:
            split = split * portions[:, softmax].unsqueeze(1)
        parts |= dict(zip(members, split, strict=True))
    shares: list[Tensor] = []
    for index, span in enumerate(layout.keys):
        if span.role is Role.REFERENCE:
            share[:, :, 2 + len(shares)] = parts[index]
            shares.append(parts[index])
        else:
            share[:, :, 0 if span.role is Role.TEXT else 1] += parts[index]
    return shares


class _Match:
    """The correspondence of one reference, added up over heads, pooled to cells on both sides."""

    def __init__(self, zeros: Callable[..., Tensor], batch: int, rows: Grid, keys: Grid) -> None:
        self._rows, self._keys = rows, keys
        self._to, self._columns = correspondence_grid(rows), correspondence_grid(keys)
        self._sums = zeros(batch, self._to.height, self._to.width, 2, self._columns.area)
        self._lines: tuple[Tensor, Tensor] | None = None
        if rows != self._to:
            down, across = means_of_lines(rows, self._to)
            self._lines = down, across.to(self._sums)  # the CPU tells which lines are touched

    def mean(self, heads: int) -> Tensor:
        """(batch, 2, generated cells, reference cells)."""
        return self._sums.div_(heads * self._rows.frames).flatten(1, 2).transpose(1, 2)

    def add(self, items: slice, tile: slice, weights: Tensor, values: Tensor) -> None:
        """Take in some rows. weights: (items, heads, 2, rows); values: (…, heads, rows, keys)."""
        # For each row, (2, heads) @ (heads, keys): heads are added up before anything is pooled.
        weights = weights.permute(0, 3, 2, 1).contiguous()
        pairs = weights @ values.transpose(1, 2)  # (items, rows, 2, keys)
        pairs = spread(pairs, self._keys, self._columns)
        if self._lines is None:
            self._sums.flatten(1, 2)[items, tile] += pairs
            return
        down, across = self._lines
        for tokens, line, lines, columns in runs(tile, self._rows):
            # (items, lines, columns, 2 × keys), first across and then down
            run = pairs[:, tokens].reshape(len(pairs), lines, -1, 2 * self._columns.area)
            run = across[:, columns] @ run
            share = down[:, line : line + lines]
            touched = share.any(1).nonzero()
            cells = slice(int(touched[0]), int(touched[-1]) + 1)
            into = self._sums[items, cells]
            into += (share[cells].to(run) @ run.flatten(2)).view_as(into)


def _part_of(mask: Tensor | None, here: tuple[slice, slice]) -> Tensor | None:
    """A block's part of a mask that may have one item or head for all."""
    if mask is None:
        return None
    items, heads = (
        one if size > 1 else slice(None) for one, size in zip(here, mask.shape[:2], strict=True)
    )
    return mask[items, heads]
