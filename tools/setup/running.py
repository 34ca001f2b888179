"""Run commands, long ones quietly, and say what is being done."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from . import paths
from .paths import WINDOWS, shown

TAIL_LINES = 15
HEARTBEAT_SECONDS = 15


class Trouble(Exception):
    """Something failed; the message says what, and what to do."""


def say(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def step(what: str) -> Iterator[list[str]]:
    """Announces a piece of work, then says how long it took and what was added to the list."""
    say(f"{what} ...")
    start = time.monotonic()
    notes: list[str] = []
    yield notes
    say(f"  done in {time.monotonic() - start:.1f} s" + "".join(f", {note}" for note in notes))


def megabytes(path: Path) -> str:
    """The size of a file or of everything under a folder, which another process may be filling."""
    files = [path] if path.is_file() else (Path(d) / f for d, _, fs in os.walk(path) for f in fs)
    size = sum(map(bytes_now, files)) / 1e6
    return f"{size / 1000:.1f} GB" if size >= 1000 else f"{size:.1f} MB"


def bytes_now(file: Path) -> int:
    """The size of a file; 0 where it is gone since it was listed, as pip's temporary files are.

    Windows says "access denied" of a file that is being deleted, so any OSError counts as gone.
    """
    try:
        return file.lstat().st_size
    except OSError:
        return 0


def run_logged(
    command: Sequence[str],
    name: str,
    env: dict[str, str] | None = None,
    growing: Path | None = None,
) -> None:
    """Runs a long command quietly: an occasional line, with all its output in a log file.

    growing: the folder that it fills, to report its size as well.
    """
    paths.LOGS.mkdir(parents=True, exist_ok=True)
    log = paths.LOGS / f"{name}.log"
    start = spoken = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env)
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - spoken > HEARTBEAT_SECONDS:
                    spoken = time.monotonic()
                    size = f"{megabytes(growing)}  " if growing else ""
                    say(f"  {spoken - start:4.0f} s  {size}{latest(log)}")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = log.read_text("utf-8", "replace").splitlines()[-TAIL_LINES:]
        tail = "\n".join(f"    {line[:200]}" for line in lines)
        raise Trouble(
            f"{' '.join(command[:4])} ... ended with code {process.returncode}:\n{tail}\n"
            f"  The whole output is in {shown(log)}. Is the network there, and room on the disk?"
        )


def latest(log: Path) -> str:
    """The last line of pip's output that says what it is doing."""
    for line in reversed(log.read_text("utf-8", "replace").splitlines()):
        if re.match(r"\s*(Collecting|Downloading|Installing|Building|Preparing|Using)", line):
            return line.strip()[:70]
    return ""


def call(command: Sequence[str | Path], env: dict[str, str] | None = None) -> int:
    """Runs a command in the foreground, from the root of the checkout."""
    process = subprocess.Popen([str(word) for word in command], cwd=paths.ROOT, env=env)
    try:
        return process.wait()
    except BaseException:
        # Ctrl-C reaches the child too (one terminal): let it clean up, then make sure.
        if process.poll() is None and not WINDOWS:
            process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        raise
