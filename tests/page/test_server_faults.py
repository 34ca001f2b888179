"""Only testable on a real server: shutdown, the queue, its users, and the files it serves."""

from __future__ import annotations

import json
import signal
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.comfyui.server import STOP_SECONDS, ComfyServer
from tools.demo.run import WORKFLOW
from tools.workflows.api_prompt import find, only, to_prompt


def demo(server: ComfyServer, **sampler: Any) -> dict[str, Any]:
    """The demo up to the report of Collect Attribution."""
    prompt = to_prompt(json.loads(WORKFLOW.read_text("utf-8")), server.get_json("/object_info"))
    prompt[find(prompt, "KSampler")]["inputs"] |= {"steps": 4} | sampler
    collect = find(prompt, "I2AM_Collect")
    prompt["show"] = {"class_type": "PreviewAny", "inputs": {"source": [collect, 2]}}
    return only(prompt, "show")


def until_sampling(server: ComfyServer) -> None:
    """Waits until the sampler has finished a step."""
    deadline = time.monotonic() + 60
    while b"it/s]" not in server.log.read_bytes() and b"s/it]" not in server.log.read_bytes():
        assert time.monotonic() < deadline, server.log_tail()
        time.sleep(0.1)


@pytest.fixture
def heard_interrupts() -> Iterator[None]:
    """A shell's background process ignores Ctrl+C, and so would a server it starts."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.fault(
    "The server is stopped while it samples, and started again: multi-user, without a cache",
    "It ends at once; no partial file is left; the next start empties its temporary folder and the "
    "same graph runs",
    "The render under way and recordings that were not saved, as with ComfyUI's own pictures",
)
@pytest.mark.usefixtures("heard_interrupts")
def test_shutdown_while_sampling(comfyui_path: Path, tmp_path: Path) -> None:
    base, log = tmp_path / "base", tmp_path / "server.log"
    with ComfyServer(comfyui_path, base=base, log=log, threads=1) as server:
        server.queue(demo(server, steps=10_000))
        until_sampling(server)
        assert server.process is not None
        server.process.send_signal(signal.SIGINT)
        server.process.wait(STOP_SECONDS)
    assert not [path for path in base.rglob("*.part") if path.is_file()]
    spilled = base / "temp" / "i2am" / "i2am_recording_0.safetensors"
    spilled.parent.mkdir(parents=True, exist_ok=True)
    spilled.touch()
    several = ("--multi-user", "--cache-none")
    with ComfyServer(comfyui_path, base=base, log=log, threads=1, arguments=several) as server:
        assert not spilled.exists()
        (text,) = server.run(demo(server))["show"]["text"]
        assert "4 of 4 model evaluations" in text
        assert server.get_json("/users")["storage"] == "server"


@pytest.mark.fault(
    "Two prompts are queued, and one of them is interrupted while it samples",
    "The other runs and is recorded in full",
    "The interrupted render, as without us",
)
def test_two_prompts(server: ComfyServer) -> None:
    first = server.queue(demo(server, steps=10_000, seed=41))
    second = server.queue(demo(server, seed=42))
    deadline = time.monotonic() + 60
    while not server.get_json("/queue")["queue_running"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    server.post("/interrupt", {"prompt_id": first})
    (text,) = server.wait(second)["outputs"]["show"]["text"]
    assert "4 of 4 model evaluations" in text
    history = server.get_json(f"/history/{first}")
    assert history[first]["status"]["status_str"] == "error"


@pytest.mark.bad_input(
    "The page's files asked for by names that lead out of ComfyUI's folders",
    "ComfyUI's own /view refuses; the pack adds no route of its own",
)
@pytest.mark.parametrize(
    "name",
    [
        {"filename": "../../../../etc/passwd", "subfolder": "i2am", "type": "temp"},
        {"filename": "passwd", "subfolder": "../../../../etc", "type": "temp"},
        {"filename": "/etc/passwd", "subfolder": "", "type": "temp"},
        {"filename": "x" * 5000, "subfolder": "i2am", "type": "temp"},
        {"filename": "one.i2am", "subfolder": "i2am", "type": "models"},
    ],
)
def test_view(server: ComfyServer, name: dict[str, str]) -> None:
    with pytest.raises(urllib.error.HTTPError) as refused:
        server.download(name)
    assert 400 <= refused.value.code < 500


@pytest.mark.bad_input(
    "The viewer's payload opened as a page of its own",
    "It is served as bytes, which no browser runs",
)
def test_a_payload_is_no_page(server: ComfyServer) -> None:
    prompt = demo(server)
    viewer = {"attribution": [find(prompt, "I2AM_Collect"), 0]}
    prompt["viewer"] = {"class_type": "I2AM_Viewer", "inputs": viewer}
    (shown,) = server.run(only(prompt, "viewer"))["viewer"]["i2am_viewer"]
    query = urllib.parse.urlencode(shown["payload"])
    with urllib.request.urlopen(f"{server.url}/view?{query}", timeout=60) as answer:
        assert answer.headers.get_content_type() == "application/octet-stream"
