"""A running graph touches ComfyUI's folders and nothing else."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from graph import attribution_map, filled, flux_graph, node

# Names from Python's table of audit events: files, and what leaves the process.
_FILES = {"open", "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink"}
_FILES |= {"os.truncate", "os.chmod", "os.utime", "shutil.copyfile", "shutil.move"}
_OUT = {"socket.connect", "socket.bind", "socket.getaddrinfo", "socket.gethostbyname"}
_OUT |= {"socket.sendto", "urllib.Request", "http.client.connect", "webbrowser.open"}
_OUT |= {"subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "pty.spawn"}
_OUT |= {"pickle.find_class", "ctypes.dlopen", "code.__new__"}
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

Event = tuple[str, tuple[Any, ...]]
_logs: list[list[Event]] = []  # of the running tests


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _logs and event in _FILES | _OUT:
        _logs[-1].append((event, arguments))


@pytest.fixture(scope="module", autouse=True)
def audited() -> None:
    """Python reports opened files and calls; an audit hook cannot be removed."""
    sys.addaudithook(_audit)


@pytest.fixture
def events() -> Iterator[list[Event]]:
    """What Python reports during one test."""
    _logs.append([])
    yield _logs[-1]
    _logs.clear()


def written(events: list[Event]) -> set[Path]:
    """The files that were opened for writing, moved, created or deleted."""
    paths = set[Path]()
    for event, arguments in events:
        named = arguments[:2] if event in ("os.rename", "os.link", "os.symlink") else arguments[:1]
        if event in _OUT or (event == "open" and not (arguments[2] or 0) & _WRITES):
            continue
        paths |= {Path(os.fsdecode(name)).resolve() for name in named if not isinstance(name, int)}
    return paths


@pytest.mark.bad_input(
    "A whole graph: Capture, Collect, maps, viewer, numbers, Save and Load",
    "Python's own account of the run: files are written in ComfyUI's folders alone, no address is "
    "asked for or reached, no program started, nothing unpacked that could run",
)
@pytest.mark.usefixtures("tiny_nodes")
def test_a_graph(comfy: Any, run_graph: Any, events: list[Event]) -> None:
    attribution = {"attribution": ["collect", 0]}
    prompt = flux_graph(
        map=attribution_map(),
        viewer=filled("I2AM_Viewer", **attribution),
        influence=filled("I2AM_Influence", **attribution),
        save=filled("I2AM_Save", filename_prefix="reach/one", **attribution),
    )
    run = run_graph(prompt, ["map", "viewer", "influence", "save"])
    assert run.ok, run.errors
    loaded = run_graph({"load": node("I2AM_Load", file=run.value("save"))}, ["load"])
    assert loaded.ok, loaded.errors
    found = written(events)
    saved = Path(comfy.folder_paths.get_output_directory(), run.value("save")).resolve()
    assert any(path.parent == saved.parent for path in found)  # the reports are complete
    home = comfy.base.resolve()
    assert [path for path in found if home not in path.parents] == []
    assert [event for event in events if event[0] in _OUT] == []
