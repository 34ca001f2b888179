"""The folder of results: a pair is there whole or not at all."""

from __future__ import annotations

import resource
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from tools.evaluate.errors import EvaluationError
from tools.evaluate.plan import Pair
from tools.evaluate.results import Results
from tools.evaluate.task import Outcome

PAIR = Pair(1, "first", "ab" * 16)
OUTCOME = Outcome(({"imacs_generated": 0.5},), (b"png",), (b"jpg",), 1.5)


def test_what_is_kept_is_there(tmp_path: Path) -> None:
    results = Results(tmp_path / "out")
    assert not results.has(PAIR.key)
    results.keep(PAIR, OUTCOME)
    again = Results(tmp_path / "out")
    assert again.has(PAIR.key)
    assert again.rows(PAIR.key) == [{"imacs_generated": 0.5, "seconds": 1.5}]
    assert again.path("pictures", PAIR.key).read_bytes() == b"png"


def test_half_written_files_are_nothing(tmp_path: Path) -> None:
    results = Results(tmp_path)
    row = results.path("rows", PAIR.key)
    row.parent.mkdir()
    (row.parent / (row.name + ".new")).write_text('{"figures": [')
    again = Results(tmp_path)
    assert not again.has(PAIR.key)
    again.keep(PAIR, OUTCOME)
    assert again.rows(PAIR.key)[0]["imacs_generated"] == 0.5
    assert not list(tmp_path.rglob("*.new"))


def test_a_disk_that_takes_no_more(tmp_path: Path) -> None:
    results = Results(tmp_path)
    results.keep(PAIR, OUTCOME)
    other = Pair(2, "second", "cd" * 16)
    large = Outcome(({"imacs_generated": 0.5},), (bytes(2**20),), (b"jpg",), 1.5)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, before[1]))  # the system refuses to write
    try:
        with pytest.raises(
            EvaluationError, match=r"Nothing more can be written.*Make room and run"
        ):
            results.keep(other, large)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert results.has(PAIR.key)
    assert not results.has(other.key)
    assert not list(tmp_path.rglob("*.new"))
    results.keep(other, large)
    assert results.has(other.key)


def test_a_disk_without_room_is_told_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = Results(tmp_path)
    results.check_room(10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**8))
    with pytest.raises(EvaluationError, match=r"0\.1 GB free, but 10 pairs may take"):
        results.check_room(10)


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EvaluationError, match="cannot be written to"):
        Results(tmp_path / "file")


def test_a_folder_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="holds no results"):
        Results.existing(tmp_path)
    assert not list(tmp_path.iterdir())
