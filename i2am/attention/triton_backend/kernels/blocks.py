"""Blocks of tokens: what the Triton kernels read of them, and the logits they make.

Tokens that stay are `fixed`, those that pass by come in blocks. Where the last block is not full,
its last token is read again, and does not count.
"""
# pyright: basic, reportUnknownParameterType=false, reportMissingParameterType=false
# pyright: reportArgumentType=false, reportOperatorIssue=false, reportOptionalOperand=false
# pyright: reportUnboundVariable=false

from __future__ import annotations

import triton
import triton.language as tl

from .. import tiles

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
# Exponentials below 2^-126 are lost. A sum of them relative to an offset that is not its own has
# lost nothing that a float32 of it would show, if it is above this. Otherwise it takes its own.
WEAK = tl.constexpr(2.0**-60)
FACTORS = tl.constexpr(tiles.FACTORS)


@triton.jit
def product(a, b):
    """a @ b in float32: of half-precision inputs exactly, of float32 without TF32's short cuts."""
    return tl.dot(a, b, input_precision="ieee")


@triton.jit
def thin_product(a, b, HALF: tl.constexpr):
    """a @ b in float32; in half precision with both rounded to bfloat16, else nearly exactly."""
    if HALF:
        return tl.dot(a.to(tl.bfloat16), b.to(tl.bfloat16))
    else:  # what follows a return is compiled as well
        return tl.dot(a, b, input_precision="tf32x3")


@triton.jit
def store_factors(x, token, first, second, third):
    """Factors of tokens for three sums into (tokens, FACTORS): rounded, and what rounding left.

    In two numbers of half precision, a factor is as good as exact.
    """
    slot = tl.arange(0, FACTORS)[None, :]
    number = tl.where(slot % 4 == 0, first[:, None], second[:, None])
    number = tl.where(slot % 4 == 2, third[:, None], number)
    number = tl.where((slot % 4 == 3) | (slot >= 8), 0.0, number)
    rounded = number.to(x.dtype.element_ty).to(tl.float32)
    tl.store(x + token[:, None] * FACTORS + slot, tl.where(slot < 4, rounded, number - rounded))


@triton.jit
def one_sum(sums, which: tl.constexpr):
    """One of three sums from thin products with stored factors: (tokens, FACTORS) → (tokens,)."""
    slot = tl.arange(0, FACTORS)[None, :]
    return tl.sum(tl.where(slot % 4 == which, sums, 0.0), 1)


@triton.jit
def tokens(first, count, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """The tokens of a block that begins at `first`; beyond the last of `count`, that one again.

    WHOLE: the block ends before that, so that addresses are known when the kernel is compiled.
    """
    token = first + tl.arange(0, BLOCK)
    return token if WHOLE else tl.minimum(token, count - 1)


@triton.jit
def counting(first, count, BLOCK: tl.constexpr):
    """Which tokens of a block that begins at `first` are among the `count`, and not read again."""
    return first + tl.arange(0, BLOCK) < count


@triton.jit
def numbers(x, first, count, other, BLOCK: tl.constexpr, WHOLE: tl.constexpr):
    """One number for each token of a block that begins at `first`; `other` where none counts."""
    token = first + tl.arange(0, BLOCK)
    return tl.load(x + token) if WHOLE else tl.load(x + token, mask=token < count, other=other)


@triton.jit
def load_rows(x, token, STRIDE: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """(tokens, dim) of one head."""
    axis = tl.arange(0, BLOCK_DIM)
    place = x + token[:, None] * STRIDE + axis[None, :]
    if DIM == BLOCK_DIM:
        return tl.load(place)
    return tl.load(place, mask=(axis < DIM)[None, :], other=0.0)


@triton.jit
def load_columns(x, token, STRIDE: tl.constexpr, DIM: tl.constexpr, BLOCK_DIM: tl.constexpr):
    """(dim, tokens) of one head."""
    axis = tl.arange(0, BLOCK_DIM)
    place = x + token[None, :] * STRIDE + axis[:, None]
    if DIM == BLOCK_DIM:
        return tl.load(place)
    return tl.load(place, mask=(axis < DIM)[:, None], other=0.0)


@triton.jit
def added(mask, down, down_stride, across, across_stride):
    """What a mask adds to logits in powers of two, for tokens down and across."""
    down, across = down.to(tl.int64), across.to(tl.int64)
    place = down[:, None] * down_stride + across[None, :] * across_stride
    return tl.load(mask + place).to(tl.float32) * LOG2_E


@triton.jit
def logits_of(
    fixed,  # (tokens, dim)
    fixed_token,  # (tokens,), which they are
    passing,  # (tokens, dim) of those that pass by, of one head
    first,
    count,
    scale,
    mask,  # MASKED: of one head, to be added
    mask_fixed,  # its strides
    mask_passing,
    MASKED: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
    STRIDE: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """S, in powers of two, of the fixed tokens and the block of others that begins at `first`."""
    token = tokens(first, count, BLOCK, WHOLE)
    there = load_columns(passing, token, STRIDE, DIM, BLOCK_DIM)
    logits = product(fixed, there) * (scale * LOG2_E)
    if MASKED:
        logits += added(mask, fixed_token, mask_fixed, token, mask_passing)
    return logits


@triton.jit
def own_log_sums(
    fixed,
    fixed_token,
    passing,
    count,
    scale,
    mask,
    mask_fixed,
    mask_passing,
    MASKED: tl.constexpr,
    BLOCK_FIXED: tl.constexpr,
    BLOCK_PASSING: tl.constexpr,
    STRIDE: tl.constexpr,
    DIM: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Log-sum-exp of each fixed token's logits, in powers of two, whatever they are.

    −∞ if a mask hides them all.
    """
    high = tl.full((BLOCK_FIXED,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK_FIXED,), tl.float32)  # relative to 2^high
    for first in range(0, count, BLOCK_PASSING):
        logits = logits_of(
            fixed, fixed_token, passing, first, count, scale, mask, mask_fixed, mask_passing,
            MASKED, False, BLOCK_PASSING, STRIDE, DIM, BLOCK_DIM,
        )  # fmt: skip
        counts = counting(first, count, BLOCK_PASSING)
        logits = tl.where(counts[None, :], logits, -float("inf"))
        higher = tl.maximum(high, tl.max(logits, 1))
        offset = tl.where(higher == -float("inf"), 0.0, higher) if MASKED else higher
        total = total * tl.exp2(high - offset) + tl.sum(tl.exp2(logits - offset[:, None]), 1)
        high = higher
    return high + tl.log2(total)
