"""ComfyUI in this process: its own setup, node types and executor, without its server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib
import inspect
import json
import logging
import os
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from tools.setup.paths import ROOT

COLLECT = "I2AM_Collect"
SAMPLES, SAMPLE_BYTES = 16, 2**16  # of a model file, for its fingerprint
KEPT_PICTURES = 64  # in the temporary folder
Json = dict[str, Any]


class ComfyUIError(Exception):
    """ComfyUI did not start, or a node of a prompt failed; the message says which."""


class ComfyUI:
    """ComfyUI set up as in `main.py`, with this pack and, if a workflow needs more, all others.

    It writes pictures and other files to `scratch`; its models and input folder are unchanged.
    """

    def __init__(
        self,
        path: Path,
        scratch: Path,
        *,
        cpu: bool,
        arguments: Sequence[str] = (),
        models: Sequence[tuple[str, str]] = (),
        node_types: Sequence[str] = (),
    ) -> None:
        if not (path / "main.py").is_file():
            raise ComfyUIError(
                f"There is no ComfyUI in {path}. Set COMFYUI_PATH to the folder with its main.py."
            )
        for name in ("output", "temp"):
            (scratch / name).mkdir(parents=True, exist_ok=True)
        _import_from(path)
        own = ["--output-directory", str(scratch / "output"), "--temp-directory", str(scratch)]
        own += ["--disable-all-custom-nodes", "--disable-api-nodes", *(["--cpu"] if cpu else [])]
        # ComfyUI wraps the streams; the originals would close with their last reference.
        self._streams = sys.stdout, sys.stderr
        previous, sys.argv = sys.argv, ["main.py", *own, *arguments]
        try:
            importlib.import_module("main")  # the setup ComfyUI does before loading nodes
        except SystemExit:
            raise ComfyUIError(f"ComfyUI refused its arguments: {' '.join(arguments)}") from None
        finally:
            sys.argv = previous
        self.nodes, self.execution, self.folders = (
            importlib.import_module(name) for name in ("nodes", "execution", "folder_paths")
        )
        self.folders.set_temp_directory(str(scratch / "temp"))
        self.temp = scratch / "temp"
        self._loop = asyncio.new_event_loop()
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._load(node_types))
        for kind, folder in models:
            self.folders.add_model_folder_path(kind, folder)
        self.executor = self.execution.PromptExecutor(
            _Silent(),
            cache_type=self.execution.CacheType.CLASSIC,
            cache_args={"lru": 0, "ram": 0.0, "ram_inactive": 0.0},
        )

    async def _load(self, node_types: Sequence[str]) -> None:
        server = importlib.import_module("server")
        server.PromptServer(asyncio.get_running_loop())
        await self.nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False)
        await self.nodes.load_custom_node(str(ROOT))
        if set(node_types) - set(self.nodes.NODE_CLASS_MAPPINGS):
            arguments = importlib.import_module("comfy.cli_args").args
            arguments.disable_all_custom_nodes = False
            await self.nodes.init_external_custom_nodes()
        if COLLECT not in self.nodes.NODE_CLASS_MAPPINGS:
            raise ComfyUIError("ComfyUI could not load this pack; its log says why.")

    @property
    def version(self) -> str:
        return str(importlib.import_module("comfyui_version").__version__)

    @property
    def pack_version(self) -> str:
        """The pack's version and a digest of its code, since figures depend on both."""
        files = [*(ROOT / "i2am").rglob("*.py"), *(ROOT / "nodes").rglob("*.py")]
        code = hashlib.sha256()
        for path in sorted(files):
            code.update(path.read_bytes())
        return f"{self.pack('i2am').__version__} ({code.hexdigest()[:8]})"

    def pack(self, module: str) -> ModuleType:
        """A module of the pack as ComfyUI loaded it: pack("i2am.scores")."""
        name = self.nodes.NODE_CLASS_MAPPINGS[COLLECT].__module__.removesuffix(
            ".nodes.watch.collect"
        )
        return importlib.import_module(f"{name}.{module}")

    def object_info(self, types: Sequence[str]) -> Json:
        """The given node types that exist, as the server would return them."""
        found = {name: self.nodes.NODE_CLASS_MAPPINGS.get(name) for name in types}
        infos = {name: _node_info(self.nodes, name, kind) for name, kind in found.items() if kind}
        return json.loads(
            json.dumps(infos, default=str)
        )  # ComfyUI's own types mean nothing elsewhere

    def fingerprints(self, names: Sequence[str]) -> dict[str, str]:
        """The given names that are model files, with a digest of parts of each."""
        found: dict[str, str] = {}
        for name in names:
            for folder in self.folders.folder_names_and_paths:
                path = _model_file(self.folders, folder, name)
                if path is not None:
                    found[name] = _fingerprint(path)
                    break
        return found

    def put(self, pictures: dict[str, bytes]) -> None:
        """Writes pictures where a prompt finds them as “name [temp]”; deletes the oldest others."""
        for name, data in pictures.items():
            path = self.temp / name
            if not path.exists():
                path.with_suffix(".new").write_bytes(data)
                path.with_suffix(".new").replace(path)
            path.touch()
        files = sorted(
            (path for path in self.temp.iterdir() if path.is_file()),
            key=lambda path: path.stat().st_mtime_ns,
        )
        for path in files[: max(0, len(files) - KEPT_PICTURES - len(pictures))]:
            path.unlink(missing_ok=True)

    def refusals(self, prompt: Json, targets: Sequence[str]) -> list[str]:
        """ComfyUI's objections to a prompt, before running it."""
        return self._loop.run_until_complete(self._refusals(prompt, targets))

    async def _refusals(self, prompt: Json, targets: Sequence[str]) -> list[str]:
        checked: dict[str, Any] = {}
        for target in targets:
            await self.execution.validate_inputs("check", prompt, target, checked)
        return [
            f"{_words(prompt, node)}: {error['message']}: {error.get('details', '')}"
            for node, found in checked.items()
            for error in found[1] or ()
        ]

    def run(self, prompt: Json, targets: Sequence[str]) -> dict[str, list[Any]]:
        """Runs what these nodes need; returns each node's outputs, each output a list of values.

        Raises ComfyUIError with the message of the node that failed.
        """
        refused = self.refusals(prompt, targets)
        if refused:
            raise ComfyUIError("; ".join(refused))
        number = uuid.uuid4().hex
        with contextlib.redirect_stdout(None):
            # Not `execute`: its asyncio.run formats every result for its signal handler.
            run = self.executor.execute_async(prompt, number, {"client_id": None}, list(targets))
            self._loop.run_until_complete(run)
        for kind, data in self.executor.status_messages:
            if kind == "execution_error":
                words = _words(prompt, data["node_id"])
                raise ComfyUIError(f"{words}: {data['exception_message'].strip()}")
            if kind == "execution_interrupted":
                raise ComfyUIError("The run was interrupted.")
        return self._loop.run_until_complete(self._outputs(targets))

    async def _outputs(self, targets: Sequence[str]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {}
        for node in targets:
            entry = self.executor.caches.outputs.get(node)
            entry = await entry if inspect.isawaitable(entry) else entry
            if entry is None or entry.outputs is None:
                raise ComfyUIError(f"Node {node} gave nothing.")
            found[node] = entry.outputs
        return found


class _Silent:
    """A stand-in for the executor's server, with no listeners."""

    client_id: str | None = None
    last_node_id: str | None = None

    def __init__(self) -> None:
        self.sockets_metadata: dict[str, Any] = {}

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        pass


def _import_from(path: Path) -> None:
    """Puts ComfyUI first, so that `nodes` is its nodes.py, not this pack's nodes/."""
    sys.path[:] = [str(path), *(entry for entry in sys.path if entry != str(path))]
    for name in ("nodes", "utils", "app", "server", "execution", "main"):
        module = sys.modules.get(name)
        if module is not None and str(path) not in str(getattr(module, "__file__", "")):
            del sys.modules[name]
    logging.getLogger().setLevel(logging.WARNING)


def _node_info(nodes: ModuleType, name: str, kind: Any) -> Json:
    if hasattr(kind, "GET_NODE_INFO_V1"):
        return kind.GET_NODE_INFO_V1()
    inputs = kind.INPUT_TYPES()
    return {
        "input": inputs,
        "input_order": {part: list(found) for part, found in inputs.items()},
        "display_name": nodes.NODE_DISPLAY_NAME_MAPPINGS.get(name, name),
    }


def _model_file(folders: ModuleType, folder: str, name: str) -> Path | None:
    """The file with this name in a models folder."""
    if not Path(name).suffix or folder in ("custom_nodes", "configs"):
        return None
    found = folders.get_full_path(folder, name)
    return Path(found) if found and os.path.isfile(found) else None


def _fingerprint(path: Path) -> str:
    """A digest of a model file's size and evenly spaced parts: fast, and new after training."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        for part in range(SAMPLES):
            file.seek(max(0, size - SAMPLE_BYTES) * part // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()[:32]


def _words(prompt: Json, node: str) -> str:
    found = prompt[node]
    title = found.get("_meta", {}).get("title") or found["class_type"]
    return f"“{title}” (node {node})"
