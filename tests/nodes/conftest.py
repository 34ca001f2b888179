"""Real ComfyUI in this process, on the CPU, with the pack loaded as ComfyUI loads it.

def test_something(run_graph):
    run = run_graph({"1": {"class_type": "I2AM_Collect", "inputs": {...}}}, targets=["1"])
    attribution = run.value("1", 0)
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import inspect
import sys
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import graph
import pytest

from tools.comfyui.server import PACK, make_base

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Comfy:
    """The imported ComfyUI with our pack loaded."""

    path: Path
    base: Path  # ComfyUI's base directory: input, output, temp, user
    nodes: ModuleType
    execution: ModuleType
    folder_paths: ModuleType
    pack_name: str
    server: Any  # its PromptServer, never listening

    def pack(self, module: str = "") -> ModuleType:
        """A module of the pack as ComfyUI loaded it: comfy.pack("i2am.recording")."""
        return importlib.import_module(f"{self.pack_name}.{module}" if module else self.pack_name)

    def node(self, class_type: str) -> Any:
        """A registered node class."""
        return self.nodes.NODE_CLASS_MAPPINGS[class_type]


@dataclass
class Run:
    """What one prompt did."""

    outputs: dict[str, list[list[Any]]] = field(default_factory=dict)  # node, slot, list item
    ui: dict[str, dict[str, Any]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)  # node to message; "" is the prompt
    executed: list[str] = field(default_factory=list)
    cached: list[str] = field(default_factory=list)
    messages: list[tuple[str, Any]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.errors

    def value(self, node: str, slot: int = 0) -> Any:
        """The one value of an output; fails with the errors if there is none."""
        assert node in self.outputs, f"node {node} gave nothing; errors: {self.errors}"
        values = self.outputs[node][slot]
        assert len(values) == 1, f"output {slot} of node {node} is a list of {len(values)}"
        return values[0]


@pytest.fixture(scope="session")
def comfy(comfyui_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Comfy]:
    """ComfyUI with all its built-in nodes and ours, once for the whole session."""
    base = make_base(tmp_path_factory.mktemp("comfyui"))
    _import_from(comfyui_path)
    arguments, sys.argv = sys.argv, ["main.py", "--cpu", "--base-directory", str(base)]
    sys.argv += ["--database-url", "sqlite:///:memory:"]
    try:
        import comfy.options

        comfy.options.enable_args_parsing()
        import comfy.cli_args  # reads sys.argv

        # Before nodes, as in main.py: it puts comfy/ first, which has another `utils`.
        import utils.extra_config  # noqa: F401
    finally:
        sys.argv = arguments
    import execution
    import folder_paths
    import server

    nodes = importlib.import_module("nodes")  # ComfyUI's, since its folder comes first
    assert Path(nodes.__file__ or "").parent == comfyui_path, "`nodes` is not ComfyUI's"
    loop = asyncio.new_event_loop()
    # PromptServer wants a current loop, as it has in ComfyUI's main.
    prompt_server = loop.run_until_complete(_make_server(server, loop))
    loop.run_until_complete(nodes.init_extra_nodes(init_custom_nodes=False, init_api_nodes=False))
    folder = base / "custom_nodes" / PACK
    loaded = loop.run_until_complete(nodes.load_custom_node(str(folder)))
    assert loaded, "ComfyUI could not load the pack; its log above says why"
    yield Comfy(
        path=comfyui_path,
        base=base,
        nodes=nodes,
        execution=execution,
        folder_paths=folder_paths,
        pack_name=str(folder).replace(".", "_x_"),
        server=prompt_server,
    )
    loop.close()


def _import_from(path: Path) -> None:
    """Puts ComfyUI first, so that its modules import its nodes.py as `nodes`, not our nodes/."""
    sys.path[:] = [str(path), *(entry for entry in sys.path if entry != str(path))]
    for name in ("nodes", "utils", "app", "server", "execution"):
        module = sys.modules.get(name)
        if module is not None and str(path) not in str(getattr(module, "__file__", "")):
            del sys.modules[name]


async def _make_server(server: ModuleType, loop: asyncio.AbstractEventLoop) -> Any:
    return server.PromptServer(loop)


class Runner:
    """Runs prompts through the real PromptExecutor, which keeps its cache between prompts.

    ComfyUI's default cache frees the outputs of older prompts as soon as memory is not plentiful.
    Here they are kept (unless `keep` is False). That is the hard case: an old LATENT comes back
    from the cache after the model has sampled something else.
    """

    def __init__(self, comfy: Comfy, cache: str = "RAM_PRESSURE", keep: bool = True) -> None:
        self.comfy = comfy
        kind = comfy.execution.CacheType[cache]
        inactive = 0.0001 if keep else 1e6
        sizes = {"lru": 10, "ram": 0.0001, "ram_inactive": inactive}
        self.events: list[tuple[str, Any]] = []
        self.executor = comfy.execution.PromptExecutor(self, cache_type=kind, cache_args=sizes)
        # What an executor needs from its server.
        self.client_id: str | None = "test"
        self.last_node_id: str | None = None
        self.sockets_metadata: dict[str, Any] = {}

    def send_sync(self, event: Any, data: Any, sid: str | None = None) -> None:
        self.events.append((event, data))

    def __call__(self, prompt: dict[str, Any], targets: list[str] | None = None) -> Run:
        """Runs an API prompt. `targets`: node ids to compute, even if they are not output nodes."""
        run = Run()
        prompt_id = uuid.uuid4().hex
        self.events.clear()
        chosen = asyncio.run(self._validate(prompt_id, prompt, targets, run))
        if not chosen:
            return run
        with contextlib.redirect_stdout(None):
            self.executor.execute(prompt, prompt_id, {"client_id": "test"}, chosen)
        run.messages = list(self.executor.status_messages)
        for kind, data in run.messages:
            if kind == "execution_error":
                run.errors[data["node_id"]] = data["exception_message"].strip()
            elif kind == "execution_interrupted":
                run.errors[data["node_id"]] = "interrupted"
            elif kind == "execution_cached":
                run.cached = list(data["nodes"])
        run.executed = [
            data["node"]
            for kind, data in self.events
            if kind == "executing" and data.get("node") is not None
        ]
        run.ui = dict(self.executor.history_result["outputs"]) if run.ok else {}
        run.outputs = asyncio.run(self._outputs(prompt))
        return run

    async def _validate(
        self, prompt_id: str, prompt: dict[str, Any], targets: list[str] | None, run: Run
    ) -> list[str]:
        """The nodes to compute; ComfyUI's objections to the prompt go into run.errors."""
        execution = self.comfy.execution
        if targets is None:
            valid, error, outputs, node_errors = await execution.validate_prompt(
                prompt_id, prompt, None
            )
            for node, found in node_errors.items():
                run.errors[node] = "\n".join(_words(item) for item in found["errors"])
            if not valid:
                run.errors.setdefault("", _words(error))
                return []
            return list(outputs)
        validated: dict[str, Any] = {}
        for target in targets:
            await execution.validate_inputs(prompt_id, prompt, target, validated)
        for node, found in validated.items():
            if not found[0] and found[1]:
                run.errors[node] = "\n".join(_words(item) for item in found[1])
        return [] if run.errors else list(targets)

    async def _outputs(self, prompt: dict[str, Any]) -> dict[str, list[list[Any]]]:
        found = {}
        for node in prompt:
            entry = self.executor.caches.outputs.get(node)
            if inspect.isawaitable(entry):
                entry = await entry
            if entry is not None and entry.outputs is not None:
                found[node] = entry.outputs
        return found


