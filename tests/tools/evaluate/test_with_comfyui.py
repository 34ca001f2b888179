"""The whole of it on real ComfyUI and Ray: a killed driver, a killed worker, one worker or two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest

from tools.evaluate import run
from tools.evaluate.cluster import start_worker
from tools.evaluate.example import write_pairs
from tools.evaluate.run import Request, measure
from tools.setup.paths import ROOT

WORKFLOW = ROOT / "example_workflows" / "i2am_01_demo.json"
PAIRS = 5
PATIENCE = 180  # seconds, on a busy machine


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five held-out scenes, two steps each."""
    return write_pairs(tmp_path_factory.mktemp("pairs"), PAIRS, variants=[{"KSampler.steps": "2"}])


def kill_driver_after_a_pair(pairs: Path, out: Path) -> None:
    """Runs the command in a process of its own and ends it without a warning."""
    words = ["--workflow", str(WORKFLOW), "--pairs", str(pairs), "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    driver = psutil.Popen(
        [sys.executable, "-m", "tools.evaluate", *words, "--workers", "1", "--cpu"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    deadline = time.monotonic() + PATIENCE
    while not list(out.rglob("rows/*/*.json")):
        assert driver.poll() is None, driver.stdout.read().decode()
        assert time.monotonic() < deadline, "the driver measured nothing"
        time.sleep(0.05)
    children = driver.children(recursive=True)
    driver.send_signal(signal.SIGKILL)
    driver.wait(PATIENCE)
    _, alive = psutil.wait_procs(children, PATIENCE)
    assert not alive, "workers outlive their driver"


def figures(out: Path) -> pd.DataFrame:
    """The table without what may differ: how long it took."""
    return pd.read_parquet(out / "results.parquet").drop(columns="seconds")


def test_stops_and_workers_change_no_number(
    ray_here: Any, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comfyui_path: Path
) -> None:
    workers: list[Any] = []
    given = 0

    def start(*arguments: Any) -> Any:
        """The workers of the first evaluation serve the second too."""
        nonlocal given
        if given == len(workers):
            workers.append(start_worker(*arguments))
        given += 1
        return workers[given - 1]

    monkeypatch.setattr(run, "start_worker", start)
    monkeypatch.setattr(run, "SPEAK_SECONDS", 0)

    one, two = tmp_path / "one", tmp_path / "two"
    kill_driver_after_a_pair(pairs, one)
    before = {path.name: path.stat().st_mtime_ns for path in one.rglob("rows/*/*.json")}
    assert 1 <= len(before) < PAIRS, "the driver was killed too late to prove anything"
    said: list[str] = []
    assert measure(Request(WORKFLOW, pairs, one, workers=1, cpu=True), said.append).complete
    assert f"{PAIRS - len(before)} pairs to do, 1 worker." in said
    now = {path.name: path.stat().st_mtime_ns for path in one.rglob("rows/*/*.json")}
    assert before.items() <= now.items(), "a pair was measured twice"

    given = 0
    first = ray_here.get(workers[0].process.remote())

    def say(text: str) -> None:
        if text.startswith("  1 of"):
            os.kill(first, signal.SIGKILL)

    summary = measure(Request(WORKFLOW, pairs, two, workers=2, cpu=True), say)
    assert summary.complete, summary.skipped
    assert not psutil.pid_exists(first)
    assert len(workers) == 2
    pd.testing.assert_frame_equal(figures(one), figures(two), check_exact=True)
    for path in one.rglob("pictures/*/*.png"):
        assert path.read_bytes() == (two / path.relative_to(one)).read_bytes()

    table = figures(one)
    assert list(table["name"]) == [f"{number:04}" for number in range(1, PAIRS + 1)]
    assert (table["psnr_inside"] > 20).all()  # the demo model puts the object into the hole
    assert (table["match_near"] > 0.9).all()
    assert (table["imacs_generated"] > 0).all()
