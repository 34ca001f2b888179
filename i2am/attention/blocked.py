"""One attention call → its marginals, block by block within a memory budget."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..tokens import Role, Span, TokenLayout, grid_of
from .call_inputs import SoftmaxWeights, key_heads, part_of_mask
from .marginals import LOWEST, Marginals, leave_out_hidden, weigh_paper_r2g
from .pooling import CorrespondenceSum
from .products import Factors
from .workspace import CACHE_BYTES, ENOUGH_ROWS, Workspace, can_read_back

WEAK = 1e-25  # a float32 sum below this may have lost what underflowed; a float32 ends at 1e-38


def blocked_marginals(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    *,
    scale: float,
    mask: Tensor | None,
    weights: Tensor | None,
    correspondence: bool,
    scratch_bytes: int,
    workspace: Workspace,
) -> Marginals:
    """As `attention_marginals`, for q of the generated tokens alone.

    mask: additive, (batch|1, heads|1, generated, keys). weights: (batch, softmaxes, generated).
    """
    rows, references = layout.generated, layout.references
    batch, heads, _, _ = q.shape
    softmax_weights = None if weights is None else SoftmaxWeights.of(weights)

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float32, device=q.device)

    share = zeros(batch, heads, 2 + len(references), rows.length)
    paper_r2g = zeros(batch, heads, len(references), rows.length)
    g2r = tuple(zeros(batch, heads, 2, span.length) for span in references)
    correspondences = [
        CorrespondenceSum(zeros, batch, grid_of(rows), grid_of(span))
        for span in references
        if correspondence
    ]
    for items, some_heads, tiles, keep in _blocks(q, k, layout, scratch_bytes):
        here = (items, some_heads)
        block = _Block(
            Factors.of(q[here], k[items, key_heads(some_heads, heads, k.shape[1])], scale),
            part_of_mask(mask, here),
            None if softmax_weights is None else softmax_weights.items(items),
            workspace,
        )
        g2r_here = [sums[here] for sums in g2r]
        block_sums = _BlockSums(items, share[here], paper_r2g[here], g2r_here, correspondences)
        kept = block_sums.add_rows(block, layout, tiles, keep)
        block_sums.add_columns(block, references, tiles, kept, scratch_bytes)

    for sums in g2r:
        sums /= rows.length
    if softmax_weights is not None:
        weigh_paper_r2g(paper_r2g, softmax_weights.emphasis, layout)
    elif mask is not None:
        leave_out_hidden(paper_r2g)
    means = tuple(pairs.mean(heads) for pairs in correspondences)
    return Marginals(share, paper_r2g, g2r, means)


def _blocks(
    q: Tensor, k: Tensor, layout: TokenLayout, scratch_bytes: int
) -> Iterator[tuple[slice, slice, list[slice], bool]]:
    """Blocks of batch items × heads that fit, each with its tiles of queries.

    The last value says whether a block's softmax over the references can be kept until its column
    sums are known. If not, it is computed twice.
    """
    batch, heads, queries, dim = q.shape
    on_cpu = can_read_back(q.device)
    widest = max(span.length for span in layout.keys)
    widths = sum(span.length for span in layout.references)
    pair = 4 * max(queries * widths, 1)  # bytes of what one item and head keeps
    keep = on_cpu and pair <= scratch_bytes // 4
    if not keep:
        pair = 4 * widest
    copies = 8 * dim * (queries + k.shape[2])  # scaled queries, and keys, in float32
    tile_bytes = scratch_bytes // 4 * widest // k.shape[2]  # of its widest span
    if on_cpu:
        tile_bytes = min(tile_bytes, CACHE_BYTES)
    at_once = tile_bytes // (4 * widest * min(queries, ENOUGH_ROWS))
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
    """The queries (items, heads, rows, dim) and keys (…, keys, dim) of one block."""

    factors: Factors
    mask: Tensor | None
    weights: SoftmaxWeights | None
    workspace: Workspace

    @property
    def masked(self) -> bool:
        return self.mask is not None

    def logits(self, rows: slice, keys: slice | Tensor, out: Tensor | None = None) -> Tensor:
        """S of some rows and keys: (items, heads, rows, keys)."""
        logits = self.factors.logits(rows, keys, out)
        return logits if self.mask is None else logits.add_(self.mask[:, :, rows][..., keys])

    def softmax(self, rows: slice, keys: Span, name: object) -> _Softmax:
        """M_r of some rows and one span, in the workspace's buffer of this name."""
        q = self.factors.q
        shape = (*q.shape[:2], rows.stop - rows.start, keys.length)
        out = self.workspace.take(name, q.device, *shape)
        return _Softmax.of(self.logits(rows, keys.slice, out), self.masked)


