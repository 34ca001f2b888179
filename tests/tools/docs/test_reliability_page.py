"""docs/reliability.md names the present tests and repeats their words."""

from __future__ import annotations

import subprocess
import sys

from tools.comfyui.server import ROOT


def test_the_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tools.docs.reliability_page", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"run python -m tools.docs.reliability_page\n{done.stdout[-2000:]}"
