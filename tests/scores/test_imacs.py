"""IMACS against its closed forms and a second implementation in numpy float64.

The numbers in the names are those of the invariants of the method:
15 resizing, 16 and 17 normalising, 19 closed forms, 20 linearity, 21 what it is blind to.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor

from i2am.errors import I2AMError
from i2am.maps import AttributionMap, Level
from i2am.recording import Definition, Direction
from i2am.scores import Preset, Score, imacs_score, paper_normalise
from i2am.scores.imacs import robust_normalise
from i2am.tokens import Grid, resample, resample_nonnegative

SEEDS = st.integers(0, 10_000)


def rand(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def unified(values: Tensor, grid: Grid | None = None) -> AttributionMap:
    """(height, width) or (batch, height, width) as a map of the unified level."""
    values = values if values.ndim == 3 else values[None]
    grid = grid or Grid(values.shape[1], values.shape[2])
    return AttributionMap(
        values[:, None],
        ("unified",),
        grid,
        Definition.PAPER,
        Direction.REFERENCE_TO_GENERATED,
        Level.UNIFIED,
    )


def left_half(height: int = 12, width: int = 12) -> Tensor:
    mask = torch.zeros(height, width)
    mask[:, : width // 2] = 1
    return mask


def paper_imacs(
    values: NDArray[np.float64],
    grid: Grid,
    mask: NDArray[np.float64],
    penalty: float = 3.0,
    threshold: float = 0.4,
    complement: bool = False,
) -> float:
    """The authors' score for one map, pixel by pixel from its definition."""

    def norm(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return (x - x.min()) / (x.max() - x.min() + 1e-8)

    def kernel(x: float) -> float:
        x, a = abs(x), -0.75
        if x <= 1:
            return (a + 2) * x**3 - (a + 3) * x**2 + 1
        return a * x**3 - 5 * a * x**2 + 8 * a * x - 4 * a if x < 2 else 0.0

    def line(cells: int, covered: float, pixels: int) -> NDArray[np.float64]:
        taps = np.zeros((pixels, cells))
        for pixel in range(pixels):
            at = (pixel + 0.5) * covered / pixels - 0.5
            for tap in range(math.floor(at) - 1, math.floor(at) + 3):
                taps[pixel, min(max(tap, 0), cells - 1)] += kernel(at - tap)
        return taps

    x = norm(values / values.mean())
    down = line(grid.height, grid.covered[0], mask.shape[0])
    x = norm(down @ x @ line(grid.width, grid.covered[1], mask.shape[1]).T)
    x = 1 - x if complement else x
    x = np.where(x > threshold, x, 0.0)
    return float(
        (x * mask).sum() / mask.sum() - penalty * (x * (1 - mask)).sum() / (1 - mask).sum()
    )


class TestPaperNormalise:
    @settings(deadline=None, max_examples=40)
    @given(st.integers(2, 8), st.integers(2, 8), SEEDS)
    def test_15_same_size_is_norm_alone(self, h: int, w: int, seed: int) -> None:
        values = rand(h, w, seed=seed)
        expected = (values - values.min()) / (values.max() - values.min())
        assert torch.allclose(paper_normalise(values, Grid(h, w), (h, w)), expected, atol=1e-5)

    def test_15_constant_maps_resize_to_the_constant(self) -> None:
        values = torch.full((2, 3, 4), 0.3)
        grid = Grid(3, 4, (2.5, 3.25))
        assert torch.allclose(resample(values, grid, (25, 13)), torch.tensor(0.3), atol=1e-6)

    def test_15_clamped_maps_are_not_negative_and_mass_grows_with_area(self) -> None:
        values = rand(6, 6)
        resized = resample_nonnegative(values, Grid(6, 6), (60, 60))
        assert resized.min() >= 0
        assert float(resized.sum() / values.sum()) == pytest.approx(100, rel=0.03)

    @settings(deadline=None, max_examples=40)
    @given(st.integers(2, 8), st.integers(2, 8), st.floats(0.05, 1), SEEDS)
    def test_16_reaches_zero_and_one(self, h: int, w: int, part: float, seed: int) -> None:
        grid = Grid(h, w, (h - 1 + part, w))
        normalised = paper_normalise(rand(h, w, seed=seed), grid, (4 * h, 3 * w))
        assert normalised.min() == 0
        assert float(normalised.max()) == pytest.approx(1, abs=1e-5)

    @settings(deadline=None, max_examples=40)
    @given(st.floats(0.1, 100), st.floats(0, 3), SEEDS)
    def test_16_affine_changes_are_lost(self, a: float, b: float, seed: int) -> None:
        values, grid = rand(5, 6, seed=seed), Grid(5, 6)
        expected = paper_normalise(values, grid, (20, 24))
        assert torch.allclose(
            paper_normalise(a * (values + b), grid, (20, 24)), expected, atol=1e-4
        )

    @settings(deadline=None, max_examples=40)
    @given(SEEDS)
    def test_16_sign_flip_is_the_complement(self, seed: int) -> None:
        values, grid = rand(5, 6, seed=seed), Grid(5, 6)
        expected = 1 - paper_normalise(values, grid, (20, 24))
        assert torch.allclose(paper_normalise(-values, grid, (20, 24)), expected, atol=1e-5)

    @pytest.mark.parametrize("level", [0.0, 1e-7, 1.0])
    @pytest.mark.parametrize("normalise", [paper_normalise, robust_normalise])
    def test_16_constant_maps_are_zero(self, level: float, normalise) -> None:
        normalised = normalise(torch.full((2, 5, 6), level), Grid(5, 6), (20, 24))
        assert torch.equal(normalised, torch.zeros(2, 20, 24))

    @pytest.mark.parametrize("scale", [1e-12, 1e-6, 50.0])
    def test_17_any_positive_scale_is_the_same_map(self, scale: float) -> None:
        values = rand(5, 6)
        expected = paper_normalise(values, Grid(5, 6), (20, 24))
        assert torch.allclose(
            paper_normalise(values * scale, Grid(5, 6), (20, 24)), expected, atol=1e-5
        )

    def test_17_maps_of_a_batch_are_scaled_each_on_its_own(self) -> None:
        values, grid = rand(2, 3, 5, 6), Grid(5, 6)
        values[1] *= 40
        together = paper_normalise(values, grid, (10, 9))
        for n in range(2):
            assert torch.allclose(together[n], paper_normalise(values[n], grid, (10, 9)), atol=1e-6)

    def test_padding_is_cut_before_the_second_norm(self) -> None:
        values = torch.ones(2, 3)
        values[:, 1] = 2
        values[:, 2] = 100  # only its first tenth is inside the picture
        normalised = paper_normalise(values, Grid(2, 3, (2, 2.1)), (20, 21))
        assert float(normalised.max()) == pytest.approx(1, abs=1e-5)
        assert normalised[:, :5].max() < 0.3


class TestImacs:
    @settings(deadline=None, max_examples=60)
    @given(
        st.integers(2, 7),
        st.integers(2, 7),
        st.floats(0.05, 1),
        st.floats(0.05, 1),
        st.integers(0, 20),
        st.floats(0, 5),
        st.floats(0, 0.9),
        st.booleans(),
        SEEDS,
    )
    def test_equals_the_definition(
        self,
        h: int,
        w: int,
        down: float,
        across: float,
        more: int,
        penalty: float,
        threshold: float,
        complement: bool,
        seed: int,
    ) -> None:
        grid = Grid(h, w, (h - 1 + down, w - 1 + across))
        values = rand(h, w, seed=seed).double() * 1e-4
        mask = (rand(h + more, w + 2 * more, seed=seed + 1) > 0.5).double()
        mask[0, 0], mask[-1, -1] = 0, 1
        around = [
            paper_imacs(values.numpy(), grid, mask.numpy(), penalty, cut, complement)
            for cut in (threshold - 1e-5, threshold, threshold + 1e-5)
        ]
        score = imacs_score(
            unified(values, grid), mask, penalty=penalty, threshold=threshold, complement=complement
        )
        # A pixel at the cut, to within rounding, may fall on either side of it.
        assert min(around) - 1e-5 <= float(score.imacs) <= max(around) + 1e-5

    def test_19_a_map_like_the_mask_is_one(self) -> None:
        assert float(imacs_score(unified(left_half()), left_half()).imacs) == pytest.approx(1)

    def test_19_a_map_like_the_rest_is_minus_penalty(self) -> None:
        assert float(imacs_score(unified(1 - left_half()), left_half()).imacs) == pytest.approx(-3)
        score = imacs_score(unified(1 - left_half()), left_half(), penalty=5)
        assert float(score.imacs) == pytest.approx(-5)

    def test_19_a_map_of_one_nearly_everywhere_is_one_minus_penalty(self) -> None:
        values = torch.ones(400, 400)
        values[0, 0] = 0  # min-max needs a low value
        score = imacs_score(unified(values), left_half(400, 400))
        assert float(score.imacs) == pytest.approx(-2, abs=1e-4)

    @pytest.mark.parametrize("preset", Preset)
    @pytest.mark.parametrize("level", [0.0, 1e-6, 7.0])
    def test_19_a_constant_map_is_zero(self, preset: Preset, level: float) -> None:
        score = imacs_score(unified(torch.full((12, 12), level)), left_half(), preset=preset)
        assert float(score.imacs) == 0

    @settings(deadline=None, max_examples=40)
    @given(SEEDS)
    def test_19_an_indicator_is_counted(self, seed: int) -> None:
        chosen = rand(12, 12, seed=seed) > 0.6
        mask = left_half() > 0
        inside = (chosen & mask).sum() / mask.sum()
        outside = (chosen & ~mask).sum() / (~mask).sum()
        score = imacs_score(unified(chosen.float()), mask)
        assert float(score.imacs) == pytest.approx(float(inside - 3 * outside), abs=1e-5)

    def test_19_noise_is_minus_0_84(self) -> None:
        score = imacs_score(unified(rand(600, 600)), left_half(600, 600))
        assert float(score.imacs) == pytest.approx(-0.84, abs=0.01)

    def test_19_the_cut_is_strict(self) -> None:
        values = torch.zeros(12, 12)
        values[0, 0], values[1:, 0] = 1, 0.5
        alone = 1 / 72
        assert float(
            imacs_score(unified(values), left_half(), threshold=0.5).imacs
        ) == pytest.approx(alone)
        kept = imacs_score(unified(values), left_half(), threshold=0.499)
        assert float(kept.imacs) == pytest.approx(alone + 11 * 0.5 / 72, abs=1e-5)

    @settings(deadline=None, max_examples=40)
    @given(st.floats(0, 5), SEEDS, st.sampled_from(Preset), st.booleans())
    def test_20_inside_minus_penalty_times_outside(
        self, penalty: float, seed: int, preset: Preset, complement: bool
    ) -> None:
        map = unified(rand(3, 6, 6, seed=seed))
        score = imacs_score(map, left_half(), preset=preset, penalty=penalty, complement=complement)
        assert torch.allclose(score.imacs, score.inside - penalty * score.outside, atol=1e-6)
        assert (score.imacs >= -penalty - 1e-6).all()
        assert (score.imacs <= 1 + 1e-6).all()
        assert score.imacs.shape == (3,)

    @settings(deadline=None, max_examples=40)
    @given(SEEDS)
    def test_20_swapping_the_sides(self, seed: int) -> None:
        map, mask = unified(rand(6, 6, seed=seed)), left_half()
        score, swapped = imacs_score(map, mask), imacs_score(map, 1 - mask)
        assert torch.allclose(swapped.imacs, score.outside - 3 * score.inside, atol=1e-6)
        even = imacs_score(map, mask, penalty=1).imacs + imacs_score(map, 1 - mask, penalty=1).imacs
        assert float(even) == pytest.approx(0, abs=1e-6)

    def test_20_linear_in_the_map_after_the_cut(self) -> None:
        # Without a cut, two maps that both reach 0 and 1 in the same places add up.
        first, second = rand(12, 12), rand(12, 12, seed=1)
        for values in (first, second):
            values[0, 0], values[5, 5] = 0, 1
        one, two, both = (
            imacs_score(unified(values), left_half(), threshold=-1).imacs
            for values in (first, second, 0.3 * first + 0.7 * second)
        )
        assert torch.allclose(both, 0.3 * one + 0.7 * two, atol=1e-5)

    def test_20_repeating_pixels_changes_nothing(self) -> None:
        values = rand(12, 12)
        large = values.repeat_interleave(3, 0).repeat_interleave(3, 1)
        score = imacs_score(unified(values), left_half())
        assert torch.allclose(
            imacs_score(unified(large), left_half(36, 36)).imacs, score.imacs, atol=1e-5
        )

    @settings(deadline=None, max_examples=40)
    @given(st.floats(1e-9, 1e3), st.floats(0, 3), SEEDS)
    def test_21_affine_changes_are_lost(self, a: float, b: float, seed: int) -> None:
        values = rand(6, 6, seed=seed)
        expected = imacs_score(unified(values), left_half(), threshold=-1).imacs
        changed = imacs_score(unified(a * (values + b)), left_half(), threshold=-1).imacs
        assert torch.allclose(changed, expected, atol=1e-4)

    def test_21_one_outlier_flattens_the_paper_preset_alone(self) -> None:
        values = 0.1 + left_half() + 0.1 * rand(12, 12)
        spoilt = values.clone()
        spoilt[6, 9] *= 100
        paper = imacs_score(unified(spoilt), left_half())
        assert float(paper.inside) == 0
        assert float(paper.outside) == pytest.approx(1 / 72, abs=1e-4)
        clean, robust = (
            float(imacs_score(unified(x), left_half(), preset=Preset.ROBUST).imacs)
            for x in (values, spoilt)
        )
        assert robust == pytest.approx(clean, abs=0.1)

    @pytest.mark.parametrize(("side", "high"), [(2, 1), (6, 1), (20, 3)])
    def test_robust_leaves_out_the_ends(self, side: int, high: int) -> None:
        values = torch.arange(side * side).float().view(side, side)
        normalised = robust_normalise(values, Grid(side, side), (side, side))
        low_cells, high_cells = (normalised == 0).sum(), (normalised > 1 - 1e-6).sum()
        assert low_cells == high_cells
        assert high_cells >= high + 1

    def test_robust_still_sees_a_single_cell(self) -> None:
        values = torch.zeros(12, 12)
        values[3, 3] = 1
        assert float(imacs_score(unified(values), left_half(), preset=Preset.ROBUST).inside) > 0

    @pytest.mark.parametrize("preset", Preset)
    def test_batch_items_do_not_meet(self, preset: Preset) -> None:
        values, masks = rand(3, 6, 6), (rand(3, 24, 24, seed=1) > 0.5).float()
        together = imacs_score(unified(values), masks, preset=preset)
        for n in range(3):
            alone = imacs_score(unified(values[n]), masks[n], preset=preset)
            assert torch.allclose(together.imacs[n], alone.imacs[0])
        shared = imacs_score(unified(values), masks[:1], preset=preset)
        assert torch.allclose(shared.imacs[0], together.imacs[0])

    def test_grey_masks_are_cut_at_one_half(self) -> None:
        map = unified(rand(12, 12))
        grey = torch.where(left_half() > 0, 0.5, 0.49)
        assert torch.equal(imacs_score(map, grey).imacs, imacs_score(map, left_half()).imacs)

    def test_inputs_are_untouched(self) -> None:
        values, mask = rand(1, 6, 6), left_half()
        before = values.clone()
        score = imacs_score(unified(values), mask, complement=True)
        assert torch.equal(values, before)
        assert torch.equal(mask, left_half())
        assert isinstance(score, Score)
        assert score.imacs.dtype == torch.float32


class TestErrors:
    map = unified(rand(2, 6, 6))

    @pytest.mark.parametrize(
        ("mask", "message"),
        [
            (left_half(10, 8), r"reference mask is 8×10 .* picture it belongs to is 12×12.*Resize"),
            (left_half().expand(3, 12, 12), r"reference mask is a batch of 3, .* 2 maps"),
            (torch.zeros(12, 12), r"reference mask is empty: no pixel"),
            (torch.ones(12, 12), r"reference mask is full: all pixels"),
            (torch.stack((left_half(), torch.ones(12, 12))), r"reference mask number 2 is full"),
            (left_half().where(left_half() > 0, torch.nan), r"not a number in 72 of its 144"),
            (torch.zeros(1, 12, 12, 3), r"reference mask must have the shape .*\(1, 12, 12, 3\)"),
        ],
    )
    def test_bad_masks_are_named(self, mask: Tensor, message: str) -> None:
        with pytest.raises(I2AMError, match=message):
            imacs_score(self.map, mask, size=(12, 12), name="reference mask")

    def test_one_map_only(self) -> None:
        values = rand(1, 4, 6, 6)
        labels, paper = ("a", "b", "c", "d"), Definition.PAPER
        direction = Direction.REFERENCE_TO_GENERATED
        map = AttributionMap(values, labels, Grid(6, 6), paper, direction, Level.HEAD)
        with pytest.raises(I2AMError, match=r"at the head level there are 4\. Choose the unified"):
            imacs_score(map, left_half())


class TestBesideTheScore:
    """Share inside, area and entropy: from the raw map, whatever the preset."""

    def score(self, values: Tensor, mask: Tensor, **options: object) -> Score:
        return imacs_score(unified(values), mask, **options)  # type: ignore[arg-type]

    def test_an_even_map_has_the_share_of_the_area(self) -> None:
        mask = left_half()
        mask[:, 3:] = 0
        found = self.score(torch.ones(12, 12), mask)
        assert float(found.share_inside) == pytest.approx(0.25)
        assert float(found.area) == pytest.approx(0.25)
        assert float(found.entropy) == pytest.approx(1)

    def test_one_cell_has_no_entropy(self) -> None:
        values = torch.zeros(4, 4)
        values[1, 1] = 5
        found = self.score(values, left_half(4, 4))
        assert float(found.entropy) == pytest.approx(0, abs=1e-6)
        assert float(found.share_inside) == pytest.approx(1)

    def test_n_equal_cells(self) -> None:
        values = torch.zeros(4, 4)
        values[0] = 1
        assert float(self.score(values, left_half(4, 4)).entropy) == pytest.approx(0.5)

    def test_a_cell_counts_as_far_as_the_mask_covers_it(self) -> None:
        """Cells of four pixels; the mask covers a quarter of the first one."""
        mask = torch.zeros(8, 8)
        mask[:2, :2] = 1
        found = self.score(torch.tensor([[3.0, 1.0], [1.0, 1.0]]), mask)
        assert float(found.share_inside) == pytest.approx(3 / 4 / 6)

    @given(SEEDS)
    @settings(max_examples=20)
    def test_no_setting_changes_them(self, seed: int) -> None:
        values = rand(2, 5, 6, seed=seed)
        plain = self.score(values, left_half(5, 6))
        other = self.score(
            values * 3, left_half(5, 6), preset=Preset.ROBUST, penalty=1.0, complement=True
        )
        for name in ("share_inside", "area", "entropy"):
            assert torch.allclose(getattr(plain, name), getattr(other, name), atol=1e-6)
            assert getattr(plain, name).shape == (2,)

    def test_nothing_has_neither(self) -> None:
        found = self.score(torch.zeros(4, 4), left_half(4, 4))
        assert bool(found.entropy.isnan())
        assert bool(found.share_inside.isnan())
