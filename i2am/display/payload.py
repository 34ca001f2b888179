"""Attribution → the viewer's payload: one file of a JSON header and quantised arrays, ≤ 8 MB.

8 bytes `I2AMVIEW`, the header's length as uint32 (little-endian), the header in UTF-8 padded with
spaces so that the blob behind it starts at a multiple of 8, and the blob. The header:

`format` "i2am.viewer/1" · `model`, `architecture`, `branch`, `seed`, `versions`, `joint`, `within`
as in the recording · `batch`: items sent · `definition`: the one to look at first ·
`steps` [{label, sigma, count}], one for each row sent: the schedule's numbers, the noise level of
the first and how many recorded steps are in it · `layers` [{label, count, block, tokens}], the same
of columns, with the kind of block and how many tokens of the result they have ·
`heads`: how many each column has, 0 where the layer × head maps were left out ·
`seen` [[…] for each step]: how many recorded (step, layer) maps an entry is the mean of. A mean
over entries of `step_layer` weighs each by it, and one over `layer_head` by its layer's `count`:
it then is the recording's own · `generated` {grid, covered, size in pixels, frames} and
`references` [the same, kind, has_places, label]; of a video with pictures, `frame_of` is the
latent frame of each · `share` {text, self, references}: mean over the result, all layers and
steps, for each item · `correspondence` [{rows, rows_covered, columns, columns_covered} or null] ·
`colormaps`: base64 of 256 × 3 bytes sRGB · `texts`: what maps and numbers mean ·
`pooled`: what was reduced to fit, in words; empty if nothing was ·
`arrays` {name: {dtype, shape, offset, scale, per}}: value = stored × scale, where `scale` is a
number or a list, one for each index of the first `per` axes; offset in bytes, a multiple of 8.

Where layers see the result on unlike grids, `official` says for each column the number n of the
arrays `official.{n}.down` and `.across`, or null: the matrices that bring its maps over the result
to all layers' grid as the authors' code does (down @ map @ across.T, then nothing below zero).

Arrays are the recording's (see `Recording`), where pooled so that maps keep their mass, and shares
and the rows of a correspondence their mean. `mask` and `reference_mask.{r}`, (1 or batch, height,
width), are bytes 0 to 255 that stand for 0 to 1. A reference that has no places has neither maps
over it nor a correspondence.
"""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from typing import Any

import torch
from torch import Tensor

from ..attention import CORRESPONDENCE_SIDE
from ..errors import I2AMError
from ..maps import correspondence_of, item_shares
from ..recording import (
    DEFINITIONS,
    MAP_SIDE,
    Attribution,
    Definition,
    Direction,
    Header,
    best_definition,
    map_grid,
)
from ..scores import fitting_mask
from ..tokens import Grid, frames_of, invert_spread, mean_over_cells, resample_cells, spread
from .colormaps import Colormap, table

MAGIC = b"I2AMVIEW"
FORMAT = "i2am.viewer/1"
BUDGET = 8_000_000  # bytes of a payload
_ALIGNMENT = 8
_SCALE_BYTES = 16  # of one scale in the header, at most
_HEADER_BYTES = 32_768  # of all else in it, beside labels
_LABEL_BYTES = 96  # of a step's or a layer's entry, and of an array's
_HIGHEST = {"u1": 255, "u2": 65535}  # f4 is sent as it is
_UNITS = {
    "%": "model R2G: the share of its attention that a place gives the reference",
    "×": "all other maps: 1 is what each place would have if all were spread evenly",
}


@dataclass(frozen=True)
class _Fit:
    """How much of a recording is sent, at most: items, groups of steps and layers, cells a side.

    head_bytes: of one value of the layer × head maps; 0 leaves them out.
    """

    items: int
    steps: int
    layers: int
    map_side: int = MAP_SIDE
    match_side: int = CORRESPONDENCE_SIDE
    mask_side: int = 2**31
    head_bytes: int = 2


# What is given up, one after the other, until the rest fits.
_REDUCTIONS: tuple[dict[str, int], ...] = (
    {"mask_side": 1024},
    {"head_bytes": 1},
    {"steps": 10},
    {"map_side": 32},
    *({"layers": layers} for layers in (32, 24, 16, 12)),
    {"head_bytes": 0},
    *({"match_side": side} for side in (24, 20, 16)),
    *({"items": items} for items in (4, 2, 1)),
    {"mask_side": 256},
    {"map_side": 16},
    {"steps": 5},
    {"layers": 6},
    {"match_side": 8},
)


