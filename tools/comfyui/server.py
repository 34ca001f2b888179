"""Starts a real ComfyUI with this pack in it and talks to its API. Standard library only.

    with ComfyServer(comfyui, python) as server:
        outputs = server.run(prompt)

ComfyUI finds the pack in a base directory of our own, so an existing installation is only read: its
models, settings and outputs stay as they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

from tools.setup.paths import ROOT

PACK = "comfyui-i2am"
HOST = "127.0.0.1"
READY_SECONDS = 180
STOP_SECONDS = 15
THREAD_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
NOT_COPIED = (".git", ".venv", ".comfyui", "output", "__pycache__", "node_modules")


class ServerError(RuntimeError):
    """ComfyUI did not start, refused a prompt or failed while running it."""


def free_port() -> int:
    """A port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def port_in_use(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) == 0


def make_base(base: Path) -> Path:
    """A ComfyUI base directory that holds this pack and the example pictures."""
    nodes = base / "custom_nodes"
    nodes.mkdir(parents=True, exist_ok=True)
    link(ROOT, nodes / PACK)
    pictures = ROOT / "example_workflows" / "inputs"
    (base / "input").mkdir(exist_ok=True)
    for picture in sorted(pictures.glob("*")) if pictures.is_dir() else ():
        shutil.copy2(picture, base / "input" / picture.name)
    return base


def link(target: Path, link: Path) -> None:
    """Symlink; on Windows, where that needs a privilege, a junction; else a copy."""
    if link.is_symlink() or link.exists():
        if link.resolve() == target.resolve():
            return
        if link.is_symlink():
            link.unlink()
        else:
            shutil.rmtree(link)
    try:
        link.symlink_to(target, target_is_directory=True)
    except OSError:
        junction = ["cmd", "/c", "mklink", "/J", str(link), str(target)]
        if sys.platform == "win32" and subprocess.run(junction, check=False).returncode == 0:
            return
        shutil.copytree(target, link, ignore=shutil.ignore_patterns(*NOT_COPIED))


