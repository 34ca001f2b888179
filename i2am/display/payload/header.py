"""PooledView → the header of a payload: facts about its arrays, and the texts the page shows."""

from __future__ import annotations

import base64
from typing import Any

from torch import Tensor

from ...maps import item_shares, word_grid, word_shares
from ...recording import Attribution, Direction, Header, best_definition, definitions_of
from ...tokens import Grid, frames_of
from ..colormaps import Colormap, table
from .pooling import PooledView

FORMAT = "i2am.viewer/1"
_UNITS = {
    "%": "model R2G: the share of its attention that a place gives the reference",
    "×": "all other maps: 1 is what each place would have if all were spread evenly",
    "words": "the share of its attention that a place gives the word, the mean of all steps",
}


def payload_facts(view: PooledView) -> dict[str, Any]:
    """The header without its arrays."""
    header, run = view.header, view.header.run
    of_items = item_shares(view.attribution.recording)[: view.fit.items]
    text, own, *references = ([float(share) for share in kind] for kind in of_items.mT)
    return {
        "format": FORMAT,
        "model": run.model,
        "architecture": header.architecture,
        "branch": header.plan.branch,
        "seed": run.seed,
        "probed": run.probed,
        "versions": dict(run.versions),
        "batch": view.fit.items,
        "joint": header.joint,
        "within": header.plan.within,
        "definition": best_definition(view.attribution.recording).value,
        "definitions": [definition.value for definition in header.plan.recorded],
        "steps": [
            {
                "label": _numbers(header.steps[group.start], header.steps[group.stop - 1]),
                "sigma": header.sigmas[group.start],
                "count": len(group),
            }
            for group in view.steps
        ],
        "layers": [
            {
                "label": _layers_name(header, group),
                "count": len(group),
                "block": header.layers[group.start].block,
                "tokens": header.layer_grids[group.start].area,
            }
            for group in view.layers
        ],
        "official": view.official,
        "heads": [header.heads[group.start] if view.fit.head_bytes else 0 for group in view.layers],
        "seen": [[int(count) for count in row] for row in view.counts],
        "generated": _side(view, Direction.REFERENCE_TO_GENERATED, 0, view.generated),
        "references": [
            _side(view, Direction.GENERATED_TO_REFERENCE, r, grid)
            | {
                "kind": header.references[r].kind,
                "has_places": header.references[r].has_places,
                "label": "the picture itself" if header.plan.within else f"reference {r + 1}",
            }
            | _whole(view.attribution, r)
            for r, grid in enumerate(view.references)
        ],
        "share": {"text": text, "self": own, "references": references},
        "correspondence": [_match_facts(view, r) for r in range(len(view.references))],
        "colormaps": {
            colormap.value: _encoded((table(colormap) * 255).round().byte())
            for colormap in Colormap
        },
        "texts": {"definitions": definitions_of(header.plan), "units": _UNITS},
        **_words(view),
        "pooled": view.pooled(),
    }


def _words(view: PooledView) -> dict[str, Any]:
    """The words of the prompt, and the grid of their maps; nothing where there are none."""
    words, recording = view.words, view.attribution.recording
    if not words:
        return {}
    grid, shares = word_grid(recording, words[0].prompt), word_shares(recording, words)
    return {
        "words": [
            {
                "text": word.text,
                "weight": word.weight,
                "share": [float(share) for share in shares[: view.fit.items, n]],
            }
            for n, word in enumerate(words)
        ],
        "word_grid": {"grid": grid.sides, "covered": grid.covered},
        "words_apart": view.header.words_apart,
    }


def _side(view: PooledView, direction: Direction, r: int, grid: Grid) -> dict[str, Any]:
    """One picture: the grid its maps are sent on, and its size in pixels."""
    facts: dict[str, Any] = {
        "grid": grid.sides,
        "covered": grid.covered,
        "size": view.attribution.size(direction, r),
        "frames": grid.frames,
    }
    video = view.attribution.video(direction, r)
    if video is not None and grid.frames > 1:
        facts["frame_of"] = frames_of(video.shape[1], grid.frames)
    return facts


def _whole(attribution: Attribution, r: int) -> dict[str, Any]:
    """A reference picture's size and the part that the model saw; empty if it saw all."""
    whole = attribution.whole(Direction.GENERATED_TO_REFERENCE, r)
    if whole is None:
        return {}
    part = whole.top, whole.left, whole.height, whole.width
    return {"whole": {"size": whole.size, "part": part}}


def _match_facts(view: PooledView, r: int) -> dict[str, Any] | None:
    grids = view.correspondence_grids(r)
    if grids is None:
        return None
    _, _, rows, columns = grids
    return {
        "rows": rows.sides,
        "rows_covered": rows.covered,
        "columns": columns.sides,
        "columns_covered": columns.covered,
    }


def _numbers(first: int, last: int) -> str:
    return f"{first}" if first == last else f"{first}-{last}"


def _layers_name(header: Header, group: range) -> str:
    """The name of a group of layers: its one layer's, or the first to the last."""
    first, last = header.layers[group.start], header.layers[group.stop - 1]
    if first == last:
        return first.name
    if first.sub == last.sub == 0:
        return f"{first.block} {first.index}-{last.index}"
    return f"{first.name} - {last.name}"


def _encoded(table: Tensor) -> str:
    return base64.b64encode(table.numpy().tobytes()).decode()
