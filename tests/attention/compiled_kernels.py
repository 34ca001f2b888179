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
from i2am.attention.triton_backend.tiles import FACTORS_AT_ONCE, Tile, tiles_for

# Cards by compute capability, and the shared memory of a program there, in KiB.
CARDS = {80: 163, 86: 99, 89: 99, 90: 227, 120: 99}
NVDISASM = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"  # Triton brings it
NUMBERS = "*fp32"
TYPES = {
    **dict.fromkeys(("row_order", "column_order"), "*i32"),
    **dict.fromkeys(("offsets", "sums", "over_rows", "share", "emphasis", "mask"), NUMBERS),
    **dict.fromkeys(("whole", "portions", "levels", "log_sums", "g2r", "r2g", "pairs"), NUMBERS),
    **dict.fromkeys(("by_block", "lacking"), NUMBERS),
    **dict.fromkeys(("row_weights", "column_weights"), NUMBERS),
    "scale": "fp32",
}


@pytest.mark.parametrize(
    "name",
    [
        *("row_sums", "row_factors", "column_sums", "model_sums"),
        *("pair_sums", "unpooled", "r2g_totals"),
    ],
)
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
    """The compiler takes them, they ask for no more shared memory than there is, and without a mask
    they spill nothing in their loops."""
    kernel: Any = getattr(kernels, "pair_sums" if name == "unpooled" else name)
    cells = 0 if name == "unpooled" else 32
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[dtype]
    tiles = tiles_for(kind, dim, divmod(card, 10))
    of_others = {"row_factors": Tile(FACTORS_AT_ONCE, 0, 4, 1), "r2g_totals": tiles.row_sums}
    tile = of_others.get(name) or getattr(tiles, name)
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
    factors = "*fp32" if dtype == "fp32" else "*bf16"
    types |= dict.fromkeys(("factors", "column_factors"), factors)
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
    assert found.metadata.shared <= CARDS[card] * 2**10
    assert masked or not spilled_in_loops(found.asm["cubin"], tmp_path / "cubin")


def spilled_in_loops(cubin: bytes, path: Path) -> int:
    """How many instructions of its loops use memory in place of registers."""
    path.write_bytes(cubin)
    asked = [str(NVDISASM), "-c", str(path)]
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    places = {line.partition(":")[0]: n for n, line in enumerate(lines) if line.startswith(".L_")}
    found: set[int] = set()
    for end, line in enumerate(lines):
        for label in re.findall(r"BRA .*`\((\.L_\w+)\)", line):
            found |= set(range(places[label], end))
    return sum(bool(re.search(r"\b(LDL|STL)\b", lines[n])) for n in found)