class ComfyServer:
    """One ComfyUI process; a context manager that leaves nothing running.

    `comfyui` is the folder with main.py, `python` an interpreter with its requirements. Without
    `base` a temporary base directory is used and removed at the end. The log is kept in `log`.
    `threads`: for torch; tiny models run fastest and most reliably with one.
    """

    def __init__(
        self,
        comfyui: Path,
        python: Path | str = sys.executable,
        *,
        base: Path | None = None,
        port: int = 0,
        log: Path | None = None,
        cpu: bool = True,
        threads: int = 0,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self.comfyui = Path(comfyui)
        self.python = str(python)
        self.port = port
        self.cpu = cpu
        self.threads = threads
        self.arguments = arguments
        self._temporary = None if base else tempfile.mkdtemp(prefix="i2am-comfyui-")
        self.base = Path(base or self._temporary or "")
        self.log = log or self.base / "server.log"
        self.process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    def __enter__(self) -> ComfyServer:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts ComfyUI and waits until it answers."""
        if not (self.comfyui / "main.py").is_file():
            raise ServerError(f"No ComfyUI in {self.comfyui} (main.py is missing).")
        make_base(self.base)
        self.port = self.port or free_port()
        command = [self.python, str(self.comfyui / "main.py"), "--listen", HOST]
        command += ["--port", str(self.port), "--base-directory", str(self.base)]
        command += ["--disable-all-custom-nodes", "--whitelist-custom-nodes", PACK]
        command += ["--disable-api-nodes", "--database-url", "sqlite:///:memory:"]
        command += ["--cpu"] if self.cpu else []
        command += self.arguments
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if self.threads:
            environment |= dict.fromkeys(THREAD_SETTINGS, str(self.threads))
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("wb") as log:
            # A session of its own: Ctrl-C reaches us first, and we stop the server in order.
            self.process = subprocess.Popen(
                command,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.comfyui,
                env=environment,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_SECONDS
        while True:
            if self.process.poll() is not None:
                raise ServerError(
                    f"ComfyUI ended with code {self.process.returncode} while starting.\n"
                    f"{self.log_tail()}"
                )
            with contextlib.suppress(OSError):
                self.get("/system_stats")
                return
            if time.monotonic() > deadline:
                raise ServerError(
                    f"ComfyUI did not answer within {READY_SECONDS} s.\n{self.log_tail()}"
                )
            time.sleep(0.1)

    def stop(self) -> None:
        """Stops ComfyUI, politely first, and removes the temporary base directory."""
        process, self.process = self.process, None
        if process is not None and process.poll() is None:
            if sys.platform == "win32":
                process.terminate()
            else:
                process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._temporary:
            shutil.rmtree(self._temporary, ignore_errors=True)

    def log_tail(self, lines: int = 30) -> str:
        """The last lines of the server's log."""
        with contextlib.suppress(OSError):
            text = self.log.read_text("utf-8", "replace")
            return "\n".join(text.splitlines()[-lines:])
        return "(no log)"

    def get(self, path: str) -> bytes:
        with urllib.request.urlopen(self.url + path, timeout=60) as answer:
            return answer.read()

    def get_json(self, path: str) -> Any:
        return json.loads(self.get(path))

    def post(self, path: str, value: Any) -> Any:
        request = urllib.request.Request(
            self.url + path, json.dumps(value).encode(), {"Content-Type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                body = answer.read()
                return json.loads(body) if body else None
        except urllib.error.HTTPError as error:
            text = error.read().decode("utf-8", "replace")
            raise ServerError(f"ComfyUI refused {path}: {_refusal(text)}") from None

    def queue(self, prompt: dict[str, Any], client: str | None = None) -> str:
        """Queues an API prompt; gives its id."""
        answer = self.post("/prompt", {"prompt": prompt, "client_id": client or uuid.uuid4().hex})
        return answer["prompt_id"]

    def wait(self, prompt_id: str, seconds: float = 600) -> dict[str, Any]:
        """The history entry of a finished prompt; raises what a node raised."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            entry = self.get_json(f"/history/{prompt_id}").get(prompt_id)
            if entry and entry.get("status", {}).get("completed"):
                return entry
            if entry and entry.get("status", {}).get("status_str") == "error":
                raise ServerError(_failure(entry))
            if self.process is not None and self.process.poll() is not None:
                raise ServerError(f"ComfyUI ended in the middle of a run.\n{self.log_tail()}")
            time.sleep(0.1)
        raise ServerError(f"The run was not done after {seconds:.0f} s.\n{self.log_tail()}")

    def run(self, prompt: dict[str, Any], seconds: float = 600) -> dict[str, Any]:
        """Runs an API prompt; gives the `ui` outputs by node id."""
        return self.wait(self.queue(prompt), seconds)["outputs"]

    def download(self, item: dict[str, Any]) -> bytes:
        """The bytes of one saved file as a node's `ui` output names it."""
        query = urllib.parse.urlencode(
            {key: item.get(key, "") for key in ("filename", "subfolder", "type")}
        )
        return self.get(f"/view?{query}")


def _refusal(text: str) -> str:
    """ComfyUI's objections to the prompt, one line per node."""
    try:
        answer = json.loads(text)
        lines = [answer["error"]["message"]]
        for node, found in answer.get("node_errors", {}).items():
            for error in found["errors"]:
                name = found.get("class_type", "node")
                lines.append(f"  {name} ({node}): {error['message']}: {error.get('details', '')}")
        return "\n".join(lines)
    except (ValueError, KeyError, TypeError):
        return text[:2000]


def _failure(entry: dict[str, Any]) -> str:
    """The message of the node that failed."""
    for kind, data in entry["status"].get("messages", ()):
        if kind == "execution_error":
            return f"{data['node_type']} ({data['node_id']}): {data['exception_message'].strip()}"
        if kind == "execution_interrupted":
            return f"Interrupted in {data['node_type']} ({data['node_id']})."
    return f"The run failed: {entry['status']}"
