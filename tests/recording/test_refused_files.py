"""Files that are refused: lies in the header, wrong tensors, other formats, any bytes at all."""

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
from attribution_files import BARE, WITH_POINTS, file_parts
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from i2am.display import recording_report, recording_summary
from i2am.errors import I2AMError
from i2am.maps import Level, attribution_map
from i2am.recording import Definition, Direction, load_attribution, save_attribution
from i2am.recording.header_json import FORMAT


def _set(*keys: Any) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    """A change that sets a value in the header. keys: the way to it, then the value."""

    def change(_: dict[str, Tensor], header: dict[str, Any]) -> None:
        *way, name, value = keys
        inside: Any = header
        for key in way:
            inside = inside[key]
        inside[name] = value

    return change


HEADER_LIES = {
    "batch": _set("run", "batch", 2),
    "no batch": _set("run", "batch", 0),
    "huge batch": _set("run", "batch", 10**18),
    "negative batch": _set("run", "batch", -1),
    "one step more": _set("steps", [0, 1, 2]),
    "one sigma fewer": _set("sigmas", [1.0]),
    "heads": _set("heads", [3]),
    "huge heads": _set("heads", [10**9]),
    "head counts for two layers": _set("heads", [2, 2]),
    "no layers": _set("layers", []),
    "no references": _set("references", []),
    "counts of another shape": _set("counts", [[1]]),
    "negative counts": _set("counts", [[-1], [-1]]),
    "no calls at all": _set("counts", [[0], [0]]),
    "huge counts": _set("counts", [[10**30], [1]]),
    "infinite counts": _set("counts", [[math.inf], [1]]),
    "grid": _set("generated", "grid", "height", 5),
    "huge grid": _set("generated", "grid", "height", 10**400),
    "infinite grid": _set("generated", "grid", "covered", [math.inf, 3]),
    "grid that is not a number": _set("generated", "grid", "covered", [math.nan, 3]),
    "huge latent": _set("generated", "latent", [10**9, 10**9]),
    "negative latent": _set("references", 0, "latent", [-8, 8]),
    "infinite latent": _set("generated", "latent", [math.inf, 1]),
    "seconds that are not a number": _set("seconds", math.nan),
    "infinite sigmas": _set("sigmas", [math.inf, 0.5]),
    "schedule that is not a number": _set("run", "schedule", [math.nan]),
    "a list for a run": _set("run", []),
    "no plan": _set("plan", None),
    "ranges with one end": _set("plan", "layers", [[1]]),
    "scale of zero": _set("scales", "share.map", 0),
    "infinite scale": _set("scales", "share.map", math.inf),
    "huge scale": _set("scales", "share.map", 1e300),
    "text for scales": _set("scales", "many"),
}

POINT_LIES = {
    "no points": _set("plan", "places", []),
    "one point more": lambda _, header: header["plan"]["places"].append(
        header["plan"]["places"][0]
    ),
    "too many points": lambda _, header: header["plan"]["places"].extend(
        header["plan"]["places"] * 9
    ),
    "a point outside": _set("plan", "places", 0, "left", 1.5),
    "a point that is not a number": _set("plan", "places", 0, "top", math.nan),
    "a point that is null": _set("plan", "places", [None]),
    "one grid fewer": lambda _, header: header["token_grids"].pop(),
    "another grid": _set("token_grids", 1, "height", 3),
    "huge token grid": _set("token_grids", 0, "height", 10**400),
    "no groups": _set("step_groups", []),
    "one group fewer": _set("step_groups", [0]),
    "groups out of order": _set("step_groups", [1, 0]),
    "a group left out": _set("step_groups", [0, 2]),
    "negative groups": _set("step_groups", [-1, 0]),
    "fewer groups than arrays": _set("step_groups", [0, 0]),
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
    "infinite": lambda tensors, _: tensors["share.map"].fill_(math.inf),
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

    @pytest.mark.parametrize("lie", POINT_LIES)
    def test_points(self, tamper: Callable[..., Path], lie: str) -> None:
        with pytest.raises(I2AMError, match=r"cannot be loaded|can be loaded.*Choose a file"):
            load_attribution(tamper(POINT_LIES[lie], WITH_POINTS))

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
    def test_huge_arrays(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, side: int, pictures: int
    ) -> None:
        """Empty pictures in a real recording: over the limit on disk or as floats."""
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
        return (path.read_bytes(), *file_parts(path))


BYTES, TENSORS, METADATA, HEADER = _bare_file()
HEADER_SIZE = len(BYTES) - sum(t.numel() * t.element_size() for t in TENSORS.values())
fuzz = settings(max_examples=60, deadline=1000)


def usable(path: Path) -> None:
    """A file is refused with an I2AMError, or the nodes can use what it holds."""
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
        st.lists(st.tuples(st.integers(0, HEADER_SIZE - 1), st.integers(0, 255)), max_size=6),
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
        """Any value of the header replaced by any JSON."""
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
                lambda values: (
                    st.lists(values, max_size=3)
                    | st.dictionaries(st.sampled_from(["height", "grid", "x"]), values, max_size=3)
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
        """Any array replaced by one of the same shape or any other."""
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
