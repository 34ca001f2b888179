"""The file format: what is written comes back, and what is anything else is refused."""

from __future__ import annotations

import copy
import json
import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from recordings import attribution, recording
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from i2am.display import recording_report, recording_summary
from i2am.errors import I2AMError
from i2am.maps import Level, attribution_map
from i2am.recording import Attribution, Definition, Direction, load_attribution, save_attribution
from i2am.recording.files import load_recording, save_recording
from i2am.recording.header_json import FORMAT

FULL = attribution(steps=2)
ASKED = attribution(steps=2, places="0.3,0.6; 0,0-1,0.5", reference_places="2: 0.2,0.9")
BARE = Attribution(recording(steps=2, heads=(2,), batch=1, correspondence=False))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "one.safetensors"


def parts(path: Path) -> tuple[dict[str, Tensor], dict[str, str], dict[str, Any]]:
    """A file's tensors, metadata and JSON header."""
    with safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = dict(file.metadata())
    return tensors, metadata, json.loads(metadata["i2am"])


@pytest.fixture
def tamper(path: Path) -> Callable[..., Path]:
    """Writes a good file and changes its tensors and header before it is read."""

    def tamper(
        change: Callable[[dict[str, Tensor], dict[str, Any]], object], made: Attribution = BARE
    ) -> Path:
        save_attribution(path, made)
        tensors, metadata, header = parts(path)
        change(tensors, header)
        save_file(tensors, path, metadata | {"i2am": json.dumps(header)})
        return path

    return tamper


class TestRoundTrip:
    @pytest.mark.parametrize("made", [FULL, ASKED, BARE], ids=["full", "places", "bare"])
    def test_attribution(self, path: Path, made: Attribution) -> None:
        """Header exactly, arrays within float16 of their maximum, pictures within a grey level."""
        save_attribution(path, made)
        back = load_attribution(path)
        assert back.recording.header == made.recording.header
        assert back.recording.arrays.keys() == made.recording.arrays.keys()
        for name, array in made.recording.arrays.items():
            found = back.recording.arrays[name]
            assert found.dtype == torch.float32
            bound = 0 if name == "share.step_layer" else float(array.max()) * 2**-11
            assert float((found - array).abs().max()) <= bound, name
        pictures = ((made.image, back.image), (made.mask, back.mask))
        count = len(made.recording.header.references)
        given = (*made.references, *[None] * (count - len(made.references)))
        for one, other in (*pictures, *zip(given, back.references, strict=True)):
            assert (one is None) == (other is None)
            if one is not None and other is not None:
                torch.testing.assert_close(other, one, atol=0.5 / 255 + 1e-6, rtol=0)

    @pytest.mark.parametrize("full", [FULL, ASKED], ids=["full", "places"])
    def test_recording_bit_for_bit(self, path: Path, full: Attribution) -> None:
        made = full.recording
        save_recording(path, made)
        back = load_recording(path)
        assert back.header == made.header
        assert back.arrays.keys() == made.arrays.keys()
        assert all(torch.equal(back.arrays[name], made.arrays[name]) for name in made.arrays)

    def test_what_was_sampled_in_inference_mode(self, path: Path) -> None:
        """As tensors come out of the host."""
        with torch.inference_mode():
            made = attribution(steps=1)
            save_attribution(path, made)
            assert load_attribution(path).recording.header == made.recording.header

    def test_tiny_values_keep_their_precision(self, path: Path) -> None:
        """Maps over thousands of tokens are far below what float16 holds; scaled they are not."""
        arrays = {name: array * 1e-9 for name, array in BARE.recording.arrays.items()}
        made = Attribution(type(BARE.recording)(BARE.recording.header, arrays))
        save_attribution(path, made)
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
        """What the nodes make of it is the same."""
        save_recording(path, FULL.recording)
        back = load_recording(path)
        assert recording_report(back) == recording_report(FULL.recording)
        assert recording_summary(back) == recording_summary(FULL.recording)
        for level in Level:
            maps = [
                attribution_map(r, Definition.MODEL, Direction.GENERATED_TO_REFERENCE, level)
                for r in (back, FULL.recording)
            ]
            assert torch.equal(maps[0].values, maps[1].values)


