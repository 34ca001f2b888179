"""The page of faults names the tests there are, in the words they say."""

from __future__ import annotations

import subprocess
import sys

from tools.comfyui.server import ROOT

TOOL = ROOT / "tools" / "make_reliability_page.py"


def test_the_page_is_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(TOOL), "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"run tools/docs/reliability_page.py\n{done.stdout[-2000:]}"
