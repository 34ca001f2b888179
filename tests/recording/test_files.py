"""The file format: what is written comes back, in the shapes the format describes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from attribution_files import BARE, FULL, WITH_POINTS, file_parts
from recordings import attribution
from torch import Tensor

from i2am.display import recording_report, recording_summary
from i2am.errors import I2AMError
from i2am.maps import Level, attribution_map
from i2am.recording import Attribution, Definition, Direction, load_attribution, save_attribution
from i2am.recording.files import load_recording, save_recording
from i2am.recording.header_json import FORMAT


class TestRoundTrip:
    @pytest.mark.parametrize("written", [FULL, WITH_POINTS, BARE], ids=["full", "points", "bare"])
    def test_attribution(self, path: Path, written: Attribution) -> None:
        """Header exactly, arrays within float16 of their maximum, pictures within a grey level."""
        save_attribution(path, written)
        read = load_attribution(path)
        assert read.recording.header == written.recording.header
        assert read.recording.arrays.keys() == written.recording.arrays.keys()
        for name, array in written.recording.arrays.items():
            found = read.recording.arrays[name]
            assert found.dtype == torch.float32
            bound = 0 if name == "share.step_layer" else float(array.max()) * 2**-11
            assert float((found - array).abs().max()) <= bound, name
        pictures = ((written.image, read.image), (written.mask, read.mask))
        count = len(written.recording.header.references)
        given = (*written.references, *[None] * (count - len(written.references)))
        for wanted, found in (*pictures, *zip(given, read.references, strict=True)):
            assert (wanted is None) == (found is None)
            if wanted is not None and found is not None:
                torch.testing.assert_close(found, wanted, atol=0.5 / 255 + 1e-6, rtol=0)

    @pytest.mark.parametrize("full", [FULL, WITH_POINTS], ids=["full", "points"])
    def test_recording_bit_for_bit(self, path: Path, full: Attribution) -> None:
        written = full.recording
        save_recording(path, written)
        read = load_recording(path)
        assert read.header == written.header
        assert read.arrays.keys() == written.arrays.keys()
        assert all(torch.equal(read.arrays[name], written.arrays[name]) for name in written.arrays)

    def test_tensors_made_in_inference_mode(self, path: Path) -> None:
        """As the host makes them."""
        with torch.inference_mode():
            written = attribution(steps=1)
            save_attribution(path, written)
            assert load_attribution(path).recording.header == written.recording.header

    def test_tiny_values_keep_their_precision(self, path: Path) -> None:
        """Maps over thousands of tokens are too small for float16 unless they are scaled."""
        arrays = {name: array * 1e-9 for name, array in BARE.recording.arrays.items()}
        written = Attribution(type(BARE.recording)(BARE.recording.header, arrays))
        save_attribution(path, written)
        for name, array in load_attribution(path).recording.arrays.items():
            bound = float(arrays[name].max()) * 2**-11
            assert float((array - arrays[name]).abs().max()) <= bound, name

    def test_an_array_of_zeros(self, path: Path) -> None:
        arrays = {name: array * 0 for name, array in BARE.recording.arrays.items()}
        save_attribution(path, Attribution(type(BARE.recording)(BARE.recording.header, arrays)))
        assert not any(array.any() for array in load_attribution(path).recording.arrays.values())

    def test_several_pictures_of_one_reference(self, path: Path) -> None:
        several = (torch.rand(2, 8, 8, 3), None)
        save_attribution(path, Attribution(FULL.recording, references=several))
        found = load_attribution(path).references
        assert found[0] is not None
        assert found[0].shape == (2, 8, 8, 3)
        assert found[1] is None

    def test_the_same_maps_and_words(self, path: Path) -> None:
        """The nodes show the same maps and reports of it."""
        save_recording(path, FULL.recording)
        read = load_recording(path)
        assert recording_report(read) == recording_report(FULL.recording)
        assert recording_summary(read) == recording_summary(FULL.recording)
        for level in Level:
            maps = [
                attribution_map(r, Definition.MODEL, Direction.GENERATED_TO_REFERENCE, level)
                for r in (read, FULL.recording)
            ]
            assert torch.equal(maps[0].values, maps[1].values)


class TestFormat:
    def test_names_types_and_shapes(self, path: Path) -> None:
        """Exactly those that the format describes."""
        save_attribution(path, FULL)
        tensors, metadata, header = file_parts(path)
        assert metadata["format"] == FORMAT == "i2am.attribution/1"
        batch, steps, layers, heads, shapes = 2, 2, 3, 2, {}
        for r, side in enumerate(((2, 3), (3, 2))):
            for definition in ("paper", "model", "effect"):
                for direction, grid in (("r2g", (4, 3)), ("g2r", side)):
                    name = f"{definition}.{direction}.{r}"
                    shapes[f"{name}.step_layer"] = (batch, steps, layers, *grid)
                    shapes[f"{name}.layer_head"] = (batch, layers, heads, *grid)
            for kind in ("", "model.", "effect."):
                shapes[f"correspondence.{kind}{r}"] = (batch, 4, 3, *side)
            shapes[f"reference.{r}"] = (16, 24, 3)
        shapes |= {"share.step_layer": (batch, steps, layers, 4), "share.map": (batch, 4, 4, 3)}
        shapes |= {"output.step_layer": (batch, steps, layers), "output.map": (batch, 4, 3)}
        shapes |= {"image": (2, 64, 48, 3), "mask": (1, 64, 48)}
        assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes
        pictures = {"image", "mask", "reference.0", "reference.1"}
        for name, tensor in tensors.items():
            kind = torch.uint8 if name in pictures else torch.float16
            assert tensor.dtype == (torch.float32 if name == "share.step_layer" else kind), name
        keys = {"run", "plan", "architecture", "layers", "heads", "steps", "sigmas", "generated"}
        assert keys | {"references", "evaluations", "scales", "definitions"} <= header.keys()
        run = {"model", "batch", "seed", "schedule", "latent", "versions", "steering", "probed"}
        assert run == header["run"].keys()

    def test_points(self, path: Path) -> None:
        """Two points on the result, with rows over each reference, and one on reference 2."""
        save_attribution(path, WITH_POINTS)
        tensors, _, header = file_parts(path)
        shapes = {
            **{"g2r.0": (2, 2, 3, 2, 2, 3), "g2r.1": (2, 2, 3, 2, 3, 2)},
            "r2g.1": (2, 2, 3, 1, 4, 3),
        }
        found = {n: tuple(t.shape) for n, t in tensors.items() if n.startswith("point")}
        kinds = ("paper", "model", "effect")
        assert found == {f"point.{d}.{n}": s for d in kinds for n, s in shapes.items()}
        assert header["step_groups"] == [0, 1]
        assert [grid["height"] for grid in header["token_grids"]] == [4, 2, 3]
        assert header["plan"]["places"][1] == {
            **{"reference": -1, "left": 0.0, "top": 0.0},
            **{"right": 1.0, "bottom": 0.5},
        }

    def test_files_older_than_points(self, tamper: Any) -> None:
        def older(_: dict[str, Tensor], header: dict[str, Any]) -> None:
            del header["token_grids"], header["step_groups"], header["plan"]["places"]

        assert load_attribution(tamper(older)).recording.header == BARE.recording.header

    def test_files_older_than_the_effect(self, tamper: Any) -> None:
        """They hold the two definitions of attention, and nothing else is asked of them."""

        def older(tensors: dict[str, Tensor], header: dict[str, Any]) -> None:
            del header["plan"]["definitions"]
            for name in [n for n in tensors if "effect" in n or n.startswith("output")]:
                del tensors[name]

        recording = load_attribution(tamper(older)).recording
        assert recording.header.plan.definitions == "both"
        with pytest.raises(I2AMError, match="holds no effect definition"):
            attribution_map(recording, Definition.EFFECT, Direction.REFERENCE_TO_GENERATED)


class TestAtomic:
    @pytest.mark.fault(
        "A file cannot take its name after it was written",
        "No half file is left, an old file stays what it was",
        "Nothing",
    )
    def test_a_failing_write_leaves_nothing(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """No new file, no half of one, and an old one unchanged."""
        path.write_bytes(b"old")

        def fail(part: Path, path: Path) -> None:
            assert load_attribution(part).recording.header == BARE.recording.header
            raise OSError("no space left on device")

        monkeypatch.setattr("i2am.recording.files.os.replace", fail)
        with pytest.raises(OSError, match="no space"):
            save_attribution(path, BARE)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        assert path.read_bytes() == b"old"

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="No such file"):
            save_attribution(tmp_path / "missing" / "one.safetensors", BARE)
        assert not list(tmp_path.iterdir())