@dataclass(frozen=True)
class _Array:
    """One array to be sent: what it takes is known before its values are worked out.

    per: how many leading axes have a scale for each index; 0 where values are from 0 to 1.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    per: int
    values: Callable[[], Tensor]

    @property
    def bytes(self) -> int:
        size = math.prod(self.shape) * int(self.dtype[1])
        return -(-size // _ALIGNMENT) * _ALIGNMENT

    def quantised(self) -> tuple[bytes, list[float]]:
        """The stored numbers, little-endian, and the scales."""
        if self.dtype == "f4":
            return self.values().numpy().astype("<f4").tobytes(), [1.0]
        highest = _HIGHEST[self.dtype]
        rows = self.values().reshape(math.prod(self.shape[: self.per]), -1)
        tops: list[float] = rows.amax(1).numpy().tolist() if self.per else [1.0]
        scales = [float(f"{top / highest:.7g}") for top in tops]
        divisors = torch.tensor([scale or 1.0 for scale in scales])[:, None]
        stored = (rows / divisors).round().clamp(0, highest)
        return stored.numpy().astype(f"<{self.dtype}").tobytes(), scales


def pack_payload(
    attribution: Attribution, reference_masks: Mapping[int, Tensor] | None = None
) -> bytes:
    """The payload of an attribution; it is laid out as this file's first lines say.

    reference_masks: by the number of their reference, from 0, (1 or batch, height, width).

    Raises I2AMError for a mask that does not fit its picture, and for so many references that
    no reduction is enough.
    """
    header = attribution.recording.header
    masks = _masks(attribution, reference_masks or {})
    everything = _Fit(header.run.batch, len(header.steps), len(header.layers))
    sent = _Sent(attribution, masks, everything)
    for reduction in ({}, *_REDUCTIONS):
        sent = _Sent(attribution, masks, _reduced(sent.fit, reduction))
        if sent.bytes <= BUDGET:
            return sent.pack()
    raise I2AMError(
        f"The viewer cannot show {len(header.references)} references at once. "
        "Use Attribution Map, which draws one of them."
    )


def read_payload_header(payload: bytes) -> dict[str, Any]:
    """The header of a payload."""
    start = len(MAGIC) + 4
    (length,) = struct.unpack("<I", payload[len(MAGIC) : start])
    return json.loads(payload[start : start + length])


def _reduced(fit: _Fit, reduction: Mapping[str, int]) -> _Fit:
    return replace(fit, **{name: min(getattr(fit, name), n) for name, n in reduction.items()})


def _masks(attribution: Attribution, references: Mapping[int, Tensor]) -> dict[str, Tensor]:
    """The masks that were given, by the name of their array, held against their pictures."""
    batch = attribution.recording.header.run.batch
    masks: dict[str, Tensor] = {}
    if attribution.mask is not None:
        size = attribution.size(Direction.REFERENCE_TO_GENERATED, 0)
        masks["mask"] = fitting_mask(attribution.mask, batch, size, "mask over the result")
    for number, mask in references.items():
        size = attribution.size(Direction.GENERATED_TO_REFERENCE, number)
        name = f"mask over reference {number + 1}"
        masks[f"reference_mask.{number}"] = fitting_mask(mask, batch, size, name)
    return masks


class _Sent:
    """What is sent of an attribution under one fit."""

    def __init__(self, attribution: Attribution, masks: Mapping[str, Tensor], fit: _Fit) -> None:
        self.fit = fit
        self.masks = masks
        self.attribution = attribution
        self.recorded = attribution.recording.arrays
        self.header = header = attribution.recording.header
        self.generated = map_grid(header.generated.grid, fit.map_side)
        self.references = [map_grid(p.grid, fit.map_side) for p in header.references]
        self.steps = _even_groups(0, len(header.steps), fit.steps)
        self.layers = _layer_groups(header, fit.layers)
        seen = (torch.tensor(header.counts) > 0).float()
        self.seen = _sums(_sums(seen, self.steps, 0), self.layers, 1)  # (steps, layers)
        over = [map_grid(header.layer_grids[group.start], fit.map_side) for group in self.layers]
        self.coarser = list(dict.fromkeys(own for own in over if own.area < self.generated.area))
        self.official = [self.coarser.index(own) if own in self.coarser else None for own in over]
        self.arrays = [
            *self._map_arrays(),
            *self._match_arrays(),
            *self._mask_arrays(),
            *self._official_arrays(),
        ]

    @property
    def bytes(self) -> int:
        """What the payload takes, at most."""
        scales = sum(math.prod(array.shape[: array.per]) for array in self.arrays)
        labels = len(self.steps) + 2 * len(self.layers) + 2 * len(self.arrays)
        table = self.seen.numel() * len(f"{len(self.header.steps) * len(self.header.layers)}, ")
        header = _HEADER_BYTES + scales * _SCALE_BYTES + labels * _LABEL_BYTES + table
        return header + sum(array.bytes for array in self.arrays)

    def pack(self) -> bytes:
        """The payload."""
        blob = bytearray()
        placed: dict[str, dict[str, Any]] = {}
        for array in self.arrays:
            stored, scales = array.quantised()
            placed[array.name] = {
                "dtype": array.dtype,
                "shape": array.shape,
                "offset": len(blob),
                "scale": scales if array.per else scales[0],
                "per": array.per,
            }
            blob += stored.ljust(array.bytes, b"\0")
        facts = self._facts() | {"arrays": placed}
        text = json.dumps(facts, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        start = len(MAGIC) + 4
        length = -(-(start + len(text.encode())) // _ALIGNMENT) * _ALIGNMENT - start
        return MAGIC + struct.pack("<I", length) + text.encode().ljust(length) + bytes(blob)

    def _map_arrays(self) -> Iterator[_Array]:
        counts = self.fit.items, len(self.steps), len(self.layers)
        heads = self.fit.items, len(self.layers), max(self.header.heads)
        for r, picture in enumerate(self.header.references):
            sides = [("r2g", self.header.generated.grid, self.generated)]
            if picture.has_places:
                sides.append(("g2r", picture.grid, self.references[r]))
            for direction, grid, target in sides:
                for definition in ("paper", "model"):
                    name = f"{definition}.{direction}.{r}"
                    yield _Array(
                        f"{name}.step_layer",
                        "u2",
                        (*counts, *target.shape),
                        3,
                        lambda name=name, g=grid, t=target: self._step_layer(name, g, t),
                    )
                    if self.fit.head_bytes:
                        yield _Array(
                            f"{name}.layer_head",
                            f"u{self.fit.head_bytes}",
                            (*heads, *target.shape),
                            3,
                            lambda name=name, g=grid, t=target: self._layer_head(name, g, t),
                        )
        kinds = 2 + len(self.references)
        shape = (self.fit.items, kinds, *self.generated.shape)
        yield _Array("share.map", "u2", shape, 2, self._share_map)

    def _step_layer(self, name: str, grid: Grid, target: Grid) -> Tensor:
        """Of each group the mean over what was seen; what was not is zero in the recording."""
        maps = self.recorded[f"{name}.step_layer"][: self.fit.items].flatten(3)
        sums = _sums(_sums(maps, self.steps, 1), self.layers, 2)
        return spread(sums / self.seen.clamp(min=1)[..., None], grid, target)

    def _layer_head(self, name: str, grid: Grid, target: Grid) -> Tensor:
        """The mean over the layers of each group, which have the same heads."""
        maps = self.recorded[f"{name}.layer_head"][: self.fit.items].flatten(3)
        counts = torch.tensor([len(group) for group in self.layers])[:, None, None]
        return spread(_sums(maps, self.layers, 1) / counts, grid, target)

    def _share_map(self) -> Tensor:
        """A share is of each place's attention: places that are pooled have their mean."""
        shares = self.recorded["share.map"][: self.fit.items].flatten(2).mT
        return mean_over_cells(shares, self.header.generated.grid, self.generated).mT

    def _match_grids(self, r: int) -> tuple[Grid, Grid, Grid, Grid] | None:
        """Of a correspondence, the rows and columns recorded, and the rows and columns sent."""
        if f"correspondence.{r}" not in self.recorded or not self.header.references[r].has_places:
            return None
        pairs = correspondence_of(self.attribution.recording, Definition.PAPER, r)
        rows, columns = pairs.result, pairs.reference
        side = self.fit.match_side
        return rows, columns, rows.at_most(side), columns.at_most(side)

    def _match_arrays(self) -> Iterator[_Array]:
        for r in range(len(self.references)):
            grids = self._match_grids(r)
            if grids is None:
                continue
            _, _, rows, columns = grids
            shape = (self.fit.items, *rows.sides, *columns.sides)
            for definition, name in ((Definition.PAPER, ""), (Definition.MODEL, "model.")):
                # Each place's own scale keeps its own distribution precise.
                yield _Array(
                    f"correspondence.{name}{r}",
                    "u2",
                    shape,
                    3,
                    lambda d=definition, r=r, few=(rows, columns): self._matches(d, r, *few),
                )

    def _matches(self, definition: Definition, r: int, rows: Grid, columns: Grid) -> Tensor:
        pairs = correspondence_of(self.attribution.recording, definition, r)
        pooled = spread(pairs.values[: self.fit.items], pairs.reference, columns)
        return mean_over_cells(pooled, pairs.result, rows)

    def _mask_arrays(self) -> Iterator[_Array]:
        for name, mask in self.masks.items():
            grid = Grid(mask.shape[1], mask.shape[2])
            target = grid.at_most(self.fit.mask_side)
            shape = (min(len(mask), self.fit.items), *target.sides)
            yield _Array(name, "u1", shape, 0, lambda m=mask, g=grid, t=target: self._mask(m, g, t))

    def _mask(self, mask: Tensor, grid: Grid, target: Grid) -> Tensor:
        cells = mask[: self.fit.items].float().clamp(0, 1).flatten(1)[..., None]
        return mean_over_cells(cells, grid, target)

    def _official_arrays(self) -> Iterator[_Array]:
        """What `Order.OFFICIAL` does to a layer's maps, taken apart into rows and columns."""
        target = self.generated
        for number, own in enumerate(self.coarser):
            for axis, side in enumerate(("down", "across")):
                cells = target.sides[axis]
                lines = Grid(cells, 1, (target.covered[axis], 1.0))
                few = Grid(own.sides[axis], 1, (own.covered[axis], 1.0))
                yield _Array(
                    f"official.{number}.{side}",
                    "f4",
                    (cells, cells),
                    0,
                    lambda lines=lines, few=few: _official(lines, few),
                )

    def _facts(self) -> dict[str, Any]:
        """The header, but for its arrays."""
        header, run = self.header, self.header.run
        of_items = item_shares(self.attribution.recording)[: self.fit.items]
        text, own, *references = ([float(share) for share in kind] for kind in of_items.mT)
        return {
            "format": FORMAT,
            "model": run.model,
            "architecture": header.architecture,
            "branch": header.plan.branch,
            "seed": run.seed,
            "versions": dict(run.versions),
            "batch": self.fit.items,
            "joint": header.joint,
            "within": header.plan.within,
            "definition": best_definition(self.attribution.recording).value,
            "steps": [
                {
                    "label": _numbers(header.steps[group.start], header.steps[group.stop - 1]),
                    "sigma": header.sigmas[group.start],
                    "count": len(group),
                }
                for group in self.steps
            ],
            "layers": [
                {
                    "label": _layers_name(header, group),
                    "count": len(group),
                    "block": header.layers[group.start].block,
                    "tokens": header.layer_grids[group.start].area,
                }
                for group in self.layers
            ],
            "official": self.official,
            "heads": [
                header.heads[group.start] if self.fit.head_bytes else 0 for group in self.layers
            ],
            "seen": [[int(count) for count in row] for row in self.seen],
            "generated": self._side(Direction.REFERENCE_TO_GENERATED, 0, self.generated),
            "references": [
                self._side(Direction.GENERATED_TO_REFERENCE, r, grid)
                | {
                    "kind": header.references[r].kind,
                    "has_places": header.references[r].has_places,
                    "label": "the picture itself" if header.plan.within else f"reference {r + 1}",
                }
                for r, grid in enumerate(self.references)
            ],
            "share": {"text": text, "self": own, "references": references},
            "correspondence": [self._match_facts(r) for r in range(len(self.references))],
            "colormaps": {
                colormap.value: _encoded((table(colormap) * 255).round().byte())
                for colormap in Colormap
            },
            "texts": {"definitions": DEFINITIONS, "units": _UNITS},
            "pooled": self._pooled(),
        }

    def _side(self, direction: Direction, r: int, grid: Grid) -> dict[str, Any]:
        """One picture: the grid its maps are sent on, and its size in pixels."""
        facts: dict[str, Any] = {
            "grid": grid.sides,
            "covered": grid.covered,
            "size": self.attribution.size(direction, r),
            "frames": grid.frames,
        }
        video = self.attribution.video(direction, r)
        if video is not None and grid.frames > 1:
            facts["frame_of"] = frames_of(video.shape[1], grid.frames)
        return facts

    def _match_facts(self, r: int) -> dict[str, Any] | None:
        grids = self._match_grids(r)
        if grids is None:
            return None
        _, _, rows, columns = grids
        return {
            "rows": rows.sides,
            "rows_covered": rows.covered,
            "columns": columns.sides,
            "columns_covered": columns.covered,
        }

    def _pooled(self) -> list[str]:
        """What was reduced to fit, in words."""
        header, batch = self.header, self.header.run.batch
        said = [f"pictures {batch} → the first {self.fit.items}"] * (self.fit.items < batch)
        for name, all_of, groups in (
            ("steps", header.steps, self.steps),
            ("layers", header.layers, self.layers),
        ):
            if len(groups) < len(all_of):
                said.append(f"{name} {len(all_of)} → {len(groups)} groups")
        said += {2: [], 1: ["heads in 256 levels"], 0: ["heads left out"]}[self.fit.head_bytes]
        for name, was, now in self._grids():
            if was.sides != now.sides:
                said.append(f"{name} {_cells(was)} → {_cells(now)}")
        return said

    def _grids(self) -> Iterator[tuple[str, Grid, Grid]]:
        """What lies on a grid, the one it was on and the one it is sent on."""
        yield "maps over the result", self.header.generated.grid, self.generated
        for r, picture in enumerate(self.header.references):
            yield f"maps over reference {r + 1}", picture.grid, self.references[r]
            if grids := self._match_grids(r):
                rows, columns, few_rows, few_columns = grids
                yield f"places of the result looking at reference {r + 1}", rows, few_rows
                yield f"places of reference {r + 1} looked at", columns, few_columns
        for name, mask in self.masks.items():
            grid = Grid(mask.shape[1], mask.shape[2])
            yield name.replace("_", " "), grid, grid.at_most(self.fit.mask_side)


