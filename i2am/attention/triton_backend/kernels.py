"""The three Triton kernels: products of queries and keys stay on the chip.

    row_sums      rows stay, columns pass by: a sum over each row
    column_sums   columns stay, rows pass by: three weighted sums over each column
    pair_sums     one block of rows and columns, head after head: the correspondence

Every exponential is of a logit minus the log-sum-exp of its row or column, so none is above one and
there is no maximum to keep. Sums over columns with several weights, and over the columns of a cell,
are thin products on the tensor cores. Stored log-sum-exps are natural logarithms; inside,
exponentials have base two, like the hardware's. No two programs add to one number. Without atomics
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


# Exponentials below 2^-126 are lost. A sum of them relative to an offset that is not its own has
# lost nothing that a float32 of it would show, if it is above this. Otherwise it takes its own.
WEAK = tl.constexpr(2.0**-60)
THIN = tl.constexpr(16)  # columns of the thinnest product that tensor cores make


@triton.jit
def _product(a, b):
    """a @ b in float32: of half-precision inputs exactly, of float32 without TF32's short cuts."""
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def _parts(x, HALF: tl.constexpr):
    """x as two numbers that add up to it; in half precision, each fits bfloat16."""
    if HALF:
        high = x.to(tl.bfloat16).to(tl.float32)
        return high, x - high
    return x, x * 0


@triton.jit
def _thin(a, b, HALF: tl.constexpr):
    """a @ b in float32; in half precision with both rounded to bfloat16, else nearly exactly."""
    if HALF:
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))
    return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def _load_rows(x, token, valid, stride, dim, BLOCK_DIM: tl.constexpr):
    """(tokens, dim) of one head, zero where a token is not valid."""
    axis = tl.arange(0, BLOCK_DIM)
    return tl.load(
        x + token[:, None] * stride + axis[None, :],
        mask=valid[:, None] & (axis < dim)[None, :],
        other=0.0,
    )


@triton.jit
def _load_columns(x, token, valid, stride, dim, BLOCK_DIM: tl.constexpr):
    """(dim, tokens) of one head, zero where a token is not valid."""
    axis = tl.arange(0, BLOCK_DIM)
    return tl.load(
        x + token[None, :] * stride + axis[:, None],
        mask=valid[None, :] & (axis < dim)[:, None],
        other=0.0,
    )


