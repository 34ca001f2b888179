"""The viewer's payload against the recording it is made of."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from payloads import deviation, unpack
from recordings import attribution, made_up, recording
from torch import Tensor

from i2am.display import Colormap, pack_payload, read_payload_header
from i2am.display.colormaps import table
from i2am.display.payload import BUDGET
from i2am.errors import I2AMError
from i2am.maps import Level, Selection, attribution_map
from i2am.recording import Attribution, Definition, Direction, Recording
from i2am.tokens import ADAPTER_TOKENS, Grid, Picture, spread

R2G, G2R = Direction.REFERENCE_TO_GENERATED, Direction.GENERATED_TO_REFERENCE
# Tolerance for rounding, relative to a map's highest value; float32 itself needs a little.
BITS_16, BITS_8 = 0.51 / 65535, 0.51 / 255


def unified(header: dict[str, Any], arrays: dict[str, Tensor], name: str) -> Tensor:
    """The page's mean over everything: (batch, cells)."""
    weights = torch.tensor(header["seen"]).float()[None, :, :, None]
    maps = arrays[f"{name}.step_layer"].flatten(3)
    return (maps * weights).sum((1, 2)) / weights.sum((1, 2))


class TestRoundTrip:
    def test_every_array(self) -> None:
        """Within 16-bit precision; here every array has it."""
        given = attribution(missing=((1, 0), (3, 2)))
        header, arrays = unpack(pack_payload(given))
        recorded = given.recording.arrays
        assert header["pooled"] == []
        kept = {"share.step_layer", "output.step_layer", "output.map"}  # not sent
        assert arrays.keys() == recorded.keys() - kept | {"mask"}
        for name, array in recorded.items():
            if name not in kept:
                assert header["arrays"][name]["dtype"] == "u2"
                per = 2 if name == "share.map" else 3
                assert deviation(arrays[name], array, per) <= BITS_16, name
        assert given.mask is not None
        assert torch.equal(arrays["mask"] > 0.5, given.mask > 0.5)
        assert set(arrays["mask"].unique().mul(255).round().tolist()) == {0, 255}

    def test_header(self) -> None:
        made = recording(missing=((1, 0),), heads=(2, 3, 3))
        given = replace(attribution(), recording=made)
        header, _ = unpack(pack_payload(given))
        assert header["format"] == "i2am.viewer/1"
        assert (header["model"], header["architecture"], header["seed"]) == ("Test", "Test", 7)
        assert (header["batch"], header["joint"], header["within"]) == (2, True, False)
        assert not header["probed"]
        assert header["definition"] == "effect"
        assert header["definitions"] == ["paper", "model", "effect"]
        assert header["versions"] == {"i2am": "0", "comfyui": "0"}
        assert [step["label"] for step in header["steps"]] == ["0", "1", "2", "3"]
        assert [step["sigma"] for step in header["steps"]] == [1, 0.75, 0.5, 0.25]
        assert [layer["label"] for layer in header["layers"]] == [
            "double 0",
            "double 1",
            "double 2",
        ]
        assert {entry["count"] for entry in header["steps"] + header["layers"]} == {1}
        assert header["heads"] == [2, 3, 3]
        assert header["seen"] == [[1, 1, 1], [0, 1, 1], [1, 1, 1], [1, 1, 1]]
        assert header["generated"] == {
            "grid": [4, 3],
            "covered": [4, 3],
            "size": [64, 48],
            "frames": 1,
        }
        assert header["references"][1] == {
            "grid": [3, 2],
            "covered": [2.5, 2],
            "size": [16, 24],
            "frames": 1,
            "kind": "reference",
            "has_places": True,
            "label": "reference 2",
        }
        assert header["correspondence"][1] == {
            "rows": [4, 3],
            "rows_covered": [4, 3],
            "columns": [3, 2],
            "columns_covered": [2.5, 2],
        }
        seen = torch.tensor(made.header.counts) > 0
        shares = made.arrays["share.step_layer"][:, seen].mean(1)
        sent = [header["share"]["text"], header["share"]["self"], *header["share"]["references"]]
        torch.testing.assert_close(torch.tensor(sent).T, shares)
        torch.testing.assert_close(torch.tensor(sent).sum(0), torch.ones(2))

    def test_colours_and_words(self) -> None:
        """The page uses the pack's colour tables and the pack's texts for maps."""
        header = read_payload_header(pack_payload(attribution()))
        assert list(header["colormaps"]) == [colormap.value for colormap in Colormap]
        for colormap in Colormap:
            colours = np.frombuffer(base64.b64decode(header["colormaps"][colormap.value]), np.uint8)
            sent = torch.from_numpy(colours.copy()).reshape(256, 3).float() / 255
            assert (sent - table(colormap)).abs().max() <= 0.5 / 255 + 1e-6
        for array in ("paper.r2g", "paper.g2r", "model.r2g", "model.g2r", "correspondence"):
            assert header["texts"]["definitions"][array]
        assert set(header["texts"]["units"]) == {"%", "×", "words"}

    def test_the_same_every_time(self) -> None:
        given = attribution()
        assert pack_payload(given) == pack_payload(given)

    def test_a_map_of_nothing(self) -> None:
        """All zero stays zero, with no division by zero."""
        given = attribution()
        given.recording.arrays["model.g2r.0.step_layer"].zero_()  # type: ignore[index]
        _, arrays = unpack(pack_payload(given))
        assert not arrays["model.g2r.0.step_layer"].any()

    def test_weak_maps_keep_their_precision(self) -> None:
        """A step a million times weaker than the next keeps the same precision."""
        given = attribution()
        given.recording.arrays["model.r2g.0.step_layer"][:, 2] *= 1e-6
        _, arrays = unpack(pack_payload(given))
        recorded = given.recording.arrays["model.r2g.0.step_layer"]
        assert deviation(arrays["model.r2g.0.step_layer"], recorded, 3) <= BITS_16


