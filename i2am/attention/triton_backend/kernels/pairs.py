"""Sums of pairs: one block of rows and columns, head after head."""
# pyright: basic, reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false
# pyright: reportUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

from .blocks import (
    FACTORS,
    LOG2_E,
    added,
    counting,
    load_columns,
    load_rows,
    logits_of,
    numbers,
    one_sum,
    product,
    thin_product,
    tokens,
)

PARTS_AT_ONCE = tl.constexpr(16)  # blocks whose sums are read together


@triton.jit
def pair_sums(
    q,  # (items, heads, rows, dim)
    k,  # (items, key heads, columns, dim), of one reference
    over_rows,  # (items, heads, rows), log of each row's sum over the columns
    share,  # (items, heads, rows), of the model's attention that goes to them
    column_factors,  # WITH_R2G: of column_sums
    emphasis,  # as in row_factors
    row_order,  # (row blocks · BLOCK_ROWS,), which tokens a block is of; the last ones any
    column_order,
    row_weights,  # (row blocks, ROW_CELLS, BLOCK_ROWS), the part each token is of each cell
    column_weights,  # (column blocks, COLUMN_CELLS, BLOCK_COLUMNS)
    pairs,  # out: (items, 2, row blocks · row slots, column blocks · column slots), over heads
    by_block,  # out, WITH_R2G: (items, heads, column blocks, rows), sums over a block of M_g / lift
    q_item,  # strides
    q_head,
    k_item,
    k_head,
    heads,
    heads_each,
    rows,
    columns,
    scale,
    mask,  # as in row_sums
    mask_item,
    mask_head,
    mask_row,
    mask_column,
    row_slots,  # of the cells of a block, those that are stored
    column_slots,
    MASKED: tl.constexpr,
    HALF: tl.constexpr,
    WEIGHTED: tl.constexpr,
    WITH_R2G: tl.constexpr,
    ROW_CELLS: tl.constexpr,  # 0: rows are cells
    COLUMN_CELLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    Q_ROW: tl.constexpr,
    K_COLUMN: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """M_r and the model's attention of one block of one reference, over heads and pooled.

    WITH_R2G: and each head's sums of M_r times the factors of the block's columns.
    """
    column_block, row_block = tl.program_id(0), tl.program_id(1)
    column_blocks, row_blocks = tl.num_programs(0), tl.num_programs(1)
    item = tl.program_id(2).to(tl.int64)
    q += item * q_item
    k += item * k_item
    mask += item * mask_item

    here = column_block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    counts = here < columns
    row = tl.load(row_order + row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))
    column = tl.load(column_order + here)
    across = tl.arange(0, COLUMN_CELLS if COLUMN_CELLS else BLOCK_COLUMNS)
    if COLUMN_CELLS:
        cells = tl.load(
            column_weights
            + (column_block * COLUMN_CELLS + across[None, :]) * BLOCK_COLUMNS
            + tl.arange(0, BLOCK_COLUMNS)[:, None]
        )  # (columns, cells)
        if HALF:
            cells = cells.to(tl.bfloat16)
    paper = tl.zeros((BLOCK_ROWS, COLUMN_CELLS if COLUMN_CELLS else BLOCK_COLUMNS), tl.float32)
    model = tl.zeros((BLOCK_ROWS, COLUMN_CELLS if COLUMN_CELLS else BLOCK_COLUMNS), tl.float32)
    for head in range(heads):
        pair = item * heads + head
        queries = load_rows(q + head * q_head, row, Q_ROW, DIM, BLOCK_DIM)
        keys = load_columns(k + head // heads_each * k_head, column, K_COLUMN, DIM, BLOCK_DIM)
        over_row = tl.load(over_rows + pair * rows + row) * LOG2_E
        portion = tl.load(share + pair * rows + row)
        logits = product(queries, keys) * (scale * LOG2_E)
        if MASKED:
            logits += added(mask + head * mask_head, row, mask_row, column, mask_column)
        mass = tl.exp2(logits - over_row[:, None])
        if WITH_R2G:
            factors = column_factors + (pair * columns + column)[:, None] * FACTORS
            factors += tl.arange(0, FACTORS)[None, :]
            factors = tl.load(factors, mask=counts[:, None], other=0.0)
            m_g = one_sum(thin_product(mass, factors, HALF), 0)
            tl.store(by_block + (pair * column_blocks + column_block) * rows + row, m_g)
        if COLUMN_CELLS:
            mass = thin_product(mass, cells, HALF)
        if WEIGHTED:
            even = tl.load(emphasis + item * rows + row)
            paper += mass * even[:, None]
        else:
            paper += mass
        model += mass * portion[:, None]

    # Rows are pooled once for all heads, to the cells of this block only.
    slot = tl.arange(0, BLOCK_ROWS)
    if ROW_CELLS:
        cell = tl.arange(0, ROW_CELLS)
        weights = tl.load(
            row_weights + (row_block * ROW_CELLS + cell[:, None]) * BLOCK_ROWS + slot[None, :]
        )  # (cells, rows)
        paper, model = thin_product(weights, paper, False), thin_product(weights, model, False)
        slot = cell
    width = column_blocks * column_slots
    down = (2 * item * row_blocks + row_block) * row_slots + slot[:, None]
    place = pairs + down * width + (column_block * column_slots + across)[None, :]
    stored = (slot < row_slots)[:, None] & (across < column_slots)[None, :]
    tl.store(place, paper, mask=stored)
    tl.store(place + (row_blocks * row_slots).to(tl.int64) * width, model, mask=stored)


@triton.jit
def r2g_totals(
    q,  # (items, heads, rows, dim)
    k,  # (items, key heads, columns, dim), of one reference
    over_rows,  # (items, heads, rows), log of each row's sum over the columns
    levels,  # (items, heads), the highest of them
    by_block,  # (items, heads, parts, rows), of pair_sums
    log_sums,  # of column_sums, like the next two
    column_factors,
    lacking,
    r2g,  # out: (items, heads, rows)
    parts,
    flags,  # how many of `lacking` a head has
    q_item,  # strides
    q_head,
    k_item,
    k_head,
    heads,
    heads_each,
    rows,
    columns,
    scale,
    mask,  # as in row_sums
    mask_item,
    mask_head,
    mask_row,
    mask_column,
    MASKED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    Q_ROW: tl.constexpr,
    K_COLUMN: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Sums of M_g over all columns: over those with a factor by blocks, over others from logits."""
    block, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row = tokens(block * BLOCK_ROWS, rows, BLOCK_ROWS, False)
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    for first in range(0, parts, PARTS_AT_ONCE):
        part = first + tl.arange(0, PARTS_AT_ONCE)
        place = by_block + (pair * parts + part)[None, :] * rows + row[:, None]
        total += tl.sum(tl.load(place, mask=(part < parts)[None, :], other=0.0), 1)
    over_row = tl.load(over_rows + pair * rows + row) - tl.load(levels + pair)
    total *= tl.exp2(tl.minimum(over_row * LOG2_E, 0.0))
    lack = tl.zeros((PARTS_AT_ONCE,), tl.float32)
    for first in range(0, flags, PARTS_AT_ONCE):
        found = numbers(lacking + pair * flags, first, flags, 0.0, PARTS_AT_ONCE, False)
        lack = tl.maximum(lack, found)
    if tl.max(lack) > 0:  # rare
        item, head = pair // heads, pair % heads
        q += item * q_item + head * q_head
        k += item * k_item + head // heads_each * k_head
        mask += item * mask_item + head * mask_head
        queries = load_rows(q, row, Q_ROW, DIM, BLOCK_DIM)
        for first in range(0, columns, BLOCK_COLUMNS):
            logits = logits_of(
                queries, row, k, first, columns, scale, mask, mask_row, mask_column,
                MASKED, False, BLOCK_COLUMNS, K_COLUMN, DIM, BLOCK_DIM,
            )  # fmt: skip
            column = tokens(first, columns, BLOCK_COLUMNS, False)
            factor = tl.load(column_factors + (pair * columns + column) * FACTORS)
            offset = tl.load(log_sums + pair * columns + column)
            left_out = counting(first, columns, BLOCK_COLUMNS) & (factor == 0)
            offset = tl.where(left_out, offset, float("inf"))
            total += tl.sum(tl.exp2(logits - offset[None, :]), 1)
    tl.store(r2g + pair * rows + row, total)
