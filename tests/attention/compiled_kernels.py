"""The Triton kernels compiled for cards that need not be there: do they fit?

Not collected by itself: test_triton_backend.py runs it in a process of its own, because it imports
Triton.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from i2am.attention.triton_backend import kernels, passes, pooling_plan

# Of shared memory for a program: of the smallest of the cards (GeForce 30 and 40), which are
# served by what is compiled for the A100 (80). The H100 (90) has more, the GeForce 50 as little.
SMALLEST = 99 * 2**10


@pytest.mark.parametrize("name", ["log_sums", "marginal_sums"])
@pytest.mark.parametrize("card", [80, 90])
@pytest.mark.parametrize("dim", [128, 160])
def test_fits(name: str, card: int, dim: int) -> None:
    """The compiler takes them, and they ask for no more shared memory than there is."""
    kernel: Any = getattr(kernels, name)
    tile = passes.tiles(torch.bfloat16, dim)[name == "marginal_sums"]
    fixed = {
        "WITH_COLUMNS": True,
        "WITH_PAIRS": True,
        "ROW_CELLS": 32,
        "COLUMN_CELLS": 16,
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "BLOCK_DIM": pooling_plan.padded(dim),
    }
    types = dict.fromkeys(kernel.arg_names, "i32") | {"scale": "fp32"}
    types |= {"q": "*bf16", "k": "*bf16"}
    types |= dict.fromkeys(("row_order", "column_order"), "*i32")
    types |= dict.fromkeys(("row_sums", "column_sums", "share", "r2g", "g2r", "pairs"), "*fp32")
    types |= dict.fromkeys(("row_weights", "column_weights"), "*fp32")
    types |= dict.fromkeys(fixed, "constexpr")
    asked = {argument: types[argument] for argument in kernel.arg_names}
    aligned = [
        (place,)
        for place, (argument, kind) in enumerate(asked.items())
        if kind.startswith("*") or argument.startswith(("q_", "k_")) or argument == "dim"
    ]
    source = ASTSource(
        kernel,
        asked,
        {(kernel.arg_names.index(a),): value for a, value in fixed.items() if a in asked},
        {place: [["tt.divisibility", 16]] for place in aligned},
    )
    options = {"num_warps": tile.warps, "num_stages": tile.stages}
    found: Any = compile(source, target=GPUTarget("cuda", card, 32), options=options)
    assert found.asm["cubin"]
    assert 0 < found.metadata.shared <= SMALLEST
