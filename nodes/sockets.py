"""What travels between our nodes, and the one place where recordings are kept."""

from __future__ import annotations

from pathlib import Path

import folder_paths
from comfy_api.latest import io

from ..i2am.recording import Store

AttributionSocket = io.Custom("I2AM_ATTRIBUTION")

MEMORY_BYTES = 512 * 2**20
FILE_BYTES = 4 * 2**30


def temporary_folder() -> Path:
    """Our own folder below ComfyUI's temporary one, which it empties when it starts."""
    folder = Path(folder_paths.get_temp_directory()) / "i2am"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


# Recordings must outlive the nodes that made them: ComfyUI's cache brings back old latents at any
# time, and each must find its own. Bounded; the oldest go to ComfyUI's temporary folder.
RECORDINGS = Store(MEMORY_BYTES, FILE_BYTES, temporary_folder)