class TestFormat:
    def test_names_types_and_shapes(self, path: Path) -> None:
        """As the format's description has them, to the letter."""
        save_attribution(path, FULL)
        tensors, metadata, header = parts(path)
        assert metadata["format"] == FORMAT == "i2am.attribution/1"
        batch, steps, layers, heads, shapes = 2, 2, 3, 2, {}
        for r, side in enumerate(((2, 3), (3, 2))):
            for definition in ("paper", "model"):
                for direction, grid in (("r2g", (4, 3)), ("g2r", side)):
                    name = f"{definition}.{direction}.{r}"
                    shapes[f"{name}.step_layer"] = (batch, steps, layers, *grid)
                    shapes[f"{name}.layer_head"] = (batch, layers, heads, *grid)
            shapes[f"correspondence.{r}"] = (batch, 4, 3, *side)
            shapes[f"correspondence.model.{r}"] = (batch, 4, 3, *side)
            shapes[f"reference.{r}"] = (16, 24, 3)
        shapes |= {"share.step_layer": (batch, steps, layers, 4), "share.map": (batch, 4, 4, 3)}
        shapes |= {"image": (2, 64, 48, 3), "mask": (1, 64, 48)}
        assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == shapes
        pictures = {"image", "mask", "reference.0", "reference.1"}
        for name, tensor in tensors.items():
            kind = torch.uint8 if name in pictures else torch.float16
            assert tensor.dtype == (torch.float32 if name == "share.step_layer" else kind), name
        keys = {"run", "plan", "architecture", "layers", "heads", "steps", "sigmas", "generated"}
        assert keys | {"references", "evaluations", "scales", "definitions"} <= header.keys()
        run = {"model", "batch", "seed", "schedule", "latent", "versions", "steering"}
        assert run == header["run"].keys()

    def test_places_asked_about(self, path: Path) -> None:
        """Two of the result, seen from it over each reference, and one of reference 2."""
        save_attribution(path, ASKED)
        tensors, _, header = parts(path)
        shapes = {
            **{"g2r.0": (2, 2, 3, 2, 2, 3), "g2r.1": (2, 2, 3, 2, 3, 2)},
            "r2g.1": (2, 2, 3, 1, 4, 3),
        }
        found = {n: tuple(t.shape) for n, t in tensors.items() if n.startswith("point")}
        assert found == {f"point.{d}.{n}": s for d in ("paper", "model") for n, s in shapes.items()}
        assert header["step_groups"] == [0, 1]
        assert [grid["height"] for grid in header["token_grids"]] == [4, 2, 3]
        assert header["plan"]["places"][1] == {
            **{"reference": -1, "left": 0.0, "top": 0.0},
            **{"right": 1.0, "bottom": 0.5},
        }

    def test_files_from_before_places_could_be_asked_about(self, tamper: Any) -> None:
        def older(_: dict[str, Tensor], header: dict[str, Any]) -> None:
            del header["token_grids"], header["step_groups"], header["plan"]["places"]

        assert load_attribution(tamper(older)).recording.header == BARE.recording.header