class TestWhatIsSent:
    def test_pictures_decide_sizes(self) -> None:
        """Without pictures, sizes follow from the latents, 8 pixels per latent pixel."""
        header = read_payload_header(pack_payload(Attribution(recording())))
        assert header["generated"]["size"] == [64, 48]
        assert header["references"][0]["size"] == [32, 48]

    def test_reference_without_places(self) -> None:
        """It has maps over the result, none over the reference, and no correspondence."""
        made = recording()
        whole = replace(made.header.references[0], kind=ADAPTER_TOKENS)
        references = (whole, made.header.references[1])
        made = Recording(replace(made.header, references=references), made.arrays)
        header, arrays = unpack(pack_payload(Attribution(made)))
        assert [r["has_places"] for r in header["references"]] == [False, True]
        assert "model.r2g.0.step_layer" in arrays
        assert not [name for name in arrays if ".g2r.0" in name or name.endswith("spondence.0")]
        assert "correspondence.model.0" not in arrays
        assert header["correspondence"][0] is None
        assert header["correspondence"][1] is not None

    def test_without_correspondence(self) -> None:
        header, arrays = unpack(pack_payload(Attribution(recording(correspondence=False))))
        assert header["correspondence"] == [None, None]
        assert not [name for name in arrays if name.startswith("correspondence")]

    def test_video(self) -> None:
        """Its maps have a frame axis before height and width, and each picture has its frame."""
        made = recording(generated=Grid(4, 3, frames=3), references=(Grid(2, 3),), batch=1)
        given = Attribution(made, torch.rand(9, 64, 48, 3), (torch.rand(1, 16, 24, 3),))
        header, arrays = unpack(pack_payload(given))
        assert header["generated"]["frames"] == 3
        assert header["generated"]["frame_of"] == [0, 1, 1, 1, 1, 2, 2, 2, 2]
        assert "frame_of" not in header["references"][0]
        assert arrays["model.r2g.0.step_layer"].shape == (1, 4, 3, 3, 4, 3)
        assert arrays["share.map"].shape == (1, 3, 3, 4, 3)
        assert arrays["correspondence.0"].shape == (1, 4, 3, 2, 3)
        for name in ("model.r2g.0.step_layer", "paper.r2g.0.layer_head"):
            assert deviation(arrays[name], made.arrays[name], 3) <= BITS_16

    def test_within(self) -> None:
        made = recording(references=(Grid(4, 3),))
        plan = replace(made.header.plan, within=True)
        made = Recording(replace(made.header, plan=plan), made.arrays)
        pictures = torch.rand(2, 64, 48, 3)
        header = read_payload_header(pack_payload(Attribution(made, pictures, (pictures,))))
        assert header["within"]
        assert header["references"][0]["size"] == header["generated"]["size"]

    def test_masks(self) -> None:
        """Soft masks too, each over its own picture."""
        given = attribution()
        over_reference = torch.linspace(0, 1, 16 * 24).reshape(1, 16, 24)
        header, arrays = unpack(pack_payload(given, {1: over_reference}))
        assert header["arrays"]["reference_mask.1"]["shape"] == [1, 16, 24]
        assert (arrays["reference_mask.1"] - over_reference).abs().max() <= 0.5 / 255 + 1e-6
        # Bytes stand for 0 to 1, whatever range the mask has.
        assert header["arrays"]["reference_mask.1"]["scale"] == pytest.approx(1 / 255, rel=1e-6)
        weak = replace(given, mask=torch.full((1, 64, 48), 0.6))
        assert unpack(pack_payload(weak))[0]["arrays"]["mask"]["scale"] == pytest.approx(
            1 / 255, rel=1e-6
        )
        assert float(unpack(pack_payload(weak))[1]["mask"].max()) == pytest.approx(0.6, abs=BITS_8)

    @pytest.mark.parametrize(
        ("shape", "words"),
        [((1, 24, 16), "reference 1 is 16×24.*24×16"), ((3, 16, 24), "batch of 3")],
    )
    def test_masks_that_do_not_fit(self, shape: tuple[int, ...], words: str) -> None:
        with pytest.raises(I2AMError, match=words):
            pack_payload(attribution(), {0: torch.ones(shape)})

    def test_mask_over_the_result_that_does_not_fit(self) -> None:
        with pytest.raises(I2AMError, match="mask over the result is 48×48"):
            pack_payload(replace(attribution(), mask=torch.ones(1, 48, 48)))


