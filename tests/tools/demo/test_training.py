"""A training goes on where it stopped, also where it had stopped at its end."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from tools.demo.training import Task, train, training_options


def loss(model: nn.Module, batch: Tensor, random: torch.Generator) -> Tensor:
    return (model(batch) - torch.randn(batch.shape, generator=random)).square().mean()


def run(folder: Path, stop: int) -> Path:
    """Train a layer up to a step; the file of weights."""
    torch.manual_seed(0)
    task = Task(
        title="a layer",
        architecture="linear",
        model=nn.Linear(2, 2),
        batch={"numbers": 1},
        draw=lambda seed: torch.full((1, 2), float(seed % 7)),
        loss=loss,
        report=lambda model: None,
    )
    output = folder / f"{stop}.safetensors"
    options = ["--steps", "6", "--stop-at", str(stop), "--output", str(output)]
    options += ["--state", str(folder / "state")]
    train(task, training_options(None, 6, 1e-3).parse_args(options))
    return output


def last_stage(path: Path) -> dict[str, object]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["i2am"])["stages"][-1]


def test_a_training_in_two_pieces_is_one(tmp_path: Path) -> None:
    (tmp_path / "pieces").mkdir()
    (tmp_path / "whole").mkdir()
    run(tmp_path / "pieces", 3)
    pieces, whole = run(tmp_path / "pieces", 6), run(tmp_path / "whole", 6)
    for name, weight in load_file(whole).items():
        assert torch.equal(weight, load_file(pieces)[name])
    assert last_stage(pieces) == last_stage(whole)


def test_a_finished_training_is_saved_again(tmp_path: Path) -> None:
    """If only its last file is lost."""
    first = run(tmp_path, 6)
    stage = last_stage(first)
    first.unlink()
    assert last_stage(run(tmp_path, 6)) == stage
