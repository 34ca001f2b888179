"""Finds a Chromium for the browser tests. Standard library only."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
USUAL_PLACES = {
    "darwin": (
        "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
        "/Applications/Chromium.app/Contents/MacOS/Chromium",
        "/Applications/Microsoft Edge.app/Contents/MacOS/Microsoft Edge",
    ),
    "win32": (
        r"C:\Program Files\Google\Chrome\Application\chrome.exe",
        r"C:\Program Files (x86)\Google\Chrome\Application\chrome.exe",
        r"C:\Program Files (x86)\Microsoft\Edge\Application\msedge.exe",
    ),
    "linux": ("/snap/bin/chromium",),
}
# Playwright's own downloads, if somebody has made them.
PLAYWRIGHT_CACHES = ("~/.cache/ms-playwright", "~/Library/Caches/ms-playwright")
PLAYWRIGHT_BINARIES = ("chromium-*/chrome-linux*/chrome", "chromium-*/chrome-mac*/*/*/*/Chromium")
# For tests: no sandbox (containers), no GPU, and no internet access on its own.
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> Path | None:
    """The browser named by CHROMIUM, else one on the PATH, else one in the usual places."""
    if os.environ.get("CHROMIUM"):
        named = Path(os.environ["CHROMIUM"])
        return named if named.is_file() else None
    for name in NAMES:
        found = shutil.which(name)
        if found:
            return Path(found)
    for place in USUAL_PLACES.get(sys.platform, ()):
        if Path(place).is_file():
            return Path(place)
    for cache in PLAYWRIGHT_CACHES:
        for pattern in PLAYWRIGHT_BINARIES:
            for found in sorted(Path(cache).expanduser().glob(pattern), reverse=True):
                return found
    return None


def need_chromium() -> Path:
    """The same browser; without one, the tool ends and says what to do."""
    found = find_chromium()
    if found is None:
        raise SystemExit("This needs Chromium; python dev.py test installs it.")
    return found
