"""Masks against their definitions, on maps with a known answer."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from unified_maps import rand, unified

from i2am.errors import I2AMError
from i2am.maps import AttributionMap
from i2am.scores import Method, feather, grow, mask_of

SEEDS = st.integers(0, 10_000)


def square(height: int = 16, width: int = 12) -> Tensor:
    values = torch.full((height, width), 0.1)
    values[4:9, 3:8] = 0.9
    return values


class TestMethods:
    @pytest.mark.parametrize("method", [Method.OTSU, Method.THRESHOLD])
    def test_two_levels_are_parted(self, method: Method) -> None:
        mask = mask_of(unified(square()), (16, 12), method)
        assert torch.equal(mask[0], (square() > 0.5).float())

    @given(SEEDS, st.floats(0, 100))
    def test_threshold_is_a_way_between_lowest_and_highest(self, seed: int, percent: float) -> None:
        values = rand(7, 5, seed=seed)
        low, high = values.min(), values.max()
        mask = mask_of(unified(values), (7, 5), Method.THRESHOLD, percent)[0]
        way = (values - low) / (high - low)
        clear = (way - percent / 100).abs() > 1e-5
        assert torch.equal(mask[clear] > 0, (way >= percent / 100)[clear])

    @given(SEEDS, st.integers(1, 35))
    def test_top_percent_is_of_the_picture(self, seed: int, count: int) -> None:
        values = rand(7, 5, seed=seed)
        mask = mask_of(unified(values), (7, 5), Method.TOP, 100 * count / 35)[0]
        assert int(mask.sum()) == count
        assert values[mask > 0].min() > values[mask == 0].max() if count < 35 else True

    @given(SEEDS, st.floats(1, 99))
    def test_area_is_the_smallest_that_holds_so_much(self, seed: int, percent: float) -> None:
        values = rand(6, 6, seed=seed)
        mask = mask_of(unified(values), (6, 6), Method.AREA, percent)[0] > 0
        part = percent / 100 * float(values.sum())
        held = values[mask].sort().values
        assert float(held.sum()) >= part * (1 - 1e-5)
        assert float(held[1:].sum()) < part * (1 + 1e-5)  # one place fewer is not enough
        assert held[0] >= values[~mask].max() if (~mask).any() else True

    def test_otsu_against_every_cut(self) -> None:
        """Of all cuts between two values, the chosen one has the highest between-class variance."""
        values = torch.cat((rand(300, seed=1) * 0.4, 0.5 + rand(100, seed=2) * 0.5)).view(20, 20)
        mask = mask_of(unified(values), (20, 20), Method.OTSU)[0] > 0

        def variance(above: Tensor) -> float:
            one, two = values[above].double(), values[~above].double()
            return float(len(one) * len(two) * (one.mean() - two.mean()) ** 2)

        best = max(variance(values >= cut) for cut in values.unique()[1:])
        assert variance(mask) == pytest.approx(best, rel=1e-3)

    def test_each_picture_has_its_own_cut(self) -> None:
        values = torch.stack((square(), 100 * square().flip(0)))
        mask = mask_of(unified(values), (16, 12))
        assert torch.equal(mask[1], mask[0].flip(0))

    def test_the_size_of_the_picture(self) -> None:
        mask = mask_of(unified(square()), (64, 48))
        assert mask.shape == (1, 64, 48)
        assert float(mask.mean()) == pytest.approx(25 / (16 * 12), rel=0.1)

    @pytest.mark.parametrize("method", list(Method))
    def test_a_flat_map_has_no_mask(self, method: Method) -> None:
        values = torch.stack((square(), torch.full((16, 12), 0.3) + 1e-6 * rand(16, 12)))
        with pytest.raises(I2AMError, match="picture 2 is the same everywhere"):
            mask_of(unified(values), (16, 12), method)
        with pytest.raises(I2AMError, match="same everywhere"):
            mask_of(unified(torch.zeros(3, 3)), (3, 3), method)

    def test_several_maps_are_refused(self) -> None:
        map = unified(square())
        several = AttributionMap(
            map.values.repeat(1, 2, 1, 1), ("a", "b"), *list(vars(map).values())[2:]
        )
        with pytest.raises(I2AMError, match="there are 2"):
            mask_of(several, (16, 12))


class TestEdges:
    def test_growing_a_rectangle(self) -> None:
        mask = torch.zeros(1, 12, 10)
        mask[:, 4:7, 3:5] = 1
        grown = torch.zeros(1, 12, 10)
        grown[:, 2:9, 1:7] = 1
        assert torch.equal(grow(mask, 2), grown)
        assert torch.equal(grow(grown, -2), mask)
        assert torch.equal(grow(mask, 0), mask)

    @given(SEEDS, st.integers(1, 4))
    def test_growing_never_loses_and_shrinking_never_adds(self, seed: int, pixels: int) -> None:
        mask = (rand(1, 9, 8, seed=seed) > 0.7).float()
        assert bool((grow(mask, pixels) >= mask).all())
        assert bool((grow(mask, -pixels) <= mask).all())
        assert torch.equal(grow(1 - mask, pixels), 1 - grow(mask, -pixels))

    def test_the_border_of_the_picture_is_no_edge(self) -> None:
        full = torch.ones(1, 5, 6)
        assert torch.equal(grow(full, -2), full)
        assert torch.allclose(feather(full, 9.0), full)

    def test_feathering_is_half_at_the_edge_and_fades_over_its_width(self) -> None:
        mask = torch.zeros(1, 40, 60)
        mask[:, :, 30:] = 1
        line = feather(mask, 12.0)[0, 20]
        assert bool((line.diff() >= 0).all())
        assert float(line[29] + line[30]) == pytest.approx(1, abs=1e-4)
        assert float(line[23]) < 0.08
        assert float(line[36]) > 0.92
        assert torch.equal(feather(mask, 0), mask)

    def test_feathering_both_ways_alike(self) -> None:
        mask = (rand(2, 17, 17) > 0.5).float()
        assert torch.allclose(feather(mask.mT, 5.0), feather(mask, 5.0).mT, atol=1e-6)
