"""The driver on a real Ray, with workers that need no ComfyUI: failures, stops, memory."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
import ray as real_ray
from stub_worker import StubWorker
from tiny_workflow import OBJECT_INFO

from tools.evaluate import run
from tools.evaluate.cluster import Share, ray_session, team_size
from tools.evaluate.command import main
from tools.evaluate.errors import EvaluationError
from tools.evaluate.run import Request, Summary, measure

INFO = OBJECT_INFO | {
    "KSampler": {
        "input": {"required": {**OBJECT_INFO["KSampler"]["input"]["required"], "seed": ["INT", {}]}}
    }
}
Evaluate = Callable[..., Summary]


@pytest.fixture(scope="module")
def team(ray_here: Any) -> list[Any]:
    """Two workers for all tests: processes take long to start."""
    options = {"num_cpus": 0.5, "max_restarts": -1, "max_task_retries": 2}
    actor = ray_here.remote(StubWorker).options(**options)
    return [actor.remote(INFO) for _ in range(2)]


@pytest.fixture
def evaluate(
    team: list[Any],
    write_workflow: Callable[..., Path],
    write_pictures: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Evaluate:
    """Runs a table with stub workers."""

    path = write_workflow()

    def evaluate(table: str, say: Callable[[str], None] = print, **options: Any) -> Summary:
        pairs = tmp_path / "pairs.csv"
        pairs.write_text(table)
        workers = iter(team)
        monkeypatch.setattr(run, "start_worker", lambda *_: next(workers))
        return measure(Request(path, pairs, tmp_path / "out", **options), say)

    return evaluate


def seeds(*numbers: int) -> str:
    return "seed,name\n" + "".join(f"{number},s{number}\n" for number in numbers)


def table_of(folder: Path) -> pd.DataFrame:
    return pd.read_csv(folder / "out" / "results.csv")


class TestFailures:
    def test_a_pair_that_fails_is_told_and_left_out(
        self, evaluate: Evaluate, tmp_path: Path
    ) -> None:
        said: list[str] = []
        summary = evaluate(seeds(1, StubWorker.BAD, 2), said.append)
        assert summary.skipped == ((2, "s13", "“KSampler” (node 4): bad luck"),)
        assert "  Row 2 (s13) failed: “KSampler” (node 4): bad luck" in said
        assert list(table_of(tmp_path)["imacs_generated"]) == [0.001, 0.002]
        assert list(table_of(tmp_path)["row"]) == [1, 3]
        assert list(pd.read_csv(tmp_path / "out" / "skipped.csv")["row"]) == [2]

    def test_a_pair_that_ends_its_worker(self, evaluate: Evaluate, tmp_path: Path) -> None:
        summary = evaluate(seeds(1, StubWorker.DEADLY, 2, 3), workers=1)
        assert [(row, problem) for row, _, problem in summary.skipped] == [
            (2, "its worker ended each of the three times it was tried")
        ]
        assert list(table_of(tmp_path)["row"]) == [1, 3, 4]

    def test_when_all_fail_it_stops(self, evaluate: Evaluate) -> None:
        many = "name,seed\n" + "".join(f"{n},{StubWorker.BAD}\n" for n in range(3))
        cfg = "cfg,seed\n" + "".join(f"{n},{StubWorker.BAD}\n" for n in range(50))
        assert evaluate(many).done == 0  # three equal rows are one run
        with pytest.raises(EvaluationError, match=r"The first 5 pairs failed.*bad luck"):
            evaluate(cfg)

    def test_a_broken_picture(self, evaluate: Evaluate, tmp_path: Path) -> None:
        said: list[str] = []
        table = "reference,seed\na.png,1\nbroken.png,2\n"
        assert evaluate(table, said.append).done == 1
        assert any("Row 2 (2) is left out" in line and "broken.png" in line for line in said)
        with pytest.raises(EvaluationError, match="1 of 2 pairs cannot be run"):
            evaluate(table, strict=True)
        with pytest.raises(EvaluationError, match="1 of 1 pairs cannot be run"):
            evaluate("reference\nbroken.png\n")


class TestResuming:
    def test_only_what_is_missing_is_run(self, evaluate: Evaluate, tmp_path: Path) -> None:
        assert evaluate(seeds(1, 2, StubWorker.BAD)).done == 2
        kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "out/rows").rglob("*.json")}
        said: list[str] = []
        assert evaluate(seeds(5, 2, 1), said.append).complete
        assert any(line.startswith("1 pairs to do") for line in said)
        assert all(path.stat().st_mtime_ns == time for path, time in kept.items())
        assert list(table_of(tmp_path)["imacs_generated"]) == [0.005, 0.002, 0.001]
        assert pd.read_csv(tmp_path / "out" / "skipped.csv").empty

    def test_the_driver_holds_no_results(self, evaluate: Evaluate) -> None:
        """Memory beyond the first pairs: a result is 3 kB, and Ray has its own steady needs."""
        process, used = psutil.Process(), []

        def say(text: str) -> None:
            if " of 600" in text:
                used.append(process.memory_info().rss)

        original = run.SPEAK_SECONDS
        run.SPEAK_SECONDS = 0
        try:
            assert evaluate(seeds(*range(1000, 1600)), say, workers=2).complete
        finally:
            run.SPEAK_SECONDS = original
        assert len(used) == 600
        assert used[-1] - used[100] < 5 * 2**20


class TestCluster:
    def test_nobody_answers(self, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with pytest.raises(EvaluationError, match=r"No Ray cluster answers at 127\.0\.0\.1"):
            self.connect(f"127.0.0.1:{port}")

    @pytest.mark.parametrize("address", ["nonsense", "ray://host:10001", "host:port"])
    def test_no_address(self, address: str) -> None:
        with pytest.raises(EvaluationError, match="is no address of a Ray cluster"):
            self.connect(address)

    @staticmethod
    def connect(address: str) -> None:
        """As in a process that has no Ray yet."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(real_ray, "is_initialized", lambda: False)
            with ray_session(address, 1):
                pass

    def test_more_workers_than_there_is_room_for(self, ray_here: Any) -> None:
        assert team_size(ray_here, Share(1), None) == 2
        assert team_size(ray_here, Share(2), None) == 1
        with pytest.raises(EvaluationError, match="There is room for 2 workers: one takes 1 cores"):
            team_size(ray_here, Share(1), 3)
        with pytest.raises(EvaluationError, match="There is room for 0 workers"):
            team_size(ray_here, Share(1, 1.0), None)


def test_the_command_tells_what_failed(
    tmp_path: Path, write_workflow: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--workflow", str(write_workflow()), "--out", str(tmp_path / "out")]
    assert main([*words, "--pairs", str(tmp_path / "none.csv")]) == 1
    assert "Failed: There is no table" in capsys.readouterr().out
    assert main(["report", str(tmp_path)]) == 1
    assert "holds no results of an evaluation" in capsys.readouterr().out
