"""The two Triton kernels: products of queries and keys stay on the chip.

Both take one block of queries × keys at a time and keep only sums of it. Stored log-sum-exps are
natural logarithms; inside, exponentials have base two, like the hardware's. If several programs
add to one number, each has a place of its own, and these are added up afterwards. Without atomics
a run gives the same map each time, to the last bit.
"""
# pyright: basic, reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false
# pyright: reportUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)


# Relative to another row's offset, exponentials below 2^-126 are lost. A column whose sum is above
# this has lost nothing that a float32 of that sum would show.
WEAK = tl.constexpr(2.0**-60)


# Log-sum-exps this far apart, in powers of two, can share one offset.
REACH = tl.constexpr(100.0)


@triton.jit
def _product(a, b):
    """a @ b in float32: of half-precision inputs exactly, of float32 without TF32's short cuts."""
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _pooled(a, b):
    """a @ b in float32, nearly exactly: by three products on tensor cores."""
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def _load_queries(q, row, valid, q_row, dim, BLOCK_DIM: tl.constexpr):
    """(rows, dim) of one head, zero where a row is not valid."""
    axis = tl.arange(0, BLOCK_DIM)
    return tl.load(
        q + row[:, None] * q_row + axis[None, :],
        mask=valid[:, None] & (axis < dim)[None, :],
        other=0.0,
    )


@triton.jit
def _load_keys(k, column, valid, k_column, dim, BLOCK_DIM: tl.constexpr):
    """(dim, columns) of one key head, zero where a column is not valid."""
    axis = tl.arange(0, BLOCK_DIM)
    return tl.load(
        k + column[None, :] * k_column + axis[:, None],
        mask=valid[None, :] & (axis < dim)[:, None],
        other=0.0,
    )


@triton.jit
def _logits(queries, keys, valid, scale):
    """S in powers of two, (rows, columns); minus infinity where it is not valid."""
    return tl.where(valid, _product(queries, keys) * (scale * LOG2_E), -float("inf"))


