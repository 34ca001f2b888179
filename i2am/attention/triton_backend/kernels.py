"""The Triton kernels: products of queries and keys stay on the chip.

    row_sums      rows stay, columns pass by: a sum over each row
    column_sums   columns stay, rows pass by: three weighted sums over each column
    pair_sums     one block of rows and columns, head after head: the correspondence, and R2G
    model_sums    rows stay, columns pass by: the model's attention over each row and each column

Every exponential is of a logit minus the log-sum-exp of its row or column, so none is above one and
there is no maximum to keep. Sums are float32 and run along the rows of a tile, inside a thread.
Those over the columns of a cell are thin products on the tensor cores. What is done for each logit
is what a kernel costs, so nothing there asks whether a token exists: full blocks go first, and the
`last` one by itself. The model's mask is added, if there is one; a row or column that it hides
altogether has an infinite offset. Exponentials have base two, like the hardware's; log-sum-exps of
rows are stored as natural logarithms, those of columns, which only kernels read, are not. No two
programs add to one number. Without atomics a run gives the same map each time, to the last bit.
"""
# pyright: basic, reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false
# pyright: reportUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

from .blocks import (
    LN_2,
    LOG2_E,
    WEAK,
    added,
    counting,
    load_columns,
    load_rows,
    logits_of,
    numbers,
    own_log_sums,
    product,
    thin_product,
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
def column_sums(
    q,  # (items, heads, rows, dim)
    k,  # (items, key heads, columns, dim), of one reference
    over_rows,  # (items, heads, rows), log of each row's sum over the columns
    share,  # (items, heads, rows), of the model's attention that goes to them
    emphasis,  # WEIGHTED: (items, rows), how much each row's M_r counts; else nothing is read
    levels,  # (items, heads), the highest of over_rows
    lifts,  # (items, heads, rows), exp(over_rows − level)
    log_sums,  # out: (items, heads, columns), log of each column's sum over the rows, of base 2
    g2r,  # out: (items, heads, 2, columns), sums over the rows of M_r and of the model's attention
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
    WEIGHTED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    Q_ROW: tl.constexpr,
    K_COLUMN: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Sums over the rows, for each column of one reference: of M_r, with three weights of the row.

    Its emphasis or 1, its share, and its lift.
    """
    block, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    item, head = pair // heads, pair % heads
    q += item * q_item + head * q_head
    k += item * k_item + head // heads_each * k_head
    over_rows += pair * rows
    share += pair * rows
    lifts += pair * rows
    emphasis += item * rows
    mask += item * mask_item + head * mask_head
    column = tokens(block * BLOCK_COLUMNS, columns, BLOCK_COLUMNS, False)
    keys = load_rows(k, column, K_COLUMN, DIM, BLOCK_DIM)
    of_paper = tl.zeros((BLOCK_COLUMNS,), tl.float32)
    of_model = tl.zeros((BLOCK_COLUMNS,), tl.float32)
    lifted = tl.zeros((BLOCK_COLUMNS,), tl.float32)
    full = rows // BLOCK_ROWS * BLOCK_ROWS
    for last in tl.static_range(2):
        for first in range(full * last, rows if last else full, BLOCK_ROWS):
            logits = logits_of(
                keys, column, q, first, rows, scale, mask, mask_column, mask_row,
                MASKED, last == 0, BLOCK_ROWS, Q_ROW, DIM, BLOCK_DIM,
            )  # fmt: skip
            over_row = numbers(over_rows, first, rows, float("inf"), BLOCK_ROWS, last == 0)
            portion = numbers(share, first, rows, 0.0, BLOCK_ROWS, last == 0)
            lift = numbers(lifts, first, rows, 0.0, BLOCK_ROWS, last == 0)
            m_r = tl.exp2(logits - (over_row * LOG2_E)[None, :])
            if WEIGHTED:
                even = numbers(emphasis, first, rows, 0.0, BLOCK_ROWS, last == 0)
                of_paper += tl.sum(m_r * even[None, :], 1)
            else:
                of_paper += tl.sum(m_r, 1)
            of_model += tl.sum(m_r * portion[None, :], 1)
            lifted += tl.sum(m_r * lift[None, :], 1)
    place = g2r + 2 * pair * columns + column
    tl.store(place, of_paper)
    tl.store(place + columns, of_model)
    found = tl.load(levels + pair) * LOG2_E + tl.log2(lifted)
    if tl.min(lifted) < WEAK:  # rare: a column so far below the others that its sum is lost
        found = own_log_sums(
            keys, column, q, rows, scale, mask, mask_column, mask_row,
            MASKED, BLOCK_COLUMNS, BLOCK_ROWS, Q_ROW, DIM, BLOCK_DIM,
        )  # fmt: skip
    if MASKED:  # a column that no row sees
        found = tl.where(found == -float("inf"), float("inf"), found)
    tl.store(log_sums + pair * columns + column, found)


@triton.jit
def pair_sums(
    q,  # (items, heads, rows, dim)
    k,  # (items, key heads, columns, dim), of one reference
    over_rows,  # (items, heads, rows), log of each row's sum over the columns
    share,  # (items, heads, rows), of the model's attention that goes to them
    over_columns,  # WITH_R2G: (items, heads, column blocks · BLOCK_COLUMNS), in column_order
    emphasis,  # as in column_sums
    row_order,  # (row blocks · BLOCK_ROWS,), which tokens a block is of; the last ones any
    column_order,
    row_weights,  # (row blocks, ROW_CELLS, BLOCK_ROWS), the part each token is of each cell
    column_weights,  # (column blocks, COLUMN_CELLS, BLOCK_COLUMNS)
    pairs,  # out: (items, 2, row blocks · row slots, column blocks · column slots), over heads
    r2g,  # out, WITH_R2G: (items, heads, column blocks, rows), sums over a block of M_g
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

    WITH_R2G: and each head's sums of M_g over the block's columns, by the log of each column's sum
    over the rows, of base 2; that of a column that does not count is infinite.
    """
    column_block, row_block = tl.program_id(0), tl.program_id(1)
    column_blocks, row_blocks = tl.num_programs(0), tl.num_programs(1)
    item = tl.program_id(2).to(tl.int64)
    q += item * q_item
    k += item * k_item

    here = column_block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    row = tl.load(row_order + row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))
    column = tl.load(column_order + here)
    across = tl.arange(0, COLUMN_CELLS if COLUMN_CELLS else BLOCK_COLUMNS)
    if COLUMN_CELLS:
        cells = tl.load(
            column_weights
            + (column_block * COLUMN_CELLS + across[None, :]) * BLOCK_COLUMNS
            + tl.arange(0, BLOCK_COLUMNS)[:, None]
        )  # (columns, cells)
    paper = tl.zeros((BLOCK_ROWS, COLUMN_CELLS if COLUMN_CELLS else BLOCK_COLUMNS), tl.float32)
    model = tl.zeros((BLOCK_ROWS, COLUMN_CELLS if COLUMN_CELLS else BLOCK_COLUMNS), tl.float32)
    for head in range(heads):
        pair = item * heads + head
        key_head = k + head // heads_each * k_head
        queries = load_rows(q + head * q_head, row, Q_ROW, DIM, BLOCK_DIM)
        keys = load_columns(key_head, column, K_COLUMN, DIM, BLOCK_DIM)
        over_row = tl.load(over_rows + pair * rows + row) * LOG2_E
        portion = tl.load(share + pair * rows + row)
        logits = product(queries, keys) * (scale * LOG2_E)
        if MASKED:
            of_head = mask + item * mask_item + head * mask_head
            logits += added(of_head, row, mask_row, column, mask_column)
        if WITH_R2G:
            over_column = tl.load(over_columns + pair * column_blocks * BLOCK_COLUMNS + here)
            m_g = tl.sum(tl.exp2(logits - over_column[None, :]), 1)
            tl.store(r2g + (pair * column_blocks + column_block) * rows + row, m_g)
        mass = tl.exp2(logits - over_row[:, None])
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
