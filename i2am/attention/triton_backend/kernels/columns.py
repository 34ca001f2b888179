"""Sums over columns: columns stay, rows pass by."""
# pyright: basic, reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false
# pyright: reportUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

from .blocks import (
    FACTORS,
    LOG2_E,
    WEAK,
    load_rows,
    logits_of,
    numbers,
    one_sum,
    own_log_sums,
    store_factors,
    thin_product,
    tokens,
)


@triton.jit
def column_sums(
    q,  # (items, heads, rows, dim)
    k,  # (items, key heads, columns, dim), of one reference
    over_rows,  # (items, heads, rows), log of each row's sum over the columns
    factors,  # (items, heads, rows, FACTORS), of row_factors
    levels,  # (items, heads), the highest of over_rows
    log_sums,  # out: (items, heads, columns), log of each column's sum over the rows, of base 2
    g2r,  # out: (items, heads, 2, columns), sums over the rows of M_r and of the model's attention
    column_factors,  # out: (items, heads, columns, FACTORS), for pair_sums
    lacking,  # out: (items, heads, blocks of columns), 1 if any column of the block has no factor
    q_item,  # strides
    q_head,
    k_item,
    k_head,
    heads,
    heads_each,
    rows,
    columns,
    scale,
    mask,  # MASKED: (items, heads, rows, columns), added to the logits
    mask_item,  # its strides
    mask_head,
    mask_row,
    mask_column,
    MASKED: tl.constexpr,
    HALF: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    Q_ROW: tl.constexpr,
    K_COLUMN: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Sums over the rows, for each column of one reference: of M_r, times the factors of its row.

    M_g is M_r · lift · the column's own factor, which is zero if the column is so far below the
    others that M_r does not tell M_g.
    """
    block, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    item, head = pair // heads, pair % heads
    q += item * q_item + head * q_head
    k += item * k_item + head // heads_each * k_head
    over_rows += pair * rows
    factors += pair * rows * FACTORS
    mask += item * mask_item + head * mask_head
    column = tokens(block * BLOCK_COLUMNS, columns, BLOCK_COLUMNS, False)
    keys = load_rows(k, column, K_COLUMN, DIM, BLOCK_DIM)
    sums = tl.zeros((BLOCK_COLUMNS, FACTORS), tl.float32)
    full = rows // BLOCK_ROWS * BLOCK_ROWS
    for last in tl.static_range(2):
        for first in range(full * last, rows if last else full, BLOCK_ROWS):
            logits = logits_of(
                keys, column, q, first, rows, scale, mask, mask_column, mask_row,
                MASKED, last == 0, BLOCK_ROWS, Q_ROW, DIM, BLOCK_DIM,
            )  # fmt: skip
            over_row = numbers(over_rows, first, rows, float("inf"), BLOCK_ROWS, last == 0)
            row = tokens(first, rows, BLOCK_ROWS, last == 0)
            m_r = tl.exp2(logits - (over_row * LOG2_E)[None, :])
            sums += thin_product(m_r, load_rows(factors, row, FACTORS, FACTORS, FACTORS), HALF)
    place = g2r + 2 * pair * columns + column
    tl.store(place, one_sum(sums, 0))
    tl.store(place + columns, one_sum(sums, 1))
    lifted = one_sum(sums, 2)
    level = tl.load(levels + pair) * LOG2_E
    found = level + tl.log2(lifted)
    factor = tl.where(lifted < WEAK, 0.0, 1 / tl.maximum(lifted, WEAK))
    if tl.min(lifted) < WEAK:  # rare: a column so far below the others that its sum is lost
        found = own_log_sums(
            keys, column, q, rows, scale, mask, mask_column, mask_row,
            MASKED, BLOCK_COLUMNS, BLOCK_ROWS, Q_ROW, DIM, BLOCK_DIM,
        )  # fmt: skip
    if MASKED:  # a column that no row sees
        found = tl.where(found == -float("inf"), float("inf"), found)
    tl.store(log_sums + pair * columns + column, found)
    is_lacking = (factor == 0) & (found < float("inf"))
    place = lacking + pair * tl.num_programs(0) + block
    tl.store(place, tl.max(tl.where(is_lacking, 1.0, 0.0)))
    nothing = tl.zeros((BLOCK_COLUMNS,), tl.float32)
    store_factors(column_factors + pair * columns * FACTORS, column, factor, nothing, nothing)
