"""The pictures of docs/method.md: every level of the demo model's maps over one held-out scene.

python -m tools.docs.method_pictures
"""

from __future__ import annotations

import argparse
import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tools.comfyui.in_process import ROOT, import_comfyui, import_pack
from tools.demo.save_pictures import demo_scene
from tools.fidelity.host import OBJECT, load, pack_names

FOLDER = ROOT / "docs" / "method"
POINT = (0.72, 0.7)  # in the hole
BACK = (0.845, 0.325)  # the place it attends to, in the object's picture


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    import_comfyui()
    package = import_pack().__name__
    with torch.inference_mode():
        attribution = sample(package)
        for name, picture in pictures(package, attribution).items():
            pixels = (picture[0].clamp(0, 1) * 255).round().byte().numpy()
            page = Image.fromarray(np.ascontiguousarray(pixels))
            page.save(folder / f"{name}.png", optimize=True)


def sample(package: str) -> Any:
    """Fill the hole of one scene; the attribution of that run, with its pictures."""
    names = pack_names(package)
    points = names.parse_point_queries("{},{}".format(*POINT), "points")
    back = f"{OBJECT + 1}: " + "{},{}".format(*BACK)
    points += names.parse_point_queries(back, "reference_points", numbered=True)
    host, scene = load(names), demo_scene()
    given = (scene.scene, scene.reference)
    latent, recording = host.sample(host.encoded(scene), 1, places=points)
    image = host.vae.decode(latent).clamp(0, 1)
    hole = large(scene.hole[..., None])[..., 0]
    return names.Attribution(recording, large(image), tuple(map(large, given)), hole)


def large(picture: Tensor) -> Tensor:
    """Twice as large, so that captions fit below."""
    return picture.repeat_interleave(2, 1).repeat_interleave(2, 2)


def pictures(package: str, attribution: Any) -> dict[str, Tensor]:
    """File name → picture, (1, height, width, 3)."""
    nodes = {
        name: getattr(importlib.import_module(f"{package}.nodes.{module}"), node)
        for name, module, node in (
            ("map", "look.map", "AttributionMapNode"),
            ("point", "look.point", "PointAttribution"),
            ("match", "look.correspondence", "CorrespondenceNode"),
        )
    }

    def ran(node: str, **inputs: Any) -> tuple[Any, ...]:
        return nodes[node].execute(attribution=attribution, reference=OBJECT + 1, **inputs).args

    sides = {"r2g": "reference to generated", "g2r": "generated to reference"}
    made: dict[str, Tensor] = {}
    for arrow, direction in sides.items():
        made[f"unified_{arrow}"] = ran("map", direction=direction)[0]
    made["time_r2g"] = ran("map", level="time", direction=sides["r2g"])[3]
    made["layer_g2r"] = ran("map", level="layer", direction=sides["g2r"])[3]
    for arrow, direction in sides.items():
        made[f"paper_{arrow}"] = ran("map", preset="paper", colormap="jet", direction=direction)[0]
    there = {"x": POINT[0], "y": POINT[1]}
    back = {"x": BACK[0], "y": BACK[1], "picked_on": "reference"}
    last = str(len(attribution.recording.header.layers) - 1)
    made["point"] = ran("point", **there, source="pooled")[0]
    for name, asked in (("exact_row", there), ("exact_column", back)):
        made[name] = ran("point", **asked, source="exact", definition="paper", layers=last)[0]
    made["flow"], made["arrows"] = ran("match", within_mask=True)[:2]
    return made


if __name__ == "__main__":
    main()