@dataclass(frozen=True)
class _Softmax:
    """The softmax over the keys of one span, each row on its own, so that no row underflows.

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
        return _Softmax(values, high - values.amax(-1).log_().clamp_(min=LOWEST))


class _BlockSums:
    """The sums of one block, added to its part of the call's sums in two passes.

    share: (items, heads, 2 + references, generated); paper_r2g: (items, heads, references,
    generated); g2r: for each reference (items, heads, 2, reference).
    """

    def __init__(
        self,
        items: slice,
        share: Tensor,
        paper_r2g: Tensor,
        g2r: list[Tensor],
        correspondences: list[CorrespondenceSum],
    ) -> None:
        self._items = items
        self._share, self._paper_r2g, self._g2r = share, paper_r2g, g2r
        self._correspondences = correspondences
        self._columns = [ColumnSums() for _ in g2r]

    def add_rows(
        self, block: _Block, layout: TokenLayout, tiles: list[slice], keep: bool
    ) -> list[list[_Softmax]]:
        """The first pass: shares, G2R, correspondence, and the column sums of M_g.

        Returns M_r of each tile and reference, or nothing of them if they are not kept.
        """
        references, weights = layout.references, block.weights
        kept: list[list[_Softmax]] = []
        for tile in tiles:
            # A kept softmax has a buffer for each tile; the others share one.
            names = [
                (span, tile.start if keep and span in references else -1) for span in layout.keys
            ]
            softmaxes = [block.softmax(tile, span, (span, at)) for span, at in names]
            portions = None if weights is None else weights.portions[..., tile]
            shares = _share_out(softmaxes, layout, portions, self._share[..., tile])
            m_rs = [
                softmax
                for softmax, span in zip(softmaxes, layout.keys, strict=True)
                if span in references
            ]
            for index, (span, m_r) in enumerate(zip(references, m_rs, strict=True)):
                offset, row_factors = self._columns[index].relative(m_r.log_sum)
                even = torch.ones_like(row_factors)
                if weights is not None:
                    even *= weights.emphasis[:, span.softmax, tile].unsqueeze(1)
                # One product gives G2R in both definitions and the column sums.
                factors = torch.stack((even, shares[index], row_factors), dim=-2)
                sums = factors @ m_r.values
                self._g2r[index] += sums[:, :, :2]
                self._columns[index].add(sums[:, :, 2], offset)
                if self._correspondences:
                    self._correspondences[index].add(
                        self._items, tile, factors[:, :, :2], m_r.values
                    )
            kept.append(m_rs if keep else [])
        return kept

    def add_columns(
        self,
        block: _Block,
        references: tuple[Span, ...],
        tiles: list[slice],
        kept: list[list[_Softmax]],
        scratch_bytes: int,
    ) -> None:
        """The second pass: R2G of the paper, by the column sums that the first pass found."""
        for index, (span, columns) in enumerate(zip(references, self._columns, strict=True)):
            r2g = self._paper_r2g[:, :, index]
            if not can_read_back(r2g.device):  # finding the weak columns would wait for it
                r2g += columns.mean_by_columns(block, span, scratch_bytes)
                continue
            for tile, m_rs in zip(tiles, kept, strict=True):
                m_r = m_rs[index] if m_rs else block.softmax(tile, span, (span, -1))
                r2g[..., tile] = columns.mean_of_rows(m_r)
            weak = columns.weak
            if weak is not None:
                r2g += columns.mean_by_columns(block, span, scratch_bytes, weak)


class ColumnSums:
    """The column sums that M_g divides by, for one block and reference, and means of M_g.

    They are added up from row-wise softmaxes, with all rows relative to one log-sum-exp offset,
    the highest. What underflows on the way is below 1e-38, so a column whose sum is far above that
    is exact. Others are rare, and are computed on their own.
    """

    def __init__(self) -> None:
        self.offset = torch.zeros(())  # (items, heads, 1)
        self._sums: Tensor | None = None

    def relative(self, log_sum: Tensor) -> tuple[Tensor, Tensor]:
        """The log-sum-exp offset of some rows, (items, heads, 1), and their sums relative to it."""
        offset = log_sum.amax(-1, keepdim=True).clamp_(min=LOWEST)
        return offset, (log_sum - offset).exp_()

    def add(self, sums: Tensor, offset: Tensor) -> None:
        """Add the column sums (items, heads, keys) of some rows, relative to their offset."""
        if self._sums is None:
            self._sums, self.offset = sums, offset
            return
        higher = torch.maximum(offset, self.offset)
        self._sums = self._sums * (self.offset - higher).exp_() + sums * (offset - higher).exp_()
        self.offset = higher

    @property
    def sums(self) -> Tensor:
        """Relative to the offset: (items, heads, keys)."""
        assert self._sums is not None, "no rows were added"
        return self._sums

    @property
    def weak(self) -> Tensor | None:
        """Columns that may have underflowed: (items, heads, keys), or None. Waits for a device."""
        if float(self.sums.amin()) >= WEAK:
            return None
        return self.sums < WEAK

    def mean_of_rows(self, m_r: _Softmax) -> Tensor:
        """Mean of M_g over its columns, for these rows; weak columns are left out."""
        inverse = torch.where(self.sums < WEAK, 0, 1 / self.sums)
        means = (m_r.values @ inverse.unsqueeze(-1)).squeeze(-1)
        return means * (m_r.log_sum - self.offset).exp_() / inverse.shape[-1]

    def mean_by_columns(
        self, block: _Block, span: Span, scratch_bytes: int, weak: Tensor | None = None
    ) -> Tensor:
        """The same mean for all rows, column by column: (items, heads, rows).

        weak: only these columns.
        """
        items, heads, rows, _ = block.factors.q.shape
        if weak is None:
            keys = torch.arange(span.start, span.stop, device=block.factors.q.device)
        else:
            keys = weak.any(0).any(0).nonzero().squeeze(-1) + span.start
        means = self.sums.new_zeros(items, heads, rows)
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
    spans: list[_Softmax], layout: TokenLayout, portions: Tensor | None, share: Tensor
) -> list[Tensor]:
    """Write the shares of these rows; return those of each reference, (items, heads, rows).

    spans: the softmax over each span of keys. portions: (items, softmaxes, rows).
    """
    members_of: dict[int, list[int]] = {}
    for index, span in enumerate(layout.keys):
        members_of.setdefault(span.softmax, []).append(index)
    parts: dict[int, Tensor] = {}
    for softmax, members in members_of.items():
        split = torch.stack([spans[i].log_sum for i in members]).softmax(0)
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
