"""The bundled demo model reads its reference and maps show it: thresholds on held-out scenes.

`python dev.py fidelity` measures the same on more scenes.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tools.demo.scenes import HELD_OUT_SEEDS, make_scenes
from tools.fidelity.host import MODEL, VAE, load, pack_names
from tools.fidelity.known import measure
from tools.fidelity.study import BARS

SCENES = 8


@pytest.fixture(scope="module")
def figures(comfy: Any) -> dict[str, float]:
    scenes = make_scenes(SCENES, HELD_OUT_SEEDS.start + 1000)
    with torch.inference_mode():
        return measure(load(pack_names(comfy.pack_name)), scenes)


@pytest.mark.parametrize("name", [name for name in BARS if name != "imacs_r_untrained"])
def test_figure_reaches_its_bar(figures: dict[str, float], name: str) -> None:
    low, high = BARS[name]
    assert low <= figures[name] <= high


def test_files_are_small() -> None:
    assert MODEL.stat().st_size <= 12e6
    assert VAE.stat().st_size <= 4.94e6


def test_stock_loaders_find_the_files(comfy: Any) -> None:
    for kind, file in (("diffusion_models", MODEL), ("vae", VAE)):
        assert file.name in comfy.folder_paths.get_filename_list(kind)
