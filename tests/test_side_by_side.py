"""Side by side, the tests of a file run in one process, and so do all tests of the page."""

from __future__ import annotations

import os
import subprocess
import sys

from tools.setup.paths import ROOT


def test_a_file_stays_in_one_process() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "2", "-v", "tests/scores/test_imacs.py"],
        cwd=ROOT,
        env={name: text for name, text in os.environ.items() if "PYTEST" not in name},
        capture_output=True,
        text=True,
        check=False,
    )
    workers = {line.split()[0] for line in done.stdout.splitlines() if " PASSED " in line}
    assert done.returncode == 0, done.stdout[-2000:]
    assert len(workers) == 1