@pytest.fixture(scope="module")
def large() -> Recording:
    """Flux at 1024×1024, 28 steps: 48 million values. One layer skips a step."""
    made = made_up()
    counts = [list(row) for row in made.header.counts]
    counts[4][7] = 0
    for name, array in made.arrays.items():
        if name.endswith("step_layer"):
            array[:, 4, 7] = 0
    return Recording(replace(made.header, counts=tuple(map(tuple, counts))), made.arrays)


class TestReductions:
    def test_said_in_order(self, large: Recording) -> None:
        payload = pack_payload(Attribution(large))
        assert len(payload) <= BUDGET
        assert read_payload_header(payload)["pooled"] == [
            "steps 28 → 10 groups",
            "layers 57 → 20 groups",
            "heads in 256 levels",
            "maps over the result 64×64 → 32×32",
            "maps over reference 1 64×64 → 32×32",
        ]

    @pytest.mark.parametrize("definition", [Definition.PAPER, Definition.MODEL])
    @pytest.mark.parametrize("direction", list(Direction))
    def test_means_are_the_recordings_own(
        self, large: Recording, definition: Definition, direction: Direction
    ) -> None:
        """The groups differ in size and one entry is missing, yet the mean is exact."""
        header, arrays = unpack(pack_payload(Attribution(large)))
        name = f"{definition.value}.{'r2g' if direction is R2G else 'g2r'}.0"
        expected = attribution_map(large, definition, direction)
        pooled = spread(expected.values[:, 0].flatten(1), expected.grid, Grid(32, 32))
        assert deviation(unified(header, arrays, name), pooled, 1) <= BITS_16
        assert sum(sum(row) for row in header["seen"]) == 28 * 57 - 1
        # One head, over layers weighted by what they stand for.
        counts = torch.tensor([layer["count"] for layer in header["layers"]]).float()
        assert int(counts.sum()) == 57
        of_head = arrays[f"{name}.layer_head"][:, :, 5].flatten(2)
        of_head = (of_head * counts[None, :, None]).sum(1) / counts.sum()
        expected = attribution_map(large, definition, direction, selection=Selection(heads="5"))
        pooled = spread(expected.values[:, 0].flatten(1), expected.grid, Grid(32, 32))
        assert deviation(of_head, pooled, 1) <= BITS_8

    def test_groups_are_of_one_kind(self, large: Recording) -> None:
        header = read_payload_header(pack_payload(Attribution(large)))
        labels = [layer["label"] for layer in header["layers"]]
        assert labels[:3] == ["double 0-1", "double 2-4", "double 5-7"]
        assert {label.split()[0] for label in labels} == {"double", "single"}
        assert [step["label"] for step in header["steps"]][:2] == ["0-1", "2-4"]
        assert header["steps"][1]["sigma"] == large.header.sigmas[2]
        group = attribution_map(
            large, Definition.MODEL, R2G, Level.LAYER, selection=Selection("2-4", "0-1")
        )
        expected = spread(group.values.mean(1).flatten(1), group.grid, Grid(32, 32))
        _, arrays = unpack(pack_payload(Attribution(large)))
        found = arrays["model.r2g.0.step_layer"][:, 1, 0].flatten(1)
        assert deviation(found, expected, 1) <= BITS_16

    def test_shares_keep_their_mean(self, large: Recording) -> None:
        _, arrays = unpack(pack_payload(Attribution(large)))
        shares = large.arrays["share.map"].unflatten(-1, (32, 2)).unflatten(-3, (32, 2))
        assert deviation(arrays["share.map"], shares.mean((-1, -3)), 2) <= BITS_16

    def test_several_references(self) -> None:
        """Heads are dropped first, then the correspondence is coarsened: rows keep their mass."""
        made = made_up(references=(Grid(64, 64), Grid(48, 64), Grid(32, 32)))
        payload = pack_payload(Attribution(made))
        header, arrays = unpack(payload)
        assert len(payload) <= BUDGET
        assert "heads left out" in header["pooled"]
        assert not [name for name in arrays if name.endswith("layer_head")]
        assert set(header["heads"]) == {0}
        assert arrays["correspondence.1"].shape == (1, 24, 24, 18, 24)
        assert header["correspondence"][1]["columns"] == [18, 24]
        sums = made.arrays["correspondence.1"].sum((3, 4)).flatten(1)
        expected = spread(sums, Grid(32, 32), Grid(24, 24)) * 24**2 / 32**2
        found = arrays["correspondence.1"].sum((3, 4)).flatten(1)
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=0)

    @pytest.mark.parametrize(
        ("options", "pooled"),
        [
            ({"batch": 4}, "heads left out"),
            ({"batch": 40, "steps": 2}, "pictures 40 → the first 4"),
            ({"references": (Grid(32, 32),) * 20, "steps": 2}, "32×32 → 16×16"),
            ({"generated": Grid(30, 52, frames=21), "heads": 40}, "15×26 → 7×12"),
        ],
    )
    def test_fits_whatever_it_holds(self, options: dict[str, Any], pooled: str) -> None:
        given = {"blocks": (("double", 3), ("single", 6)), "heads": 4, **options}
        payload = pack_payload(Attribution(made_up(**given)))
        header, arrays = unpack(payload)
        assert len(payload) <= BUDGET
        assert any(pooled in line for line in header["pooled"]), header["pooled"]
        assert arrays["share.map"].shape[0] == header["batch"] == len(header["share"]["text"])

    def test_large_masks(self) -> None:
        """Masks are made coarser before any map is."""
        given = attribution()
        picture = torch.rand(1, 4096, 2048, 3).expand(2, -1, -1, -1)
        mask = torch.zeros(1, 4096, 2048)
        mask[:, 1024:2048] = 1
        header, arrays = unpack(pack_payload(replace(given, image=picture, mask=mask)))
        assert header["pooled"] == ["mask 4096×2048 → 1024×512"]
        assert torch.equal(arrays["mask"][0, :, 0] > 0.5, mask[0, ::4, 0] > 0.5)

    def test_too_many_references(self) -> None:
        made = recording(references=(Grid(1, 2),), batch=1)
        side = Grid(16, 16)
        arrays = {
            "share.step_layer": torch.rand(1, 4, 3, 2 + 400),
            "share.map": torch.rand(1, 2 + 400, 16, 16),
        }
        header = replace(
            made.header,
            generated=Picture(side, (32, 32), "result"),
            references=(Picture(side, (32, 32), "reference"),) * 400,
        )
        with pytest.raises(I2AMError, match="cannot show 400 references"):
            pack_payload(Attribution(Recording(header, arrays)))
