"""Pictures that packages of registries ship: fetched once into .comfyui/, never committed.

The objects are Microsoft's Fluent Emoji in three dimensions (MIT), from the npm registry. The
wallpapers are photographs that Debian packages; `copyright` in each package's folder names the
photographers and their licences.
"""

from __future__ import annotations

import shutil
import tarfile
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from . import paths
from .page import npm_command
from .running import Trouble, run_logged, step

OBJECTS = "@lobehub/fluent-emoji-3d@1.1.0"
WALLPAPERS = ("lomiri-wallpapers-16.04", "lomiri-wallpapers-20.04", "mate-backgrounds")


def get_objects(python: Path) -> Path:
    """The folder of the objects, one WebP of 256 pixels for each."""
    folder = _kept("objects-1.1.0", lambda folder: _get_objects(python, folder))
    return folder / "package" / "assets"


@cache
def get_wallpapers(package: str) -> Path:
    """The folder of a Debian package's wallpapers."""
    return _kept(package, lambda folder: _get_debian(package, folder)) / "usr/share/backgrounds"


def _kept(name: str, get: Callable[[Path], None]) -> Path:
    """A folder in the store; what is not there yet is put together beside it and moved whole."""
    folder = paths.STORE / name
    if not folder.is_dir():
        paths.STORE.mkdir(exist_ok=True)
        with step(f"Getting {name}"), tempfile.TemporaryDirectory(dir=paths.STORE) as temporary:
            get(Path(temporary))
            (Path(temporary) / "found").rename(folder)
    return folder


def _get_objects(python: Path, folder: Path) -> None:
    pack = [*npm_command(python), "pack", OBJECTS, "--pack-destination", str(folder)]
    run_logged(pack, "get-objects")
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder / "found", filter="data")


def _get_debian(package: str, folder: Path) -> None:
    if not shutil.which("apt-get"):
        raise Trouble(
            f"The demo models are trained on photographs of Debian's package {package}, and this "
            f"system has no apt-get. Unpack that package into {paths.shown(paths.STORE / package)}."
        )
    script = f"cd '{folder}' && apt-get download -q {package} && dpkg-deb -x *.deb found"
    run_logged(["sh", "-c", script], f"get-{package}")