def _even_groups(start: int, count: int, most: int) -> list[range]:
    """Consecutive numbers in at most so many groups, as even as can be."""
    groups = min(count, most)
    edges = [start + count * group // groups for group in range(groups + 1)]
    return [range(first, stop) for first, stop in pairwise(edges)]


def _layer_groups(header: Header, most: int) -> list[range]:
    """Consecutive layers of one kind with equally many heads and tokens; about `most` groups."""
    kinds = [
        (layer.block, heads, grid)
        for layer, heads, grid in zip(header.layers, header.heads, header.layer_grids, strict=True)
    ]
    each = -(-len(kinds) // most)
    groups: list[range] = []
    start = 0
    for _, same in groupby(kinds):
        count = len(list(same))
        groups += _even_groups(start, count, -(-count // each))
        start += count
    return groups


def _sums(values: Tensor, groups: Sequence[range], dim: int) -> Tensor:
    """Added up within each group along an axis."""
    if len(groups) == values.shape[dim]:
        return values
    parts = [values.narrow(dim, group.start, len(group)).sum(dim) for group in groups]
    return torch.stack(parts, dim)


def _official(line: Grid, few: Grid) -> Tensor:
    """What undoes the spreading of a line's few cells, and resamples them: (cells, cells)."""
    cells = torch.eye(line.area)
    values = invert_spread(cells, line, few) * (few.area / line.area)
    return resample_cells(values, few, line).mT.contiguous()


def _numbers(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}-{last}"


def _layers_name(header: Header, group: range) -> str:
    """The layer's name, or from the first one's to the last one's."""
    first, last = header.layers[group.start], header.layers[group.stop - 1]
    if first == last:
        return first.name
    if first.sub == last.sub == 0:
        return f"{first.block} {first.index}-{last.index}"
    return f"{first.name} - {last.name}"


def _cells(grid: Grid) -> str:
    return f"{grid.height}×{grid.width}"


def _encoded(table: Tensor) -> str:
    return base64.b64encode(table.numpy().tobytes()).decode()