@triton.jit
def _own_log_sums(
    fixed,  # (tokens, dim)
    passing,  # (items, heads, dim) of those that pass by, at its head
    stride,
    count,
    dim,
    scale,
    BLOCK_FIXED: tl.constexpr,
    BLOCK_PASSING: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Log-sum-exp of each fixed token's logits, in powers of two, whatever they are."""
    high = tl.full((BLOCK_FIXED,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_FIXED,), tl.float32)  # relative to 2^high
    for first in range(0, count, BLOCK_PASSING):
        token = first + tl.arange(0, BLOCK_PASSING)
        there = _load_columns(passing, token, token < count, stride, dim, BLOCK_DIM)
        logits = _product(fixed, there) * (scale * LOG2_E)
        logits = tl.where((token < count)[None, :], logits, -float("inf"))
        higher = tl.maximum(high, tl.max(logits, 1))
        total = total * tl.exp2(high - higher) + tl.sum(tl.exp2(logits - higher[:, None]), 1)
        high = higher
    return high + tl.log2(total)


@triton.jit
def row_sums(
    q,  # (items, heads, rows, dim), any strides but 1 for the last
    k,  # (items, key heads, columns, dim), of one span
    offsets,  # log-sum-exps: (items, heads, rows) or, BY_COLUMN, (items, heads, columns)
    sums,  # out: (items, heads, rows)
    q_item,  # strides
    q_head,
    q_row,
    k_item,
    k_head,
    k_column,
    heads,
    heads_each,  # that share a key head
    rows,
    columns,
    dim,
    scale,
    BY_COLUMN: tl.constexpr,
    KNOWN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
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
    row = block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    queries = _load_rows(q, row, row < rows, q_row, dim, BLOCK_DIM)
    if KNOWN or BY_COLUMN:
        over_row = tl.zeros((BLOCK_ROWS,), tl.float32)
        if not BY_COLUMN:
            over_row = tl.load(offsets + pair * rows + row, mask=row < rows, other=0.0) * LOG2_E
        total = tl.zeros((BLOCK_ROWS,), tl.float32)
        for first in range(0, columns, BLOCK_COLUMNS):
            column = first + tl.arange(0, BLOCK_COLUMNS)
            keys = _load_columns(k, column, column < columns, k_column, dim, BLOCK_DIM)
            logits = _product(queries, keys) * (scale * LOG2_E)
            if BY_COLUMN:
                offset = tl.load(
                    offsets + pair * columns + column, mask=column < columns, other=float("inf")
                )
                total += tl.sum(tl.exp2(logits - (offset * LOG2_E)[None, :]), 1)
            else:
                offset = tl.where(column < columns, 0.0, float("inf"))
                total += tl.sum(tl.exp2(logits - over_row[:, None] - offset[None, :]), 1)
        if BY_COLUMN:
            found = total
        elif tl.min(tl.where(row < rows, total, 1.0)) >= WEAK:
            found = (over_row + tl.log2(total)) * LN_2
        else:  # rare: hardly any of the row's attention goes here
            found = LN_2 * _own_log_sums(
                queries, k, k_column, columns, dim, scale, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_DIM
            )
    else:
        found = LN_2 * _own_log_sums(
            queries, k, k_column, columns, dim, scale, BLOCK_ROWS, BLOCK_COLUMNS, BLOCK_DIM
        )
    tl.store(sums + pair * rows + row, found, mask=row < rows)


@triton.jit
def column_sums(
    q,  # (items, heads, rows, dim)
    k,  # (items, key heads, columns, dim), of one reference
    over_rows,  # (items, heads, rows), log of each row's sum over the columns
    share,  # (items, heads, rows), of the model's attention that goes to them
    emphasis,  # WEIGHTED: (items, rows), how much each row's M_r counts; else nothing is read
    log_sums,  # out: (items, heads, columns), log of each column's sum over the rows
    g2r,  # out: (items, heads, 2, columns), sums over the rows of M_r and of the model's attention
    q_item,  # strides
    q_head,
    q_row,
    k_item,
    k_head,
    k_column,
    heads,
    heads_each,
    rows,
    columns,
    dim,
    scale,
    HALF: tl.constexpr,
    WEIGHTED: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Sums over the rows, for each column of one reference: with M_r, three weights of the row.

    Its emphasis or 1, its share, and exp(its log-sum-exp − the highest so far).
    """
    block, pair = tl.program_id(0), tl.program_id(1).to(tl.int64)
    item, head = pair // heads, pair % heads
    q += item * q_item + head * q_head
    k += item * k_item + head // heads_each * k_head
    column = block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS)
    keys = _load_rows(k, column, column < columns, k_column, dim, BLOCK_DIM)
    kind = tl.arange(0, THIN)[None, :]
    level = tl.max(tl.full((BLOCK_ROWS,), -float("inf"), tl.float32))
    total = tl.zeros((BLOCK_COLUMNS, THIN), tl.float32)
    for first in range(0, rows, BLOCK_ROWS):
        row = first + tl.arange(0, BLOCK_ROWS)
        queries = _load_columns(q, row, row < rows, q_row, dim, BLOCK_DIM)
        over_row = tl.load(over_rows + pair * rows + row, mask=row < rows, other=float("inf"))
        over_row *= LOG2_E
        m_r = tl.exp2(_product(keys, queries) * (scale * LOG2_E) - over_row[None, :])
        higher = tl.maximum(level, tl.max(tl.where(row < rows, over_row, -float("inf"))))
        portion = tl.load(share + pair * rows + row, mask=row < rows, other=0.0)
        lift = tl.where(row < rows, tl.exp2(over_row - higher), 0.0)
        portion, portion_rest = _parts(portion[:, None], HALF)
        lift, lift_rest = _parts(lift[:, None], HALF)
        even, even_rest = 1.0, 0.0
        if WEIGHTED:
            even = tl.load(emphasis + item * rows + row, mask=row < rows, other=0.0)
            even, even_rest = _parts(even[:, None], HALF)
        weights = tl.where(kind == 0, even, tl.where(kind == 1, portion, 0.0))
        weights = tl.where(kind == 2, portion_rest, tl.where(kind == 3, lift, weights))
        weights = tl.where(kind == 4, lift_rest, tl.where(kind == 5, even_rest, weights))
        total *= tl.where((kind == 3) | (kind == 4), tl.exp2(level - higher), 1.0)
        high, rest = _parts(m_r, HALF)
        total += _thin(high, weights, HALF)
        if HALF:
            total += _thin(rest, weights, HALF)
        level = higher
    place = g2r + 2 * pair * columns + column
    of_paper = tl.where((kind == 0) | (kind == 5), total, 0.0)
    tl.store(place, tl.sum(of_paper, 1), mask=column < columns)
    of_model = tl.where((kind == 1) | (kind == 2), total, 0.0)
    tl.store(place + columns, tl.sum(of_model, 1), mask=column < columns)
    lifted = tl.sum(tl.where((kind == 3) | (kind == 4), total, 0.0), 1)
    if tl.min(tl.where(column < columns, lifted, 1.0)) >= WEAK:
        found = (level + tl.log2(lifted)) * LN_2
    else:  # rare: a column so far below the others that its sum is lost
        found = LN_2 * _own_log_sums(
            keys, q, q_row, rows, dim, scale, BLOCK_COLUMNS, BLOCK_ROWS, BLOCK_DIM
        )
    tl.store(log_sums + pair * columns + column, found, mask=column < columns)


@triton.jit
def pair_sums(
    q,  # (items, heads, rows, dim)
    k,  # (items, key heads, columns, dim), of one reference
    over_rows,  # (items, heads, rows), log of each row's sum over the columns
    share,  # (items, heads, rows), of the model's attention that goes to them
    emphasis,  # as in column_sums
    row_order,  # (row blocks · BLOCK_ROWS,), which tokens a block is of; -1 for none
    column_order,
    row_weights,  # (row blocks, ROW_CELLS, BLOCK_ROWS), the part each token is of each cell
    column_weights,  # (column blocks, COLUMN_CELLS, BLOCK_COLUMNS)
    pairs,  # out: (items, 2, row blocks · row slots, column blocks · column slots), over heads
    q_item,  # strides
    q_head,
    q_row,
    k_item,
    k_head,
    k_column,
    heads,
    heads_each,
    rows,
    columns,
    dim,
    scale,
    row_slots,  # of the cells of a block, those that are stored
    column_slots,
    HALF: tl.constexpr,
    WEIGHTED: tl.constexpr,
    ROW_CELLS: tl.constexpr,  # 0: rows are cells
    COLUMN_CELLS: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_COLUMNS: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """M_r and the model's attention of one block of one reference, over heads and pooled."""
    column_block, row_block = tl.program_id(0), tl.program_id(1)
    column_blocks, row_blocks = tl.num_programs(0), tl.num_programs(1)
    item = tl.program_id(2).to(tl.int64)
    q += item * q_item
    k += item * k_item

    row = tl.load(row_order + row_block * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS))
    column = tl.load(column_order + column_block * BLOCK_COLUMNS + tl.arange(0, BLOCK_COLUMNS))
    outside = tl.where(column >= 0, 0.0, float("inf"))
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
        queries = _load_rows(q + head * q_head, row, row >= 0, q_row, dim, BLOCK_DIM)
        keys = _load_columns(key_head, column, column >= 0, k_column, dim, BLOCK_DIM)
        over_row = tl.load(over_rows + pair * rows + row, mask=row >= 0, other=float("inf"))
        portion = tl.load(share + pair * rows + row, mask=row >= 0, other=0.0)
        logits = _product(queries, keys) * (scale * LOG2_E)
        mass = tl.exp2(logits - (over_row * LOG2_E)[:, None] - outside[None, :])
        if COLUMN_CELLS:
            mass = _thin(mass, cells, HALF)
        if WEIGHTED:
            even = tl.load(emphasis + item * rows + row, mask=row >= 0, other=0.0)
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
        paper, model = _thin(weights, paper, False), _thin(weights, model, False)
        slot = cell
    width = column_blocks * column_slots
    down = (2 * item * row_blocks + row_block) * row_slots + slot[:, None]
    place = pairs + down * width + (column_block * column_slots + across)[None, :]
    stored = (slot < row_slots)[:, None] & (across < column_slots)[None, :]
    tl.store(place, paper, mask=stored)
    tl.store(place + (row_blocks * row_slots).to(tl.int64) * width, model, mask=stored)
