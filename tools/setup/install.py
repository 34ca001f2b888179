"""Install what a ComfyUI and the tests need, into .venv or a thin environment on top of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from pathlib import Path

from . import paths
from .comfyui import DEFAULT, ComfyUI, find_comfyui, get_comfyui
from .paths import READY, shown
from .running import Trouble, megabytes, say, step
from .venv import PIP, digest, interpreter, make_venv, pip, state_of

NEEDED_GB = 9
GROUPS = ("torch", "dev")  # of pyproject.toml


def development_pins() -> str:
    """A hash of pyproject.toml's dependency groups, the pins of everything but ComfyUI's own."""
    text = paths.PYPROJECT.read_text("utf-8")
    _, found, groups = text.partition("\n[dependency-groups]\n")
    if not found:
        raise Trouble(f"{shown(paths.PYPROJECT)} has no [dependency-groups].")
    return digest(groups.partition("\n[")[0])


def environment_for(comfyui: ComfyUI) -> Path:
    """The environment a ComfyUI runs in: .venv, or a thin one on top of it for another release."""
    wanted = digest((comfyui.path / "requirements.txt").read_text("utf-8"))
    state = state_of(paths.VENV)
    if comfyui.own and state.get("comfyui", wanted) != wanted:
        return paths.STORE / f"venv-own-{wanted[:8]}"
    if not comfyui.own and comfyui.version != DEFAULT:
        return paths.STORE / f"venv-{comfyui.version}"
    return paths.VENV


def install(comfyui: ComfyUI) -> Path:
    """Makes sure that everything is installed; returns the interpreter to use."""
    venv = environment_for(comfyui)
    requirements = comfyui.path / "requirements.txt"
    wanted = digest(requirements.read_text("utf-8"))
    development = development_pins()
    if venv == paths.VENV:
        wanted_state = {"development": development, "comfyui": wanted}
        if not is_ready(paths.VENV, wanted_state):
            install_into(paths.VENV, wanted_state, f"ComfyUI {comfyui.version}", requirements)
        return interpreter(paths.VENV)
    base = state_of(paths.VENV)
    if base.get("development") != development or not interpreter(paths.VENV).is_file():
        install_into(paths.VENV, {"development": development}, "development")
    wanted_state = {"development": development, "comfyui": wanted}
    if not is_ready(venv, wanted_state):
        make_venv(venv)
        put_on_top(venv, paths.VENV)
        install_into(venv, wanted_state, f"ComfyUI {comfyui.version}", requirements)
    return interpreter(venv)


def is_ready(venv: Path, wanted_state: dict[str, str]) -> bool:
    """Whether an environment has what is wanted; it may have more groups."""
    return wanted_state.items() <= state_of(venv).items() and interpreter(venv).is_file()


def install_into(venv: Path, wanted_state: dict[str, str], what: str, *more: Path) -> None:
    make_venv(venv)
    (venv / READY).unlink(missing_ok=True)
    free = shutil.disk_usage(venv).free / 1e9
    new = not (venv / "lib").is_dir() or not list(venv.glob("[lL]ib*/**/torch/version.py"))
    if new and venv == paths.VENV and free < NEEDED_GB:
        raise Trouble(
            f"torch and ComfyUI need about {NEEDED_GB} GB on the disk of {venv}, where "
            f"{free:.1f} GB are free. Make room, or put the checkout on another disk."
        )
    with step(f"Installing the requirements of {what}, torch and test tools") as notes:
        groups = [f"--group={paths.PYPROJECT}:{name}" for name in GROUPS]
        files = [word for file in more for word in ("-r", str(file))]
        pip(venv, "install", "--upgrade", PIP, name="install-pip")
        pip(venv, "install", "--progress-bar=off", *groups, *files, name=f"install-{venv.name}")
        notes.append(f"{megabytes(venv)} in {shown(venv)}")
    (venv / READY).write_text(json.dumps(wanted_state), "utf-8")


def put_on_top(venv: Path, base: Path) -> None:
    """Lets an environment see the packages of another; its own come first."""

    def packages(of: Path) -> Path:
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        command = [str(interpreter(of)), "-c", code]
        return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout[:-1])

    line = f"import site; site.addsitedir({str(packages(base))!r})\n"
    (packages(venv) / "i2am_base.pth").write_text(line, "utf-8")


def add_groups(python: Path, groups: tuple[str, ...]) -> None:
    """Installs more dependency groups into the environment of an interpreter, once each."""
    venv = python.parents[1]
    pins = development_pins()
    for group in groups:
        state = state_of(venv)
        if state.get(group) == pins:
            continue
        with step(f"Installing what {group} needs") as notes:
            arguments = ["--progress-bar=off", f"--group={paths.PYPROJECT}:{group}"]
            pip(venv, "install", *arguments, name=f"install-{group}")
            notes.append(f"{megabytes(venv)} in {shown(venv)}")
        (venv / READY).write_text(json.dumps({**state, group: pins}), "utf-8")


def set_up(version: str | None, *groups: str) -> tuple[ComfyUI, Path]:
    """Everything a command needs; returns the ComfyUI and the interpreter.

    groups: dependency groups that only some commands need.
    """
    start = time.monotonic()
    comfyui = find_comfyui(version)
    make_venv(paths.VENV)
    get_comfyui(comfyui)
    python = install(comfyui)
    add_groups(python, groups)
    whose = "your own, " if comfyui.own else ""
    say(
        f"ComfyUI {comfyui.version} ({whose}{shown(comfyui.path)}), "
        f"Python in {shown(python.parents[1])}: ready ({time.monotonic() - start:.1f} s)"
    )
    return comfyui, python
