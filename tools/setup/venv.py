"""A virtual environment and its pip."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from .paths import READY, WINDOWS, shown
from .running import Trouble, run_logged, step

# The first pip that installs dependency groups; the one Python brings may be older.
PIP = "pip>=25.1"


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def interpreter(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if WINDOWS else "bin/python")


def make_venv(venv: Path) -> None:
    if interpreter(venv).is_file():
        return
    number = ".".join(map(str, sys.version_info[:3]))
    with step(f"Making a virtual environment in {shown(venv)} (Python {number})"):
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True, check=False
        )
        if made.returncode:
            shutil.rmtree(venv, ignore_errors=True)
            raise Trouble(
                f"Python could not make a virtual environment:\n{made.stdout}{made.stderr}"
                "  On Debian and Ubuntu this helps: sudo apt-get install python3-venv"
            )


def pip(venv: Path, *arguments: str, name: str) -> None:
    command = [str(interpreter(venv)), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    run_logged([*command, *arguments], name, growing=venv)


def state_of(venv: Path) -> dict[str, str]:
    """What was last installed into an environment, as hashes of the requirements."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((venv / READY).read_text("utf-8"))
    return {}
