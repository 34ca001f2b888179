"""The Triton kernels compiled for cards that need not be there: do they fit?

Into the shared memory of a program, and into its registers: what does not fit those is spilled to
slow memory, which the compiler does without a word.

Not collected by itself: test_triton_backend.py runs it in a process of its own, because it imports
Triton.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from i2am.attention.triton_backend import kernels, pooling_plan
from i2am.attention.triton_backend.tiles import tiles_for

# Cards by compute capability, and the shared memory of a program there, in KiB.
CARDS = {80: 163, 86: 99, 89: 99, 90: 227, 120: 99}
STACK = 32  # bytes of a thread, of 1020 in registers
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"  # Triton brings it
NUMBERS = "*fp32"
TYPES = {
    **dict.fromkeys(("row_order", "column_order"), "*i32"),
    **dict.fromkeys(
        ("offsets", "sums", "over_rows", "over_columns", "share", "emphasis", "mask"), NUMBERS
    ),
    **dict.fromkeys(("levels", "lifts", "log_sums", "g2r", "r2g", "pairs"), NUMBERS),
    **dict.fromkeys(("row_weights", "column_weights"), NUMBERS),
    "scale": "fp32",
}


@pytest.mark.parametrize("name", ["row_sums", "column_sums", "pair_sums", "unpooled", "model_sums"])
@pytest.mark.parametrize("card", CARDS)
@pytest.mark.parametrize(
    ("dtype", "dim", "masked"),
    [
        ("bf16", 128, False),
        ("bf16", 128, True),
        ("bf16", 160, False),
        ("fp16", 64, False),
        ("fp32", 64, False),
    ],
)
def test_fits(name: str, card: int, dtype: str, dim: int, masked: bool, tmp_path: Path) -> None:
    """The compiler takes them, they ask for no more shared memory than there is, and spill hardly
    anything in half precision without a mask. In float32, products fill the registers."""
    kernel: Any = getattr(kernels, "pair_sums" if name == "unpooled" else name)
    cells = 0 if name == "unpooled" else 32
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
    tile = getattr(tiles_for(kind, dim, divmod(card, 10)), name)
    fixed = {
        "BY_COLUMN": False,
        "KNOWN": True,
        "HALF": dtype != "fp32",
        "MASKED": masked,
        "WEIGHTED": False,
        "WITH_R2G": True,
        "ROW_CELLS": cells,
        "COLUMN_CELLS": cells,
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLUMNS": tile.columns,
        "Q_ROW": 24 * dim,
        "K_COLUMN": 24 * dim,
        "DIM": dim,
        "BLOCK_DIM": pooling_plan.padded(dim),
    }
    types = dict.fromkeys(kernel.arg_names, "i32") | TYPES | dict.fromkeys(("q", "k"), f"*{dtype}")
    types |= dict.fromkeys(fixed, "constexpr")
    asked = {argument: types[argument] for argument in kernel.arg_names}
    aligned = [
        (place,)
        for place, (argument, kind) in enumerate(asked.items())
        if kind.startswith("*") or argument.startswith(("q_", "k_"))
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
    assert 0 < found.metadata.shared <= CARDS[card] * 2**10
    assert dtype == "fp32" or masked or stack_of(found.asm["cubin"], tmp_path / "cubin") <= STACK


def stack_of(cubin: bytes, path: Path) -> int:
    """Bytes that each thread keeps outside its registers."""
    path.write_bytes(cubin)
    asked = [str(CUOBJDUMP), "--dump-resource-usage", str(path)]
    told = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    (found,) = re.findall(r"REG:\d+ STACK:(\d+)", told)
    return int(found)