class TestAtomic:
    @pytest.mark.fault(
        "A file cannot take its name after it was written",
        "No half file is left, an old file stays what it was",
        "Nothing",
    )
    def test_a_failing_write_leaves_nothing(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither a new file nor a half of one; an old one stays what it was."""
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


def _set(*keys: Any) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    """Sets a value deep in the header: the last of `keys`."""

    def change(_: dict[str, Tensor], header: dict[str, Any]) -> None:
        inside: Any = header
        for key in keys[:-2]:
            inside = inside[key]
        inside[keys[-2]] = keys[-1]

    return change


HEADER_LIES = {
    "batch": _set("run", "batch", 2),
    "no batch": _set("run", "batch", 0),
    "huge batch": _set("run", "batch", 10**18),
    "negative batch": _set("run", "batch", -1),
    "one step more": _set("steps", [0, 1, 2]),
    "a step less": _set("sigmas", [1.0]),
    "heads": _set("heads", [3]),
    "huge heads": _set("heads", [10**9]),
    "head counts for two layers": _set("heads", [2, 2]),
    "no layers": _set("layers", []),
    "no references": _set("references", []),
    "counts of another shape": _set("counts", [[1]]),
    "negative counts": _set("counts", [[-1], [-1]]),
    "nothing seen": _set("counts", [[0], [0]]),
    "huge counts": _set("counts", [[10**30], [1]]),
    "endless counts": _set("counts", [[math.inf], [1]]),
    "grid": _set("generated", "grid", "height", 5),
    "huge grid": _set("generated", "grid", "height", 10**400),
    "grid without end": _set("generated", "grid", "covered", [math.inf, 3]),
    "grid that is no number": _set("generated", "grid", "covered", [math.nan, 3]),
    "huge latent": _set("generated", "latent", [10**9, 10**9]),
    "negative latent": _set("references", 0, "latent", [-8, 8]),
    "endless latent": _set("generated", "latent", [math.inf, 1]),
    "seconds that are no number": _set("seconds", math.nan),
    "sigmas without end": _set("sigmas", [math.inf, 0.5]),
    "schedule that is no number": _set("run", "schedule", [math.nan]),
    "a list for a run": _set("run", []),
    "nothing for a plan": _set("plan", None),
    "ranges that are none": _set("plan", "layers", [[1]]),
    "scale of zero": _set("scales", "share.map", 0),
    "endless scale": _set("scales", "share.map", math.inf),
    "huge scale": _set("scales", "share.map", 1e300),
    "text for scales": _set("scales", "many"),
}

PLACE_LIES = {
    "no such place": _set("plan", "places", []),
    "a place more": lambda _, header: header["plan"]["places"].append(header["plan"]["places"][0]),
    "too many places": lambda _, header: header["plan"]["places"].extend(
        header["plan"]["places"] * 9
    ),
    "a place outside": _set("plan", "places", 0, "left", 1.5),
    "a place that is no number": _set("plan", "places", 0, "top", math.nan),
    "a place of nothing": _set("plan", "places", [None]),
    "a grid less": lambda _, header: header["token_grids"].pop(),
    "another grid": _set("token_grids", 1, "height", 3),
    "huge grid of tokens": _set("token_grids", 0, "height", 10**400),
    "no groups": _set("step_groups", []),
    "a group less": _set("step_groups", [0]),
    "groups out of order": _set("step_groups", [1, 0]),
    "a group left out": _set("step_groups", [0, 2]),
    "negative groups": _set("step_groups", [-1, 0]),
    "fewer groups": _set("step_groups", [0, 0]),
}

TENSOR_LIES: dict[str, Callable[[dict[str, Tensor], dict[str, Any]], object]] = {
    "missing": lambda tensors, _: tensors.pop("share.map"),
    "missing step_layer": lambda tensors, _: tensors.pop("paper.g2r.1.step_layer"),
    "extra": lambda tensors, _: tensors.update(extra=torch.zeros(1)),
    "extra reference": lambda tensors, _: tensors.update(
        {"reference.2": torch.zeros(2, 2, 3, dtype=torch.uint8)}
    ),
    "shape": lambda tensors, _: tensors.update({"share.map": torch.zeros(1, 4, 3, 4)}),
    "rank": lambda tensors, _: tensors.update({"share.map": torch.zeros(48)}),
    "double": lambda tensors, _: tensors.update({"share.map": tensors["share.map"].double()}),
    "integers": lambda tensors, _: tensors.update({"share.map": tensors["share.map"].long()}),
    "not a number": lambda tensors, _: tensors["share.map"].fill_(math.nan),
    "endless": lambda tensors, _: tensors["share.map"].fill_(math.inf),
    "negative": lambda tensors, _: tensors["share.map"].sub_(1),
    "picture of floats": lambda tensors, _: tensors.update(image=torch.zeros(1, 4, 4, 3)),
    "picture without colours": lambda tensors, _: tensors.update(
        image=torch.zeros(1, 4, 4, 1, dtype=torch.uint8)
    ),
    "empty picture": lambda tensors, _: tensors.update(
        image=torch.zeros(1, 0, 4, 3, dtype=torch.uint8)
    ),
    "three pictures of one result": lambda tensors, _: tensors.update(
        image=torch.zeros(3, 4, 4, 3, dtype=torch.uint8)
    ),
    "two pictures of one reference and result": lambda tensors, _: tensors.update(
        {"reference.0": torch.zeros(2, 4, 4, 3, dtype=torch.uint8)}
    ),
}


class TestRefused:
    @pytest.mark.parametrize("lie", HEADER_LIES)
    @pytest.mark.bad_input(
        "Load Attribution: a file whose header lies about its arrays or itself",
        "Refused: no attribution that can be loaded, and why",
    )
    def test_headers(self, tamper: Callable[..., Path], lie: str) -> None:
        with pytest.raises(I2AMError, match=r"cannot be loaded|can be loaded.*Choose a file"):
            load_attribution(tamper(HEADER_LIES[lie]))

    @pytest.mark.parametrize("lie", PLACE_LIES)
    def test_places(self, tamper: Callable[..., Path], lie: str) -> None:
        with pytest.raises(I2AMError, match=r"cannot be loaded|can be loaded.*Choose a file"):
            load_attribution(tamper(PLACE_LIES[lie], ASKED))

    @pytest.mark.parametrize("lie", TENSOR_LIES)
    @pytest.mark.bad_input(
        "Load Attribution: arrays that are not what the header says, negative or not numbers",
        "Refused, naming the array",
    )
    def test_tensors(self, tamper: Callable[..., Path], lie: str) -> None:
        with pytest.raises(I2AMError, match=r"can be loaded: .*Choose a file"):
            load_attribution(tamper(TENSOR_LIES[lie]))

    @pytest.mark.parametrize("field", ["run", "plan", "layers", "counts", "scales", "references"])
    def test_missing_fields(self, tamper: Callable[..., Path], field: str) -> None:
        with pytest.raises(I2AMError, match=f"header cannot be read.*{field}"):
            load_attribution(tamper(lambda _, header: header.pop(field)))

    @pytest.mark.parametrize(
        "metadata",
        [
            None,
            {"format": "i2am.attribution/2", "i2am": "{}"},
            {"format": FORMAT},
            {"format": FORMAT, "i2am": "{"},
            {"format": FORMAT, "i2am": "[" * 100_000},
            {"format": FORMAT, "i2am": "null"},
            {"format": FORMAT, "i2am": "[]"},
            {"format": FORMAT, "i2am": '{"scales": {}, "run": 1' + "0" * 5000 + "}"},
        ],
        ids=["none", "version", "no json", "broken", "deep", "null", "list", "huge number"],
    )
    @pytest.mark.bad_input(
        "Load Attribution: a .safetensors of something else or of another version, broken or "
        "endlessly nested JSON",
        "Refused, naming what was found",
    )
    def test_metadata(self, path: Path, metadata: dict[str, str] | None) -> None:
        save_file({"share.map": torch.zeros(1)}, path, metadata)
        with pytest.raises(I2AMError, match="can be loaded"):
            load_attribution(path)

    @pytest.mark.parametrize(
        "content", [b"", b"\x00" * 8, b"PK\x03\x04 no tensors", b"\xff" * 100, b"{}" * 500]
    )
    @pytest.mark.bad_input(
        "Load Attribution: bytes that are not a .safetensors file",
        "Refused: not a whole .safetensors file",
    )
    def test_other_files(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(I2AMError, match=r"whole \.safetensors file"):
            load_attribution(path)

    @pytest.mark.bad_input(
        "Load Attribution: a header bomb, of 32 million characters",
        "Refused before it is read as JSON",
    )
    def test_header_bomb(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        header = '{"scales": {}, "run": [' + "0," * 2**24 + "0]}"
        save_file({"share.map": torch.zeros(1)}, path, {"format": FORMAT, "i2am": header})
        monkeypatch.setattr("i2am.recording.header_json.json.loads", pytest.fail)
        with pytest.raises(I2AMError, match="its header is longer than any recording's"):
            load_attribution(path)

    @pytest.mark.bad_input(
        "Load Attribution: a sparse file, small on disk, that would fill the memory when read",
        "Refused before an array is read",
    )
    @pytest.mark.parametrize(("side", "pictures"), [(32768, 8), (512, 4), (512, 1)])
    def test_endless_arrays(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, side: int, pictures: int
    ) -> None:
        """Pictures of nothing in a real recording: larger than the limit, on disk or as floats."""
        if side == 512:
            monkeypatch.setattr("i2am.recording.files.MAX_BYTES", 2**21)
        end = int.from_bytes(BYTES[:8], "little") + 8
        header, start = json.loads(BYTES[8:end]), len(BYTES) - end
        for number in range(pictures):
            offsets = [start, start := start + 3 * side**2]
            name = f"reference.{number}" if number else "image"
            header[name] = {"dtype": "U8", "shape": [1, side, side, 3], "data_offsets": offsets}
        written = json.dumps(header).encode()
        with path.open("wb") as file:
            file.write(len(written).to_bytes(8, "little") + written + BYTES[end:])
            file.truncate(8 + len(written) + start)
        with pytest.raises(I2AMError, match="more memory than any recording"):
            load_attribution(path)

    @pytest.mark.bad_input(
        "Load Attribution: a file larger than the memory that is free",
        "The node says that memory is short",
    )
    @pytest.mark.parametrize("error", [RuntimeError("unable to mmap"), MemoryError("no memory")])
    def test_no_memory(self, path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
        def fail(*args: Any, **kwargs: Any) -> None:
            raise error

        save_attribution(path, BARE)
        monkeypatch.setattr("i2am.recording.files.safe_open", fail)
        with pytest.raises(I2AMError, match=f"not enough memory to load this file: {error}"):
            load_attribution(path)

    def test_no_file(self, path: Path) -> None:
        with pytest.raises(OSError, match=r"[Nn]o such file|No such"):
            load_attribution(path)
        with pytest.raises((OSError, I2AMError)):
            load_attribution(path.parent)

    @pytest.mark.parametrize("size", [1, 7, 8, 100, 1000, -1])
    @pytest.mark.bad_input(
        "Load Attribution: a truncated file",
        "Refused: not a whole .safetensors file",
    )
    def test_truncated(self, path: Path, size: int) -> None:
        save_attribution(path, BARE)
        path.write_bytes(path.read_bytes()[:size])
        with pytest.raises(I2AMError, match=r"whole \.safetensors file"):
            load_attribution(path)


def _bare_file() -> tuple[bytes, dict[str, Tensor], dict[str, str], dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bare.safetensors"
        save_attribution(path, BARE)
        return (path.read_bytes(), *parts(path))


BYTES, TENSORS, METADATA, HEADER = _bare_file()
BYTES_SEEN = len(BYTES) - sum(t.numel() * t.element_size() for t in TENSORS.values())
fuzz = settings(max_examples=60, deadline=1000)


def usable(path: Path) -> None:
    """A file is refused as an I2AMError, or what it holds can be used."""
    try:
        loaded = load_attribution(path)
    except I2AMError:
        return
    json.dumps(recording_summary(loaded.recording), allow_nan=False)
    recording_report(loaded.recording)
    for level in Level:
        attribution_map(loaded.recording, Definition.PAPER, Direction.REFERENCE_TO_GENERATED, level)
    for direction in Direction:
        assert max(loaded.size(direction, 0)) <= 32768


class TestHostile:
    @fuzz
    @given(
        st.lists(st.tuples(st.integers(0, BYTES_SEEN - 1), st.integers(0, 255)), max_size=6),
        st.integers(0, len(BYTES)),
    )
    @pytest.mark.bad_input(
        "Load Attribution: any bytes of a header changed, any length cut off (60 examples drawn)",
        "Refused, or what it holds can be used",
    )
    def test_bytes(self, edits: list[tuple[int, int]], length: int) -> None:
        """Any bytes of the header changed, any length cut off."""
        content = bytearray(BYTES)
        for position, value in edits:
            content[position] = value
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "one.safetensors"
            path.write_bytes(content if length % 3 else content[:length])
            usable(path)

    @settings(fuzz, max_examples=150)
    @given(st.data())
    @pytest.mark.bad_input(
        "Load Attribution: any field of a header replaced by any JSON (150 examples drawn)",
        "Refused, or what it holds can be used",
    )
    def test_header_fields(self, data: st.DataObject) -> None:
        """Any value of the header replaced by anything JSON can say."""
        header = copy.deepcopy(HEADER)
        inside: Any = header
        while True:
            keys = list(inside) if isinstance(inside, dict) else range(len(inside))
            key = data.draw(st.sampled_from(keys))
            deeper = isinstance(inside[key], dict | list) and len(inside[key])
            if not deeper or data.draw(st.integers(0, 3)) == 0:
                break
            inside = inside[key]
        numbers = st.one_of(st.integers(), st.floats(), st.sampled_from([10**30, -1, 0, 1e300]))
        leaves = st.one_of(numbers, st.none(), st.booleans(), st.text(max_size=5))
        inside[key] = data.draw(
            st.recursive(
                leaves,
                lambda some: (
                    st.lists(some, max_size=3)
                    | st.dictionaries(st.sampled_from(["height", "grid", "x"]), some, max_size=3)
                ),
                max_leaves=5,
            )
        )
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "one.safetensors"
            save_file(TENSORS, path, METADATA | {"i2am": json.dumps(header)})
            usable(path)

    @settings(fuzz, max_examples=100)
    @given(st.data())
    @pytest.mark.bad_input(
        "Load Attribution: any array of any type, shape and numbers, not a number and endless ones "
        "among them (100 examples drawn)",
        "Refused, or what it holds can be used",
    )
    def test_arrays(self, data: st.DataObject) -> None:
        """Any array replaced by another, of the shape it had or of any."""
        name = data.draw(st.sampled_from(sorted(TENSORS)))
        before = TENSORS[name]
        shape = data.draw(
            st.one_of(
                st.just(list(before.shape)),
                st.permutations(list(before.shape)),
                st.lists(st.integers(0, 5), max_size=6),
            )
        )
        dtype = data.draw(st.sampled_from([before.dtype, torch.float64, torch.int64, torch.bool]))
        number = data.draw(st.sampled_from([0.0, 1.0, -1.0, 1e38, math.nan, math.inf, -math.inf]))
        array = torch.full(shape, 0.5)
        where = data.draw(st.integers(0, max(0, array.numel() - 1)))
        array.view(-1)[where : where + 1] = number
        array = (array if dtype.is_floating_point else array.nan_to_num()).to(dtype)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "one.safetensors"
            save_file(TENSORS | {name: array}, path, METADATA)
            usable(path)
