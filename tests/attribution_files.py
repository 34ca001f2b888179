"""Attributions to write and tamper with, and what a written file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recordings import attribution, recording
from safetensors import safe_open
from torch import Tensor

from i2am.recording import Attribution

FULL = attribution(steps=2)
WITH_POINTS = attribution(steps=2, places="0.3,0.6; 0,0-1,0.5", reference_places="2: 0.2,0.9")
BARE = Attribution(recording(steps=2, heads=(2,), batch=1, correspondence=False))


def file_parts(path: Path) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Any]]:
    """A file's tensors, metadata and JSON header."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = dict(file.metadata())
    return tensors, metadata, json.loads(metadata["i2am"])
