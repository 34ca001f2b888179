"""Sums over rows: rows stay, columns pass by."""
# pyright: basic, reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false
# pyright: reportUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

from .blocks import (
    FACTORS,
    LN_2,
    LOG2_E,
    WEAK,
    counting,
    load_rows,
    logits_of,
    numbers,
    own_log_sums,
    store_factors,
    tokens,
)


@triton.jit
def row_sums(
    q,  # (items, heads, rows, dim), any strides but 1 for the last
    k,  # (items, key heads, columns, dim), of one span
    offsets,  # log-sum-exps: (items, heads, rows) or, BY_COLUMN, (items, heads, columns) of base 2
    sums,  # out: (items, heads, rows)
    q_item,  # strides
    q_head,
    k_item,
    k_head,
    heads,
    heads_each,  # that share a key head
    rows,
    columns,
    scale,
    mask,  # MASKED: (items, heads, rows, columns), added to the logits
    mask_item,  # its strides
    mask_head,
    mask_row,
    mask_column,
    MASKED: tl.constexpr,
    BY_COLUMN: tl.constexpr,
    KNOWN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    Q_ROW: tl.constexpr,  # strides
    K_COLUMN: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Sums over the columns of one span.

    BY_COLUMN: of exp(S − offset of the column), a sum. Otherwise the log-sum-exp of the row; KNOWN:
    the offset is that of a softmax that holds these columns, so no maximum is looked for.
    """
    block, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    item, head = pair // heads, pair % heads
    q += item * q_item + head * q_head
    k += item * k_item + head // heads_each * k_head
    mask += item * mask_item + head * mask_head
    row = tokens(block * BLOCK_ROWS, rows, BLOCK_ROWS, False)
    queries = load_rows(q, row, Q_ROW, DIM, BLOCK_DIM)
    full = columns // BLOCK_COLUMNS * BLOCK_COLUMNS
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    if BY_COLUMN:
        offsets += pair * columns
        for last in tl.static_range(2):
            for first in range(full * last, columns if last else full, BLOCK_COLUMNS):
                logits = logits_of(
                    queries, row, k, first, columns, scale, mask, mask_row, mask_column,
                    MASKED, last == 0, BLOCK_COLUMNS, K_COLUMN, DIM, BLOCK_DIM,
                )  # fmt: skip
                offset = numbers(offsets, first, columns, float("inf"), BLOCK_COLUMNS, last == 0)
                total += tl.sum(tl.exp2(logits - offset[None, :]), 1)
        found = total
    elif KNOWN:
        over_row = tl.load(offsets + pair * rows + row) * LOG2_E
        for last in tl.static_range(2):
            for first in range(full * last, columns if last else full, BLOCK_COLUMNS):
                logits = logits_of(
                    queries, row, k, first, columns, scale, mask, mask_row, mask_column,
                    MASKED, last == 0, BLOCK_COLUMNS, K_COLUMN, DIM, BLOCK_DIM,
                )  # fmt: skip
                part = tl.exp2(logits - over_row[:, None])
                if last:
                    part = tl.where(counting(first, columns, BLOCK_COLUMNS)[None, :], part, 0.0)
                total += tl.sum(part, 1)
        found = (over_row + tl.log2(total)) * LN_2
        if tl.min(total) < WEAK:  # rare: hardly any of the row's attention goes here
            found = LN_2 * own_log_sums(
                queries, row, k, columns, scale, mask, mask_row, mask_column,
                MASKED, BLOCK_ROWS, BLOCK_COLUMNS, K_COLUMN, DIM, BLOCK_DIM,
            )  # fmt: skip
    else:
        found = LN_2 * own_log_sums(
            queries, row, k, columns, scale, mask, mask_row, mask_column,
            MASKED, BLOCK_ROWS, BLOCK_COLUMNS, K_COLUMN, DIM, BLOCK_DIM,
        )  # fmt: skip
    tl.store(sums + pair * rows + row, found)


@triton.jit
def row_factors(
    over_rows,  # (items, heads, rows), log of each row's sum over the columns of one reference
    whole,  # (items, heads, rows), the same over all keys of its softmax
    levels,  # (items, heads), the highest of over_rows
    portions,  # WEIGHTED: (items, rows), the part of the attention that the softmax is; else unread
    emphasis,  # WEIGHTED: (items, rows), how much each row's M_r counts
    share,  # out: (items, heads, rows), of the model's attention that goes to the reference
    factors,  # out: (items, heads, rows, FACTORS), for column_sums
    heads,
    rows,
    WEIGHTED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
):
    """Of each row, its share, and how much M_r counts in each of the sums over its column.

    Its emphasis or 1, its share, and its lift over the level.
    """
    block, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    item = pair // heads
    row = tokens(block * BLOCK_ROWS, rows, BLOCK_ROWS, False)
    over_row = tl.load(over_rows + pair * rows + row)
    portion = tl.exp2((over_row - tl.load(whole + pair * rows + row)) * LOG2_E)
    even = tl.full((BLOCK_ROWS,), 1.0, tl.float32)
    if WEIGHTED:
        portion *= tl.load(portions + item * rows + row)
        even = tl.load(emphasis + item * rows + row)
    tl.store(share + pair * rows + row, portion)
    lift = tl.exp2((over_row - tl.load(levels + pair)) * LOG2_E)
    store_factors(factors + pair * rows * FACTORS, row, even, portion, lift)


@triton.jit
def model_sums(
    q,  # (items, heads, rows, dim)
    k,  # (items, key heads, columns, dim), of one reference
    log_sums,  # (items, heads, rows), log of each row's sum over all keys
    share,  # out: (items, heads, rows), sums over the columns
    over_rows,  # out: (programs' items and heads, row blocks, columns), sums over a block's rows
    first_pair,  # of item and head
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
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    Q_ROW: tl.constexpr,
    K_COLUMN: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """The model's attention, over the columns of one reference and over the rows."""
    block, here = tl.program_id(0), tl.program_id(1)
    pair = (first_pair + here).to(tl.int64)
    item, head = pair // heads, pair % heads
    q += item * q_item + head * q_head
    k += item * k_item + head // heads_each * k_head
    mask += item * mask_item + head * mask_head
    over_rows += (here.to(tl.int64) * tl.num_programs(0) + block) * columns
    row = tokens(block * BLOCK_ROWS, rows, BLOCK_ROWS, False)
    queries = load_rows(q, row, Q_ROW, DIM, BLOCK_DIM)
    log_sum = numbers(
        log_sums + pair * rows, block * BLOCK_ROWS, rows, float("inf"), BLOCK_ROWS, False
    )
    log_sum *= LOG2_E
    total = tl.zeros((BLOCK_ROWS,), tl.float32)
    full = columns // BLOCK_COLUMNS * BLOCK_COLUMNS
    for last in tl.static_range(2):
        for first in range(full * last, columns if last else full, BLOCK_COLUMNS):
            logits = logits_of(
                queries, row, k, first, columns, scale, mask, mask_row, mask_column,
                MASKED, last == 0, BLOCK_COLUMNS, K_COLUMN, DIM, BLOCK_DIM,
            )  # fmt: skip
            counts = counting(first, columns, BLOCK_COLUMNS)
            attention = tl.exp2(logits - log_sum[:, None])
            if last:
                attention = tl.where(counts[None, :], attention, 0.0)
            total += tl.sum(attention, 1)
            place = over_rows + first + tl.arange(0, BLOCK_COLUMNS)
            tl.store(place, tl.sum(attention, 0), mask=counts)
    counts = counting(block * BLOCK_ROWS, rows, BLOCK_ROWS)
    tl.store(share + pair * rows + row, total, mask=counts)
