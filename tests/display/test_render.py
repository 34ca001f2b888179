"""Resizing against torch's own bicubic and brute force, and pictures against closed forms."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from i2am.display import Colormap, Scale, contact_sheet, heatmap, legend, overlay, paint
from i2am.display.colormaps import table
from i2am.display.render import ABSOLUTE_HIGH, normalise, value_range
from i2am.maps import AttributionMap, Level, caption, display_values, unit
from i2am.recording import Definition, Direction
from i2am.tokens import Grid, resample, resample_nonnegative

R2G, G2R = Direction.REFERENCE_TO_GENERATED, Direction.GENERATED_TO_REFERENCE


def attribution_map(
    values: Tensor,
    definition: Definition = Definition.PAPER,
    direction: Direction = R2G,
    level: Level = Level.TIME,
) -> AttributionMap:
    labels = tuple(str(n) for n in range(values.shape[1]))
    grid = Grid(values.shape[2], values.shape[3])
    return AttributionMap(values, labels, grid, definition, direction, level)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


class TestResize:
    @settings(deadline=None, max_examples=60)
    @given(
        st.integers(1, 9), st.integers(1, 9), st.integers(0, 40), st.integers(0, 40), st.integers()
    )
    def test_whole_grids_are_torch_bicubic(
        self, h: int, w: int, more: int, wider: int, seed: int
    ) -> None:
        values, size = rand(2, 3, h, w, seed=seed % 1000), (h + more, w + wider)
        expected = F.interpolate(values, size=size, mode="bicubic")
        grid = Grid(h, w)
        assert torch.allclose(resample(values, grid, size), expected, atol=2e-6)
        assert torch.allclose(
            resample_nonnegative(values, grid, size), expected.clamp(min=0), atol=2e-6
        )

    @pytest.mark.parametrize(("height", "width"), [(520, 512), (8, 24), (9, 17), (130, 70)])
    def test_padding_is_cut_off(self, height: int, width: int) -> None:
        cell = 8
        h, w = -(-height // cell), -(-width // cell)
        grid = Grid(h, w, (height / cell, width / cell))
        values = rand(1, 1, h, w)
        padded = F.interpolate(values, size=(h * cell, w * cell), mode="bicubic")
        expected = padded[..., :height, :width]
        assert torch.allclose(resample(values, grid, (height, width)), expected, atol=2e-6)

    def test_padding_is_cut_off_between_pixels(self) -> None:
        # 2.5 cells over 10 pixels is 3 cells over 12, the last 2 are cut off.
        values = rand(1, 1, 3, 2)
        expected = F.interpolate(values, size=(12, 7), mode="bicubic")[..., :10, :]
        assert torch.allclose(resample(values, Grid(3, 2, (2.5, 2)), (10, 7)), expected, atol=2e-6)

    @settings(deadline=None, max_examples=60)
    @given(
        st.integers(1, 40), st.integers(1, 60), st.floats(0.01, 1), st.floats(1e-7, 1e3), st.data()
    )
    def test_constant_stays_constant(
        self, cells: int, pixels: int, part: float, level: float, data: st.DataObject
    ) -> None:
        grid = Grid(cells, 2, (cells - 1 + part, 2))
        width = data.draw(st.integers(1, 9))
        resized = resample_nonnegative(torch.full((1, cells, 2), level), grid, (pixels, width))
        assert torch.allclose(resized, torch.tensor(level), rtol=1e-5, atol=0)

    def test_same_size_is_identity(self) -> None:
        values = rand(2, 5, 7)
        assert torch.allclose(resample_nonnegative(values, Grid(5, 7), (5, 7)), values, atol=1e-6)

    def test_never_negative(self) -> None:
        spike = torch.zeros(1, 9, 9)
        spike[0, 4, 4] = 1
        assert resample(spike, Grid(9, 9), (90, 90)).min() < 0
        assert resample_nonnegative(spike, Grid(9, 9), (90, 90)).min() == 0

    @pytest.mark.parametrize(
        ("cells", "covered", "pixels"), [(9, 9.0, 3), (10, 9.5, 4), (33, 32.5, 13), (2, 2.0, 1)]
    )
    def test_small_pictures_average_what_lies_under_a_pixel(
        self, cells: int, covered: float, pixels: int
    ) -> None:
        values = rand(cells, cells).double()
        fine = 520  # samples for each pixel: enough for every edge to fall between two
        at = ((torch.arange(pixels * fine) + 0.5) * covered / (pixels * fine)).long()
        expected = values[at][:, at].unflatten(0, (pixels, fine)).unflatten(2, (pixels, fine))
        expected = expected.mean((1, 3)).float()
        resized = resample_nonnegative(
            values, Grid(cells, cells, (covered, covered)), (pixels, pixels)
        )
        assert torch.allclose(resized, expected, atol=1e-3)

    def test_one_side_can_shrink_while_the_other_grows(self) -> None:
        values = rand(1, 1, 8, 2)
        shrunk = F.avg_pool2d(values, (2, 1))
        expected = resample(shrunk, Grid(4, 2), (4, 12))
        assert torch.allclose(resample(values, Grid(8, 2), (4, 12)), expected, atol=1e-6)


class TestValues:
    @pytest.mark.parametrize(
        ("definition", "direction"),
        [(Definition.PAPER, R2G), (Definition.PAPER, G2R), (Definition.MODEL, G2R)],
    )
    def test_even_spread_is_one(self, definition: Definition, direction: Direction) -> None:
        mass = 0.2 if definition is Definition.MODEL else 1.0
        map = attribution_map(torch.full((2, 3, 4, 5), mass / 20), definition, direction)
        assert torch.allclose(display_values(map), torch.ones(2, 3, 4, 5))
        assert unit(map) == "×"

    def test_paper_maps_are_multiples_of_even(self) -> None:
        values = rand(2, 1, 4, 5)
        values = values / values.sum((2, 3), keepdim=True)
        assert torch.allclose(display_values(attribution_map(values)), values * 20)

    def test_model_maps_over_the_reference_keep_their_proportions(self) -> None:
        values = torch.full((1, 2, 2, 2), 0.1)
        values[0, 1] = 0.3  # this step has three times as much attention
        shown = display_values(attribution_map(values, Definition.MODEL, G2R))
        assert torch.allclose(shown[0, :, 0, 0], torch.tensor([0.5, 1.5]))

    def test_model_maps_over_the_result_are_shares(self) -> None:
        shares = rand(2, 3, 4, 5)
        map = attribution_map(shares / 20, Definition.MODEL, R2G)
        assert torch.allclose(display_values(map), shares)
        assert unit(map) == "%"

    def test_nothing_stays_nothing(self) -> None:
        for definition in Definition:
            map = attribution_map(torch.zeros(1, 1, 2, 2), definition, G2R)
            assert torch.equal(display_values(map), torch.zeros(1, 1, 2, 2))

    def test_captions_name_the_definition(self) -> None:
        map = attribution_map(torch.ones(1, 1, 2, 2), Definition.MODEL, R2G, Level.UNIFIED)
        assert caption(map) == "R2G · model · unified"
        assert caption(attribution_map(map.values, direction=G2R)) == "G2R · paper · time"


class TestRange:
    values = torch.tensor([[1.0, 3.0], [2.0, 6.0]]).view(1, 2, 1, 2)

    def test_per_map(self) -> None:
        low, high = value_range(self.values, Scale.PER_MAP, attribution_map(self.values))
        assert low.tolist() == [[1, 2]]
        assert high.tolist() == [[3, 6]]
        shown = normalise(self.values, low, high)
        assert shown.flatten().tolist() == [0, 1, 0, 1]

    def test_shared(self) -> None:
        low, high = value_range(self.values, Scale.SHARED, attribution_map(self.values))
        assert low.tolist() == [[1, 1]]
        assert high.tolist() == [[6, 6]]
        assert normalise(self.values, low, high)[0, 0, 0].tolist() == pytest.approx([0, 0.4])

    @pytest.mark.parametrize("definition", Definition)
    @pytest.mark.parametrize("direction", Direction)
    def test_absolute(self, definition: Definition, direction: Direction) -> None:
        map = attribution_map(self.values, definition, direction)
        low, high = value_range(self.values, Scale.ABSOLUTE, map)
        top = 1.0 if (definition, direction) == (Definition.MODEL, R2G) else ABSOLUTE_HIGH
        assert low.tolist() == [[0, 0]]
        assert high.tolist() == [[top, top]]

    def test_values_beyond_the_range_are_clamped(self) -> None:
        values = torch.tensor([[-1.0, 0.5, 9.0]])
        shown = normalise(values, torch.tensor(0.0), torch.tensor(1.0))
        assert shown.tolist() == [[0, 0.5, 1]]

    @pytest.mark.parametrize("level", [0.0, 1e-6, 1.0, 300.0])
    def test_flat_maps_are_drawn_as_low(self, level: float) -> None:
        values = level * (1 + 1e-5 * rand(1, 1, 8, 8))
        low, high = value_range(values, Scale.PER_MAP, attribution_map(values))
        assert torch.equal(normalise(values, low, high), torch.zeros(1, 1, 8, 8))

    def test_faint_maps_are_not_flat(self) -> None:
        values = 1e-9 * rand(1, 1, 8, 8)
        low, high = value_range(values, Scale.PER_MAP, attribution_map(values))
        assert normalise(values, low, high).max() == 1


class TestOverlay:
    image = rand(2, 6, 5, 3)
    values = rand(2, 6, 5, seed=1)

    @pytest.mark.parametrize("colormap", Colormap)
    def test_no_opacity_is_the_picture(self, colormap: Colormap) -> None:
        assert torch.equal(overlay(self.image, self.values, colormap, 0), self.image)

    @pytest.mark.parametrize("colormap", Colormap)
    def test_full_opacity_is_the_colour_at_one(self, colormap: Colormap) -> None:
        full = overlay(self.image, torch.ones(2, 6, 5), colormap, 1)
        assert torch.allclose(full, table(colormap)[-1].expand(2, 6, 5, 3))

    @settings(deadline=None, max_examples=30)
    @given(st.floats(0, 1), st.sampled_from(Colormap))
    def test_stays_a_picture(self, opacity: float, colormap: Colormap) -> None:
        laid = overlay(self.image, self.values, colormap, opacity)
        assert laid.shape == self.image.shape
        assert laid.dtype == torch.float32
        assert laid.min() >= 0
        assert laid.max() <= 1 + 1e-6

    def test_the_picture_stays_readable_where_the_map_is_low(self) -> None:
        grey = torch.linspace(0, 1, 5)[None, None, :, None].expand(1, 1, 5, 3)
        low = overlay(grey, torch.zeros(1, 1, 5), Colormap.VIRIDIS, 1)
        assert low[0, 0, :, 0].diff().min() > 0.6 * 0.25

    def test_inputs_are_untouched(self) -> None:
        image, values = self.image.clone(), self.values.clone()
        overlay(image, values, Colormap.JET, 0.7)
        legend(image, torch.zeros(2), torch.ones(2), Colormap.JET, "R2G", "%")
        assert torch.equal(image, self.image)
        assert torch.equal(values, self.values)

    def test_heatmap_is_the_table(self) -> None:
        assert torch.equal(
            heatmap(torch.ones(1, 2, 2), Colormap.JET)[0, 0, 0], table(Colormap.JET)[-1]
        )


class TestLegend:
    @pytest.mark.parametrize(
        ("height", "width"),
        [(16, 16), (128, 128), (160, 160), (2000, 200), (640, 1536), (64, 4096)],
    )
    @pytest.mark.parametrize("text", ["", "R2G · model · unified", "a very long caption " * 20])
    def test_keeps_the_picture_and_adds_a_strip(self, height: int, width: int, text: str) -> None:
        image = rand(2, height, width, 3)
        low, high = torch.tensor([0.0, 0.001]), torch.tensor([1.0, 1234.5])
        whole = legend(image, low, high, Colormap.MAGMA, text, "×")
        assert whole.shape[0] == 2
        assert whole.shape[2:] == (width, 3)
        assert whole.dtype == torch.float32
        assert torch.equal(whole[:, :height], image)
        assert 9 < whole.shape[1] - height < max(60, height)

    @pytest.mark.parametrize("width", [128, 512, 4096])
    @pytest.mark.parametrize("colormap", [Colormap.VIRIDIS, Colormap.TURBO])
    def test_shows_the_bar(self, width: int, colormap: Colormap) -> None:
        whole = legend(
            torch.zeros(1, 128, width, 3), torch.zeros(1), torch.ones(1), colormap, "R2G", "×"
        )
        strip = whole[0, 128:].flatten(0, 1)
        for entry in (0, 128, 255):
            distance = (strip - table(colormap)[entry]).abs().amax(-1)
            assert distance.min() < 0.06

    def test_numbers_tell_ranges_apart(self) -> None:
        strips = [
            legend(
                torch.zeros(1, 8, 128, 3),
                torch.zeros(1),
                torch.tensor([high]),
                Colormap.GREY,
                "",
                u,
            )
            for high, u in ((1.0, "×"), (2.0, "×"), (1.0, "%"), (0.00004, "%"))
        ]
        assert len({strip.numpy().tobytes() for strip in strips}) == 4

    def test_narrow_pictures_have_no_caption(self) -> None:
        image, ends = torch.zeros(1, 128, 128, 3), (torch.zeros(1), torch.ones(1))
        bare = legend(image, *ends, Colormap.GREY, "", "×")
        assert legend(image, *ends, Colormap.GREY, "R2G · model · unified", "×").shape == bare.shape

    def test_scales_with_the_picture(self) -> None:
        strips = [
            legend(
                torch.zeros(1, n, n, 3), torch.zeros(1), torch.ones(1), Colormap.GREY, "R2G", "×"
            ).shape[1]
            - n
            for n in (128, 512, 2048, 4096)
        ]
        assert strips == sorted(set(strips))


class TestContactSheet:
    @pytest.mark.parametrize("maps", [1, 2, 5, 8, 24, 57])
    def test_holds_every_map_once(self, maps: int) -> None:
        height, width = 16, 24
        marks = torch.arange(1, maps + 1) / (maps + 1)
        images = marks[None, :, None, None, None].expand(2, maps, height, width, 3).clone()
        images[..., 0] = 1  # a red that no label has
        sheet = contact_sheet(images, [f"double {n}" for n in range(maps)])
        for mark in marks:
            color = torch.stack([torch.tensor(1.0), mark, mark])
            assert ((sheet[0] - color).abs().amax(-1) < 1e-6).sum() == height * width
        assert torch.equal(sheet[0], sheet[1])

    def test_reads_row_by_row(self) -> None:
        images = (torch.arange(6) / 10)[None, :, None, None, None].expand(1, 6, 32, 32, 3).clone()
        images[..., 1] = 1
        sheet = contact_sheet(images, "abcdef", columns=3)[0]
        found = [
            (((sheet[..., 1] == 1) & (sheet[..., 0] == n / 10)).nonzero()[0]).tolist()
            for n in range(6)
        ]
        assert found == sorted(found)
        assert len({y for y, _ in found}) == 2
        assert len({x for _, x in found}) == 3

    def test_chooses_a_sheet_near_four_to_three(self) -> None:
        sheet = contact_sheet(torch.zeros(1, 24, 64, 64, 3), ["x"] * 24)
        assert 1 < sheet.shape[2] / sheet.shape[1] < 1.8

    def test_labels_differ(self) -> None:
        images = torch.zeros(1, 2, 64, 64, 3)
        first, second = (contact_sheet(images, labels) for labels in (("a", "b"), ("a", "c")))
        assert not torch.equal(first, second)

    def test_every_map_needs_a_label(self) -> None:
        with pytest.raises(ValueError, match="zip"):
            contact_sheet(torch.zeros(1, 2, 8, 8, 3), ["one"])


def test_the_papers_scale_and_its_complement() -> None:
    """Min-max on the map's own grid, then the cut; the complement is taken before the cut."""
    map = attribution_map(torch.tensor([[[[0.0, 1.0], [2.0, 4.0]]]]))
    plain, turned = (paint(map, s, (2, 2)) for s in (Scale.PAPER, Scale.PAPER_COMPLEMENT))
    close = {"atol": 1e-5, "rtol": 0}
    torch.testing.assert_close(plain.values[0, 0], torch.tensor([[0.0, 0.0], [0.5, 1.0]]), **close)
    torch.testing.assert_close(turned.values[0, 0], torch.tensor([[1, 0.75], [0.5, 0.0]]), **close)
    assert (plain.unit, turned.words) == ("", "complement, min-max, cut at 0.4")
    assert (float(plain.low), float(plain.high)) == (0.0, 1.0)
