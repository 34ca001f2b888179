"""Where things are in a checkout."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
STORE = ROOT / ".comfyui"  # releases of ComfyUI, logs, and the tools that check the page's code
LOGS = STORE / "logs"
PYPROJECT = ROOT / "pyproject.toml"
PAGE_TOOLS = ROOT / "tools" / "web"
READY = "i2am-ready.json"  # in a folder that was set up: what was installed there
WINDOWS = sys.platform == "win32"


def shown(path: Path) -> str:
    """A path as the user would type it from the checkout."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)
