"""The arithmetic of the fidelity study, on maps and pictures whose answers are known."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import pytest
import scipy.stats
import torch
from PIL import Image
from skimage.metrics import structural_similarity

from tools.fidelity.causal import mixed
from tools.fidelity.errors import ERRORS, SSIM_RADIUS, decibels, structural
from tools.fidelity.imacs import blurred
from tools.fidelity.report import Series, Table, plot, replaced
from tools.fidelity.statistics import (
    Estimate,
    area_under,
    bootstrap,
    correlation_of_means,
    correlation_of_samples,
    mass,
    mean_of,
    pearson,
    pointing,
    ranks,
    ratio_of,
    spearman,
)


def rand(seed: int, *shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_mass_is_the_part_inside():
    maps = torch.tensor([[1.0, 2.0, 5.0], [0.0, 4.0, 4.0]])
    where = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    assert mass(maps, where).tolist() == [0.375, 0.5]


def test_pointing_asks_for_the_highest_cell_alone():
    maps = torch.tensor([[1.0, 2.0, 5.0], [9.0, 4.0, 4.0]])
    where = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
    assert pointing(maps, where).tolist() == [0.0, 1.0]


def test_equal_values_share_their_ranks():
    assert ranks(torch.tensor([3.0, 1.0, 3.0, 7.0])).tolist() == [1.5, 0.0, 1.5, 3.0]


@pytest.mark.parametrize("seed", range(4))
def test_correlations_are_those_of_scipy(seed: int):
    x, y = (rand(seed, 2, 40) * 10).round()  # with ties
    assert float(pearson(x, y)) == pytest.approx(scipy.stats.pearsonr(x, y)[0])
    assert float(spearman(x, y)) == pytest.approx(scipy.stats.spearmanr(x, y)[0])


def test_correlation_with_a_constant_is_no_number_and_no_estimate():
    assert pearson(torch.ones(5), rand(0, 5)).isnan()
    with pytest.raises(ValueError, match="not a number"):
        mean_of(torch.tensor([0.5, math.nan]))


def test_interval_of_a_mean_is_that_of_its_spread():
    values = torch.randn(400, generator=torch.Generator().manual_seed(1))
    found = mean_of(values)
    error = float(values.std()) / 20
    assert found.value == pytest.approx(float(values.mean()), abs=1e-6)
    assert found.high - found.value == pytest.approx(1.96 * error, rel=0.15)
    assert found.value - found.low == pytest.approx(1.96 * error, rel=0.15)


def test_intervals_are_the_same_every_time():
    values = rand(3, 20)
    assert mean_of(values) == mean_of(values)
    first, other = (bootstrap(20, lambda n: float(values[n].mean()), seed) for seed in (0, 1))
    assert first != other


def test_ratio_weighs_tokens_and_draws_scenes():
    found = ratio_of(torch.tensor([10, 0]), torch.tensor([10, 30]))
    assert found == Estimate(0.25, 0.0, 1.0)


def test_correlation_of_means_and_of_samples_differ_where_scenes_hide_the_trend():
    levels = torch.linspace(0, 1, 6)[:, None]
    scenes = torch.linspace(-50, 50, 30)[None]
    x, y = levels + scenes, -levels + scenes
    assert correlation_of_means(x, y, pearson).value == pytest.approx(-1)
    assert correlation_of_samples(x, y, pearson).value > 0.99


def test_area_under_a_line():
    parts = torch.tensor([0.0, 0.25, 1.0])
    assert float(area_under(parts, parts)) == pytest.approx(0.5)
    assert float(area_under(parts, torch.tensor([0.0, 1.0, 1.0]))) == pytest.approx(0.875)


@pytest.mark.parametrize("name", ERRORS)
def test_errors_are_nothing_where_equal_and_grow(name: str):
    truth, noise = rand(1, 2, 32, 32, 3), torch.randn(2, 32, 32, 3) * 0.1
    mask = torch.ones(2, 32, 32)
    found = [ERRORS[name]((truth + s * noise), truth, mask) for s in (0.0, 1.0, 3.0)]
    assert found[0].abs().max() < 1e-5
    assert (found[1] > found[0] + 1e-4).all()
    assert (found[2] > found[1]).all()


@pytest.mark.parametrize("name", ERRORS)
def test_errors_far_from_the_mask_do_not_count(name: str):
    truth, mask = rand(1, 1, 64, 64, 3), torch.zeros(1, 64, 64)
    mask[:, :16, :16] = 1
    other = truth.clone()
    other[:, 40:, 40:] = 0
    assert float(ERRORS[name](other, truth, mask)) < 1e-5


def test_decibels_of_a_known_error():
    truth, mask = torch.zeros(2, 8, 8, 3), torch.ones(2, 8, 8)
    found = torch.stack((truth[0] + 0.1, truth[1] + 0.01))
    assert decibels(found, truth, mask).tolist() == pytest.approx([20.0, 40.0])


def test_estimates_are_written_with_as_many_digits_as_asked():
    assert str(Estimate(-0.125, -0.5, 0.25)) == "−0.12 (−0.50 to 0.25)"
    assert f"{Estimate(25.26, 24.0, 26.54):.1f}" == "25.3 (24.0 to 26.5)"


def test_similarity_is_that_of_scikit_image():
    truth, found = rand(1, 1, 48, 48, 3), rand(2, 1, 48, 48, 3) * 0.5
    scores = structural_similarity(
        *(picture[0].numpy() for picture in (truth, found)),
        gaussian_weights=True,
        use_sample_covariance=False,
        sigma=1.5,
        data_range=1.0,
        channel_axis=-1,
        full=True,
    )
    inside = torch.zeros(1, 48, 48)
    edge = 2 * SSIM_RADIUS
    inside[:, edge:-edge, edge:-edge] = 1
    mean = scores[-1][edge:-edge, edge:-edge].mean()
    assert float(structural(found, truth, inside)) == pytest.approx(1 - mean, abs=1e-4)


def test_blur_keeps_flat_pictures_and_the_mean_slope():
    flat = torch.full((1, 32, 32, 3), 0.3)
    assert torch.allclose(blurred(flat, 2.0), flat, atol=1e-6)
    picture = rand(1, 1, 32, 32, 3)
    assert torch.equal(blurred(picture, 0), picture)
    assert float(blurred(picture, 2.0).std()) < 0.3 * float(picture.std())


def test_the_cascade_randomises_blocks_from_the_last_one_on():
    names = ["single_blocks.1.w", "single_blocks.0.w", "double_blocks.0.w", "img_in.w"]
    trained = {name: torch.zeros(1) for name in names}
    fresh = {name: torch.ones(1) for name in names}
    backwards = ["single 1", "single 0", "double 0"]
    for count in range(len(backwards) + 1):
        new = [name for name, value in mixed(trained, fresh, backwards[:count]).items() if value]
        assert new == names[:count]


def test_tables_take_their_places_in_a_document():
    text = "a\n<!-- table one -->\nold | old\n<!-- end -->\nb\n<!-- table two -->\n<!-- end -->\n"
    found = replaced(text, [Table("one", ("x", "y"), [("1", r"\2")], "Note.")])
    assert "old" not in found
    assert "| x | y |\n| --- | --- |\n| 1 | \\2 |\n\nNote." in found
    assert found.startswith("a\n")
    assert found.endswith("b\n<!-- table two -->\n<!-- end -->\n")
    assert replaced(found, [Table("one", ("x", "y"), [("1", r"\2")], "Note.")]) == found
    with pytest.raises(ValueError, match="0 places for the table three"):
        replaced(text, [Table("three", ("x",), [])])


def test_a_plot_draws_its_points_where_they_are(tmp_path: Path):
    points = [(0.0, 0.0), (1.0, 1.0)]
    plot(tmp_path / "p.png", "t", "x", "y", [Series("rising", points, joined=False)])
    with Image.open(tmp_path / "p.png") as picture:
        colour = (0x1B, 0x6C, 0xA8)
        pixels = picture.convert("RGB").load()
        assert pixels is not None
        found = [(x, y) for x in range(900) for y in range(60, 550) if pixels[x, y] == colour]
    left, right = min(found), max(found)
    assert left[0] < 150
    assert left[1] > 420 > 120 > right[1]
    assert right[0] > 800


@pytest.mark.parametrize(
    "name",
    [
        *("layers-plain", "layers-everything", "steps-plain", "steps-everything", "recipes"),
        *("recipes-causal", "occlusion", "occlusion-pairs", "curves", "sanity", "imacs-training"),
        *("imacs-degraded", "imacs-levels", "imacs-clean", "trainings", "budgets"),
    ],
)
def test_the_document_holds_its_tables(name: str):
    text = (Path(__file__).parents[3] / "docs" / "fidelity.md").read_text("utf-8")
    table = text.split(f"<!-- table {name} -->")[1].split("<!-- end -->")[0]
    assert table.count("\n|") >= 4


def test_the_command_measures_and_prints_its_tables():
    command = [sys.executable, "-m", "tools.fidelity", "--scenes", "1", "--parts", "known,maps"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "| effect, all layers: " in run.stdout
    assert "corr_within1" in run.stdout
