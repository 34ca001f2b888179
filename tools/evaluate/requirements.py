"""What an evaluation needs besides ComfyUI; the user's own ComfyUI may not have it yet."""

from __future__ import annotations

import importlib.util

NEEDED = ("ray", "pandas", "pyarrow", "scipy", "torchmetrics", "torch_fidelity", "matplotlib")


def check_requirements() -> None:
    """Exits with the command that installs what is missing."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise SystemExit(
            f"This Python has no {', '.join(missing)}. In the folder of this pack, run\n"
            "    python -m pip install --group evaluate\n"
            "with the Python that runs your ComfyUI (pip 25.1 or newer), then try again."
        )
