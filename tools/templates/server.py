"""A real ComfyUI with the stand-ins and this pack."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from tools.comfyui.server import PACK, ROOT, ComfyServer, link, make_base

_STAND_INS = "i2am-stand-ins"
_SIZES = {"i2am_small_wide.png": (144, 96), "i2am_small_tall.png": (96, 128)}


@contextlib.contextmanager
def template_server(comfyui: Path, log: Path) -> Iterator[ComfyServer]:
    """The server, with the small pictures that prompts load (small.py)."""
    with tempfile.TemporaryDirectory(prefix="i2am-templates-") as folder:
        base = make_base(Path(folder))
        link(ROOT / "tools" / "templates" / "stand_ins", base / "custom_nodes" / _STAND_INS)
        for number, (name, (width, height)) in enumerate(_SIZES.items()):
            colours = np.random.default_rng(number).integers(0, 255, (height // 8, width // 8, 3))
            picture = Image.fromarray(colours.astype(np.uint8))
            picture.resize((width, height), Image.Resampling.BICUBIC).save(base / "input" / name)
        more = ("--whitelist-custom-nodes", PACK, _STAND_INS)
        with ComfyServer(comfyui, base=base, log=log, threads=1, arguments=more) as server:
            yield server
