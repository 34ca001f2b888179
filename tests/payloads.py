"""Reads the viewer's payload as `i2am/payload.py` describes it, sharing no code with it."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

import numpy as np
import torch
from torch import Tensor


def unpack(payload: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the arrays, in numbers."""
    assert payload[:8] == b"I2AMVIEW"
    (length,) = struct.unpack("<I", payload[8:12])
    header = json.loads(payload[12 : 12 + length].decode())
    start = 12 + length
    assert start % 8 == 0
    arrays, end = {}, start
    for name, facts in header["arrays"].items():
        assert start + facts["offset"] == end
        assert facts["offset"] % 8 == 0
        dtype = np.dtype("<" + facts["dtype"])
        count = math.prod(facts["shape"])
        stored = np.frombuffer(payload, dtype, count, start + facts["offset"])
        end += -(-count * dtype.itemsize // 8) * 8
        leading = facts["shape"][: facts["per"]]
        scale = torch.tensor(facts["scale"]).reshape(
            *leading, *[1] * (len(facts["shape"]) - len(leading))
        )
        values = torch.from_numpy(stored.astype(np.float32)).reshape(facts["shape"])
        arrays[name] = values * scale
    assert end == len(payload)
    return header, arrays


def deviation(found: Tensor, expected: Tensor, per: int) -> float:
    """The largest difference, in parts of the highest value of its own map."""
    found, expected = (values.flatten(0, per - 1).flatten(1) for values in (found, expected))
    assert found.shape == expected.shape
    highest = expected.amax(1, keepdim=True)
    return float(((found - expected).abs() / torch.where(highest > 0, highest, 1)).max())
