"""Attribution → the viewer's payload: one file of a JSON header and quantised arrays, ≤ 8 MB.

The file holds 8 bytes `I2AMVIEW`, the header's length as uint32 (little-endian), the header in
UTF-8, padded with spaces so that the blob starts at a multiple of 8, and the blob. The header:

`format` "i2am.viewer/1" · `model`, `architecture`, `branch`, `seed`, `versions`, `joint`, `within`
as in the recording · `batch`: items sent · `definition`: the one to show first ·
`definitions`: those that were recorded ·
`steps` [{label, sigma, count}], one for each row sent: its numbers in the schedule, the noise level
of its first step, and how many recorded steps it holds ·
`layers` [{label, count, block, tokens}], the same for columns, with the kind of block and the
number of tokens of the result ·
`heads`: how many each column has, 0 where the layer × head maps were left out ·
`seen` [[…] for each step]: how many recorded (step, layer) maps an entry is the mean of. To get the
recording's own mean, weight each entry of `step_layer` by it, and each of `layer_head` by its
layer's `count` ·
`generated` {grid, covered, size in pixels, frames} and
`references` [the same, kind, has_places, label, whole]; for a video with pictures, `frame_of` is
the latent frame of each picture. If the model saw only a part of a picture, all values are of the
part, and `whole` is {size, part: [top, left, height, width]} in the picture's pixels; otherwise
there is no `whole` ·
`share` {text, self, references}: mean over the result, all layers and steps, for each item ·
`correspondence` [{rows, rows_covered, columns, columns_covered} or null] ·
`colormaps`: base64 of 256 × 3 bytes sRGB · `texts`: what maps and numbers mean ·
`pooled`: what was reduced to fit, in words; empty if nothing was ·
`words` [{text, weight, share: [one for each item]}], `word_grid` {grid, covered} and `words_apart`
(whether words have a softmax of their own), if words were asked for (Word Attribution) ·
`arrays` {name: {dtype, shape, offset, scale, per}}: value = stored × scale, where `scale` is a
number or a list, one for each index of the first `per` axes; offset in bytes, a multiple of 8.

`official` has for each column a number n or null. The arrays `official.{n}.down` and `.across` are
for columns whose grid over the result is coarser than that of the maps. These matrices resample
the column's maps as the authors' code does: down @ map @ across.T, then clamp at zero.

Arrays are the recording's (see `Recording`). Pooling keeps the mass of maps, and the mean of shares
and of the rows of a correspondence. `mask` and `reference_mask.{r}`, (1 or batch, height, width),
are bytes 0 to 255 for 0 to 1. `words`, (items, words, h, w), are shares of attention. A reference
without places has neither maps over it nor a
correspondence.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from ...errors import I2AMError
from ...recording import Attribution, Direction
from ...scores import fitting_mask
from .arrays import ALIGNMENT, PayloadArray, payload_arrays
from .header import FORMAT, payload_facts
from .pooling import REDUCTIONS, Fit, PooledView

__all__ = ["BUDGET", "FORMAT", "MAGIC", "pack_payload", "read_payload_header"]

MAGIC = b"I2AMVIEW"
BUDGET = 8_000_000  # bytes of a payload
_SCALE_BYTES = 16  # for one scale in the header, at most
_HEADER_BYTES = 32_768  # for the rest of the header, without labels
_LABEL_BYTES = 96  # for the entry of a step, a layer or an array


def pack_payload(
    attribution: Attribution, reference_masks: Mapping[int, Tensor] | None = None
) -> bytes:
    """Attribution → payload, in the layout described at the top of this file.

    reference_masks: by the number of their reference, from 0, (1 or batch, height, width).

    Raises I2AMError for a mask that does not fit its picture, and for more references than any
    reduction can fit.
    """
    header = attribution.recording.header
    masks = _masks(attribution, reference_masks or {})
    fit = Fit(header.run.batch, len(header.steps), len(header.layers))
    for reduction in ({}, *REDUCTIONS):
        fit = fit.reduced(reduction)
        view = PooledView(attribution, masks, fit)
        arrays = payload_arrays(view)
        if _bytes_at_most(view, arrays) <= BUDGET:
            return _packed(view, arrays)
    raise I2AMError(
        f"The viewer cannot show {len(header.references)} references at once. "
        "Use Attribution Map, which draws one of them."
    )


def read_payload_header(payload: bytes) -> dict[str, Any]:
    """Payload → its header."""
    start = len(MAGIC) + 4
    (length,) = struct.unpack("<I", payload[len(MAGIC) : start])
    return json.loads(payload[start : start + length])


def _bytes_at_most(view: PooledView, arrays: list[PayloadArray]) -> int:
    """An upper bound on the payload's bytes."""
    scales = sum(math.prod(array.shape[: array.per]) for array in arrays)
    labels = len(view.steps) + 2 * len(view.layers) + 2 * len(arrays)
    table = view.counts.numel() * len(f"{len(view.header.steps) * len(view.header.layers)}, ")
    header = _HEADER_BYTES + scales * _SCALE_BYTES + labels * _LABEL_BYTES + table
    return header + sum(array.bytes for array in arrays)


def _packed(view: PooledView, arrays: list[PayloadArray]) -> bytes:
    """The bytes of the payload."""
    blob = bytearray()
    placed: dict[str, dict[str, Any]] = {}
    for array in arrays:
        stored, scales = array.quantised()
        placed[array.name] = {
            "dtype": array.dtype,
            "shape": array.shape,
            "offset": len(blob),
            "scale": scales if array.per else scales[0],
            "per": array.per,
        }
        blob += stored.ljust(array.bytes, b"\0")
    facts = payload_facts(view) | {"arrays": placed}
    text = json.dumps(facts, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    start = len(MAGIC) + 4
    length = -(-(start + len(text.encode())) // ALIGNMENT) * ALIGNMENT - start
    return MAGIC + struct.pack("<I", length) + text.encode().ljust(length) + bytes(blob)


def _masks(attribution: Attribution, references: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """The given masks → fitted to their pictures, by the name of their array."""
    batch = attribution.recording.header.run.batch
    masks: dict[str, Tensor] = {}
    if attribution.mask is not None:
        size = attribution.size(Direction.REFERENCE_TO_GENERATED, 0)
        masks["mask"] = fitting_mask(attribution.mask, batch, size, "mask over the result")
    for number, mask in references.items():
        direction, name = Direction.GENERATED_TO_REFERENCE, f"mask over reference {number + 1}"
        whole = attribution.whole(direction, number)
        size = attribution.size(direction, number) if whole is None else whole.size
        fitted = fitting_mask(mask, batch, size, name)
        if whole is not None:
            rows, columns = whole.part
            fitted = fitted[:, rows, columns]
        masks[f"reference_mask.{number}"] = fitted
    return masks
