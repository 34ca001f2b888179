"""Fixtures of the recording tests: a path for a file, and files that were tampered with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from attribution_files import BARE, file_parts
from safetensors.torch import save_file
from torch import Tensor

from i2am.recording import Attribution, save_attribution

Change = Callable[[dict[str, Tensor], dict[str, Any]], object]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.safetensors"


@pytest.fixture
def tamper(path: Path) -> Callable[..., Path]:
    """Writes a good file, then changes its tensors and header."""

    def tamper(change: Change, written: Attribution = BARE) -> Path:
        save_attribution(path, written)
        tensors, metadata, header = file_parts(path)
        change(tensors, header)
        save_file(tensors, path, metadata | {"i2am": json.dumps(header)})
        return path

    return tamper
