"""What the pack may import: nothing that reaches the network, starts programs or runs data."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from tools.comfyui.server import ROOT

SOURCES = sorted(p for part in ("i2am", "nodes") for p in (ROOT / part).rglob("*.py"))
THEIRS = {
    *("torch", "triton", "numpy", "PIL", "safetensors", "einops"),
    *("folder_paths", "comfyui_version", "latent_preview"),  # ComfyUI's
}
COMFYUI = {"comfy", "comfy_api", "comfy_execution", "comfy_extras"}
DANGEROUS = {
    *("socket", "ssl", "http", "urllib", "ftplib", "smtplib", "asyncio", "socketserver"),
    *("subprocess", "multiprocessing", "ctypes", "pickle", "shelve", "marshal", "importlib"),
    *("runpy", "code", "webbrowser", "xmlrpc", "telnetlib", "imaplib", "poplib", "pty"),
}
CALLS = {"eval", "exec", "compile", "__import__", "system", "popen", "load", "loads"}


def _imported(tree: ast.AST) -> set[str]:
    names = set[str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names.add((node.module or "").partition(".")[0])
    return names


@pytest.mark.bad_input(
    "Anything at all",
    "No module of the pack can reach the network, start a program, or run what a file holds: none "
    "imports or calls what could, and none adds a route to the server",
)
@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    allowed = (set(sys.stdlib_module_names) - DANGEROUS) | THEIRS | COMFYUI
    assert _imported(tree) <= allowed
    called = {ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    assert not [name for name in called if "routes" in name]
    risky = {name for name in called if name.rpartition(".")[2] in CALLS}
    assert risky <= {"json.loads", "re.compile", "tl.load"}
