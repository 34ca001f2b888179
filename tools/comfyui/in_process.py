"""Loads real ComfyUI and the pack into this process, without a server."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

from tools.setup.paths import ROOT

_NAME = "comfyui_i2am"


def comfyui_path() -> Path:
    """The ComfyUI that COMFYUI_PATH names, else the one dev.py sets up."""
    return Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "0.30.0")


def import_comfyui(cpu: bool = True) -> Path:
    """Make ComfyUI's modules importable: `import comfy.sd` and the like, after this call.

    cpu: let it use the CPU only.
    """
    path = comfyui_path().resolve()
    if not (path / "main.py").exists():
        raise SystemExit(f"There is no ComfyUI in {path}. Run this through: python dev.py …")
    sys.path.insert(0, str(path))
    # It reads the command line on import.
    arguments, sys.argv = sys.argv, [sys.argv[0], *(["--cpu"] if cpu else [])]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args
    finally:
        sys.argv = arguments
    return path


def import_pack() -> ModuleType:
    """The pack as a package, loaded by its path as ComfyUI does."""
    spec = importlib.util.spec_from_file_location(
        _NAME, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
    )
    if spec is None or spec.loader is None:
        raise SystemExit("The pack cannot be loaded.")
    pack = importlib.util.module_from_spec(spec)
    sys.modules[_NAME] = pack
    spec.loader.exec_module(pack)
    return pack


def names_of(package: str, *modules: str) -> SimpleNamespace:
    """One namespace with all that these modules define. package: the loaded pack's name."""
    names = SimpleNamespace()
    for module in modules:
        vars(names).update(vars(importlib.import_module(f"{package}.{module}")))
    return names