def _words(error: dict[str, Any]) -> str:
    details = error.get("details") or ""
    return f"{error['message']}: {details}" if details else error["message"]


@pytest.fixture
def run_graph(comfy: Comfy) -> Runner:
    """Runs API prompts; the cache lives as long as the test."""
    return Runner(comfy)


@pytest.fixture
def make_runner(comfy: Comfy) -> Callable[..., Runner]:
    """With another cache: make_runner("CLASSIC"), make_runner("NONE"), make_runner(keep=False)."""
    return lambda *arguments, **options: Runner(comfy, *arguments, **options)


@pytest.fixture
def use_store(comfy: Comfy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Any]:
    """Replaces the pack's store for one test, with these limits in bytes."""

    def use(memory_bytes: int = 2**30, file_bytes: int = 2**30) -> Any:
        store = comfy.pack("i2am.recording").Store(memory_bytes, file_bytes, lambda: tmp_path)
        for module in ("nodes.sockets", "nodes.host.run", "nodes.watch.found"):
            monkeypatch.setattr(comfy.pack(module), "RECORDINGS", store)
        return store

    return use


@pytest.fixture
def tiny_nodes(comfy: Comfy) -> Iterator[None]:
    """Registers the nodes of graph.py with ComfyUI."""
    with graph.registered(comfy):
        yield


@pytest.fixture
def server(comfy: Comfy, monkeypatch: pytest.MonkeyPatch) -> graph.Server:
    """A listening page that keeps every message it is sent."""
    listening = graph.Server()
    monkeypatch.setattr(type(comfy.server), "instance", listening)
    return listening
