"""Reference latents: kept with the recording and in its file, or refused."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from recordings import recording
from safetensors import safe_open
from safetensors.torch import save_file

from i2am.errors import I2AMError
from i2am.recording import (
    Attribution,
    Recording,
    load_attribution,
    save_attribution,
    take_items,
    with_reference_latents,
)
from i2am.recording.reference_latents import KEY
from i2am.tokens import Grid

LATENT = torch.randn(1, 16, 8, 6, generator=torch.Generator().manual_seed(2))


def made(
    batch: int = 2, kinds: tuple[str, ...] = ("reference latent", "image tokens")
) -> Recording:
    """A recording with references of these kinds, the latents of which are 8×6."""
    grids = tuple(Grid(4, 3) for _ in kinds)
    plain = recording(generated=Grid(4, 4), references=grids, batch=batch)
    sides = zip(plain.header.references, kinds, strict=True)
    references = tuple(
        replace(side, kind=kind, latent=(8, 6) if kind == "reference latent" else (0, 0))
        for side, kind in sides
    )
    return replace(plain, header=replace(plain.header, references=references))


def test_which_are_kept() -> None:
    """Those of references given as latents, in half precision, by their number."""
    kept = with_reference_latents(made(), (LATENT,)).reference_latents
    assert list(kept) == [0]
    assert kept[0].dtype == torch.float16
    assert torch.equal(kept[0], LATENT.half())
    behind = with_reference_latents(made(kinds=("image tokens", "reference latent")), (LATENT,))
    assert list(behind.reference_latents) == [1]


@pytest.mark.parametrize(
    "given",
    [(), (LATENT, LATENT), (LATENT[..., :5],), (LATENT.repeat(3, 1, 1, 1),), (LATENT * torch.inf,)],
    ids=["none", "too many", "another size", "another batch", "not numbers"],
)
def test_what_is_not_the_references_own(given: tuple[torch.Tensor, ...]) -> None:
    assert with_reference_latents(made(), given).reference_latents == {}


def test_they_count_as_bytes() -> None:
    before = made()
    after = with_reference_latents(before, (LATENT,))
    assert after.bytes - before.bytes == 2 * LATENT.numel()


def test_items_keep_their_own() -> None:
    each = torch.cat((LATENT, LATENT + 1))
    shared = with_reference_latents(made(), (LATENT,))
    own = with_reference_latents(made(), (each,))
    assert torch.equal(take_items(shared, [1]).reference_latents[0], LATENT.half())
    assert torch.equal(take_items(own, [1]).reference_latents[0], (LATENT + 1).half())


class TestFiles:
    @pytest.fixture
    def file(self, tmp_path: Path) -> Path:
        path = tmp_path / "file.safetensors"
        save_attribution(path, Attribution(with_reference_latents(made(), (LATENT,))))
        return path

    def test_round_trip(self, file: Path) -> None:
        kept = load_attribution(file).recording.reference_latents
        assert list(kept) == [0]
        assert torch.equal(kept[0], LATENT.half())

    def test_a_file_without(self, tmp_path: Path) -> None:
        """As 1.0.0 wrote them: there is nothing more in the metadata, and it loads."""
        path = tmp_path / "old.safetensors"
        save_attribution(path, Attribution(made()))
        with safe_open(path, framework="pt") as opened:
            assert opened.metadata().keys() == {"format", "i2am"}
        assert load_attribution(path).recording.reference_latents == {}

    @pytest.mark.parametrize(
        "entries",
        [
            {"0": {"shape": [1, 16, 8, 6], "float16": "AAAA"}},
            {"0": {"shape": [1, 16, 8, 7], "float16": ""}},
            {"0": {"shape": [1, -16, 8, 6], "float16": ""}},
            {"0": {"shape": [3, 16, 8, 6], "float16": ""}},
            {"0": {"shape": [10**30, 16, 8, 6], "float16": ""}},
            {"0": {"shape": [8, 6], "float16": ""}},
            {"0": {"shape": "none", "float16": ""}},
            {"0": {"shape": [1, 1, 8, 6], "float16": "not base64!"}},
            {"0": {"shape": [1, 1, 8, 6], "float16": base64.b64encode(b"\x00\x7c" * 48).decode()}},
            {"1": {"shape": [1, 1, 8, 6], "float16": base64.b64encode(bytes(96)).decode()}},
            {"5": {"shape": [1, 1, 8, 6], "float16": base64.b64encode(bytes(96)).decode()}},
            {"x": {}},
            {"0": 3},
            [],
            3,
        ],
    )
    def test_lies(self, file: Path, entries: Any) -> None:
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}
            metadata = opened.metadata()
        save_file(tensors, file, metadata | {KEY: json.dumps(entries)})
        with pytest.raises(I2AMError, match="its reference latents cannot be read"):
            load_attribution(file)