@triton.jit
def log_sums(
    q,  # (items, heads, rows, dim), any strides but 1 for the last
    k,  # (items, key heads, columns, dim), of one span
    row_sums,  # out: (items, heads, rows), log of the sums over the columns
    column_sums,  # out: (items, heads, row blocks, columns), of those over a block's rows
    q_item,  # strides
    q_head,
    q_row,
    k_item,
    k_head,
    k_column,
    heads,
    first_head,  # these heads are some of the call's
    heads_each,  # that share a key head
    rows,
    columns,
    dim,
    scale,
    WITH_COLUMNS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Log-sum-exp of the logits with one span's keys: of each row, and of each column by blocks."""
    block, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    item, head = pair // heads, pair % heads
    q += item * q_item + head * q_head
    k += item * k_item + (first_head + head) // heads_each * k_head
    column_sums += (pair * tl.num_programs(0) + block) * columns

    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    queries = _load_queries(q, row, row < rows, q_row, dim, BLOCK_DIM)
    high = tl.full((BLOCK_ROWS,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)  # relative to 2^high
    for first in range(0, columns, BLOCK_COLUMNS):
        column = first + tl.arange(0, BLOCK_COLUMNS)
        keys = _load_keys(k, column, column < columns, k_column, dim, BLOCK_DIM)
        logits = _logits(queries, keys, (column < columns)[None, :], scale)
        higher = tl.maximum(high, tl.max(logits, 1))
        powers = tl.exp2(logits - higher[:, None])
        total = total * tl.exp2(high - higher) + tl.sum(powers, 1)
        high = higher
        if WITH_COLUMNS:
            # The same exponentials serve the columns, once all rows have one offset.
            offset = tl.max(tl.where(row < rows, high, -float("inf")))
            factor = tl.where(row < rows, tl.exp2(high - offset), 0.0)
            sums = tl.sum(powers * factor[:, None], 0)
            if tl.min(tl.where(column < columns, sums, 1.0)) >= WEAK:
                found = offset + tl.log2(sums)
            else:  # rare: a column so far below that it is lost; each takes its own offset
                alone = tl.where((row < rows)[:, None], logits, -float("inf"))
                own = tl.max(tl.where((column < columns)[None, :], alone, 0.0), 0)
                found = own + tl.log2(tl.sum(tl.exp2(alone - own[None, :]), 0))
            tl.store(column_sums + column, found * LN_2, mask=column < columns)
    tl.store(row_sums + pair * rows + row, (high + tl.log2(total)) * LN_2, mask=row < rows)


@triton.jit
def marginal_sums(
    q,  # (items, heads, rows, dim)
    k,  # (items, key heads, columns, dim), of one reference
    row_sums,  # (items, heads, rows), log of the sums over its columns
    column_sums,  # (items, heads, columns), of those over all rows
    share,  # (items, heads, rows), of the model's attention that goes to it
    row_order,  # (row blocks · BLOCK_ROWS,), which tokens a block is of; -1 for none
    column_order,
    row_weights,  # (row blocks, ROW_CELLS, BLOCK_ROWS), the part each token is of each cell
    column_weights,  # (column blocks, COLUMN_CELLS, BLOCK_COLUMNS)
    r2g,  # out: (items, heads, column blocks, rows), sums of M_g over a block's columns
    g2r,  # out: (items, heads, 2, row blocks, columns), of M_r and the model's over its rows
    pairs,  # out: (items, 2, row blocks · row slots, column blocks · column slots), over heads
    q_item,  # strides
    q_head,
    q_row,
    k_item,
    k_head,
    k_column,
    heads,
    first_head,
    heads_each,
    heads_here,  # of each program, one after the other: all of them if pairs are added up
    rows,
    columns,
    dim,
    scale,
    row_slots,  # of the cells of a block, those that are stored
    column_slots,
    WITH_PAIRS: tl.constexpr,
    ROW_CELLS: tl.constexpr,  # 0: rows are cells
    COLUMN_CELLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """All sums that divide by a log-sum-exp: one block of one reference's logits, head by head."""
    column_block, row_block = tl.program_id(0), tl.program_id(1)
    column_blocks, row_blocks = tl.num_programs(0), tl.num_programs(1)
    first_pair = tl.program_id(2).to(tl.int64) * heads_here
    item = first_pair // heads
    q += item * q_item
    k += item * k_item

    row = tl.load(row_order + row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))
    column = tl.load(column_order + column_block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS))
    if WITH_PAIRS:
        paper = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
        model = tl.zeros((BLOCK_ROWS, BLOCK_COLUMNS), tl.float32)
    for index in range(heads_here):
        pair = first_pair + index
        head = pair % heads
        key_head = k + (first_head + head) // heads_each * k_head
        queries = _load_queries(q + head * q_head, row, row >= 0, q_row, dim, BLOCK_DIM)
        keys = _load_keys(key_head, column, column >= 0, k_column, dim, BLOCK_DIM)
        valid = (row >= 0)[:, None] & (column >= 0)[None, :]
        logits = _logits(queries, keys, valid, scale)
        # Padding must not set the offset either.
        over_row = tl.load(row_sums + pair * rows + row, mask=row >= 0, other=float("inf"))
        over_column = tl.load(
            column_sums + pair * columns + column, mask=column >= 0, other=float("inf")
        )
        over_row *= LOG2_E
        over_column *= LOG2_E
        low = tl.minimum(tl.min(over_row), tl.min(over_column))
        row_high = tl.max(tl.where(row >= 0, over_row, -float("inf")))
        column_high = tl.max(tl.where(column >= 0, over_column, -float("inf")))
        if tl.maximum(row_high, column_high) - low <= REACH:
            # No logit is above its row's or column's sum, so none is far above the lowest sum.
            powers = tl.exp2(logits - low)
            m_r = powers * tl.exp2(low - over_row)[:, None]
            m_g = powers * tl.exp2(low - over_column)[None, :]
        else:
            m_r = tl.exp2(logits - over_row[:, None])
            m_g = tl.exp2(logits - over_column[None, :])
        tl.store(
            r2g + (pair * column_blocks + column_block) * rows + row,
            tl.sum(m_g, 1),
            mask=row >= 0,
        )
        portion = tl.load(share + pair * rows + row, mask=row >= 0, other=0.0)
        attention = m_r * portion[:, None]
        sums = g2r + (2 * pair * row_blocks + row_block) * columns + column
        tl.store(sums, tl.sum(m_r, 0), mask=column >= 0)
        tl.store(sums + row_blocks * columns, tl.sum(attention, 0), mask=column >= 0)
        if WITH_PAIRS:
            paper += m_r
            model += attention

    if WITH_PAIRS:
        # Pooled once for all heads, to the cells of this block only.
        slot, across = tl.arange(0, BLOCK_ROWS), tl.arange(0, BLOCK_COLUMNS)
        if COLUMN_CELLS:
            cell = tl.arange(0, COLUMN_CELLS)
            weights = tl.load(
                column_weights
                + (column_block * COLUMN_CELLS + cell[None, :]) * BLOCK_COLUMNS
                + across[:, None]
            )  # (columns, cells)
            paper, model = _pooled(paper, weights), _pooled(model, weights)
            across = cell
        if ROW_CELLS:
            cell = tl.arange(0, ROW_CELLS)
            weights = tl.load(
                row_weights + (row_block * ROW_CELLS + cell[:, None]) * BLOCK_ROWS + slot[None, :]
            )  # (cells, rows)
            paper, model = _pooled(weights, paper), _pooled(weights, model)
            slot = cell
        width = column_blocks * column_slots
        down = (2 * item * row_blocks + row_block) * row_slots + slot[:, None]
        place = pairs + down * width + (column_block * column_slots + across)[None, :]
        stored = (slot < row_slots)[:, None] & (across < column_slots)[None, :]
        tl.store(place, paper, mask=stored)
        tl.store(place + (row_blocks * row_slots).to(tl.int64) * width, model, mask=stored)
