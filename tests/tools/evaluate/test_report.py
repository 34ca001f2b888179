"""A table of results → report and comparison; FID and LPIPS where weights are at hand."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from tools.evaluate.errors import EvaluationError
from tools.evaluate.plan import Pair
from tools.evaluate.report import compare, write_report
from tools.evaluate.report.distances import Distances
from tools.evaluate.report.figures import read_data
from tools.evaluate.results import Results
from tools.evaluate.task import Outcome
from tools.evaluate.worker import pictures

FACTS: dict[str, Any] = {
    "workflow": "workflow.json",
    "pairs": 41,
    "settings": {"comfyui": "0", "pack": "1", "device": "cpu"},
    "table_columns": ["name", "label.stage", "strength", "target"],
    "labels": ["label.stage"],
    "model_columns": [],
    "setting_columns": ["strength"],
    "prefixes": [""],
}


def picture(seed: int, side: int = 16) -> bytes:
    values = np.random.default_rng(seed).integers(0, 255, (side, side, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, "PNG")
    return buffer.getvalue()


def make_results(folder: Path, gain: float = 0.0, prefix: str = "") -> Results:
    """Forty rows in two stages; the second scores 0.3 more, and IMACS follows PSNR."""
    results = Results(folder)
    random = np.random.default_rng(0)
    rows: list[tuple[dict[str, Any], str]] = []
    for number in range(40):
        late, noise = number % 2, float(random.normal())
        figures = {
            f"{prefix}imacs_generated": 0.2 + 0.3 * late + 0.02 * noise + gain,
            f"{prefix}psnr": 20 + 3 * late + noise,
            f"{prefix}share_reference_1": 0.4,
        }
        pair = Pair(number + 1, f"p{number}", f"{number:032x}")
        results.keep(pair, Outcome((figures,), (picture(number),), (picture(number),), 1.0))
        (folder / f"{number}.png").write_bytes(picture(number + 100))
        row = {
            "row": number + 1,
            "name": pair.name,
            "label.stage": ("early", "late")[late],
            "strength": 0.25 * (1 + number % 4),
            "target": f"{number}.png",
        }
        rows.append((row, pair.key))
    results.write_facts(FACTS | {"folder": str(folder), "prefixes": [prefix]})
    results.write_skipped([(41, "p40", "there is no file <x>")])
    results.write_table(iter(rows))
    return results


class TestReport:
    def test_both_files_say_the_same_numbers(self, tmp_path: Path) -> None:
        html, markdown = (path.read_text("utf-8") for path in write_report(make_results(tmp_path)))
        table = pd.read_csv(tmp_path / "results.csv")
        for stage in ("early", "late"):
            rows = table[table["label.stage"] == stage]
            assert f"| {stage} | 20 | {rows['imacs_generated'].mean():.3f} (" in markdown
            assert f"<td>{rows['imacs_generated'].mean():.3f} (" in html
        whole = np.corrcoef(table["imacs_generated"], table["psnr"])[0, 1]
        assert f"| IMACS, result | all rows | {whole:.2f} (" in markdown
        assert html.count("<svg") == 3 == len(list((tmp_path / "plots").iterdir()))
        assert html.count("data:image/jpeg;base64") == 24  # six best and worst of two figures
        assert "there is no file &lt;x&gt;" in html
        assert "No FID and KID" in markdown

    def test_the_same_results_give_the_same_files(self, tmp_path: Path) -> None:
        results = make_results(tmp_path)
        one, other = ([path.read_bytes() for path in write_report(results)] for _ in range(2))
        assert one == other

    def test_groups(self, tmp_path: Path) -> None:
        results = make_results(tmp_path)
        assert read_data(results.table(), FACTS).by == ("label.stage",)
        assert read_data(results.table(), FACTS | {"labels": []}).by == ("strength",)
        by_both = read_data(results.table(), FACTS, ("label.stage", "strength"))
        assert [name for name, _ in by_both.groups()][:2] == ["early · 0.25", "late · 0.5"]
        with pytest.raises(EvaluationError, match="--by names steps, which the results do not"):
            read_data(results.table(), FACTS, ("steps",))

    def test_figures_of_one_of_several_scores(self, tmp_path: Path) -> None:
        _, markdown = write_report(make_results(tmp_path, prefix="robust."))
        assert "robust: IMACS, result ↑" in markdown.read_text("utf-8")

    def test_nothing_measured(self, tmp_path: Path) -> None:
        results = make_results(tmp_path)
        results.write_table(iter([]))
        with pytest.raises(EvaluationError, match="no pair was measured"):
            write_report(results)


class TestComparison:
    def test_rows_are_compared_with_their_like(self, tmp_path: Path) -> None:
        before, after = make_results(tmp_path / "a"), make_results(tmp_path / "b", gain=0.1)
        _, markdown = compare(before, after, tmp_path / "both")
        text = markdown.read_text("utf-8")
        assert "40 of them match" in text
        assert "| 0.100 (0.100 … 0.100) | 100% | 40 |" in text
        assert "| 0.00 | 0% | 40 |" in text  # PSNR did not change

    def test_tables_of_other_pairs(self, tmp_path: Path) -> None:
        before, after = make_results(tmp_path / "a"), make_results(tmp_path / "b")
        table = after.table()
        table["name"] += "x"
        table["target"] += "x"
        table.to_parquet(tmp_path / "b" / "results.parquet")
        with pytest.raises(EvaluationError, match="cannot be told apart"):
            compare(before, after, tmp_path / "both")


class Brightness(torch.nn.Module):
    """A stand-in for Inception, for which FID can be told by hand."""

    num_features = 1

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return 255 * pictures.mean((1, 2, 3))[:, None]


class TestDistances:
    def test_fid_is_that_of_the_pictures(self, tmp_path: Path) -> None:
        results = make_results(tmp_path)
        distances = Distances(
            lambda key, item: results.path("pictures", key, item), tmp_path, Brightness()
        )
        fid, _ = distances.of(results.table())
        means = [
            np.array([np.asarray(Image.open(io.BytesIO(picture(n)))).mean() for n in numbers])
            for numbers in (range(40), range(100, 140))
        ]
        (a, b), (s, t) = ([f(m) for m in means] for f in (np.mean, lambda m: m.std(ddof=1)))
        assert float(fid) == pytest.approx((a - b) ** 2 + (s - t) ** 2, rel=0.01)

    def test_without_weights_it_says_which_file_where(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        distances = Distances(lambda key, item: tmp_path, tmp_path)
        assert distances.of(make_results(tmp_path).table()) == ("–", "–")
        assert f"Put {distances.weights.name}" in distances.note


class TestQuality:
    @pytest.fixture
    def hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
        """An empty folder for weights."""
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        (tmp_path / "checkpoints").mkdir()
        yield tmp_path / "checkpoints"
        pictures._lpips.cache_clear()

    def test_psnr_in_the_mask(self) -> None:
        result = torch.full((16, 16, 3), 0.5)
        target = io.BytesIO()
        Image.new("RGB", (16, 16), (153, 153, 153)).save(target, "PNG")
        mask = torch.zeros(16, 16)
        mask[:4] = 1
        found = pictures.quality(result, target.getvalue(), mask, "")
        error = (153 - 128) / 255  # 0.5 is kept as 128
        assert found["psnr"] == pytest.approx(-20 * np.log10(error), rel=1e-4)
        assert found["psnr_inside"] == pytest.approx(found["psnr"], rel=1e-4)
        assert "lpips" not in found

    def test_a_target_of_another_size(self) -> None:
        with pytest.raises(ValueError, match="the target is 16×16, but the result is 8×8"):
            pictures.quality(torch.zeros(8, 8, 3), picture(1), None, "")

    def test_lpips_with_weights_at_hand(self, hub: Path) -> None:
        from torchvision.models import squeezenet1_1

        assert pictures.lpips_at_hand() == ""
        torch.manual_seed(0)
        torch.save(squeezenet1_1().state_dict(), hub / pictures.LPIPS_WEIGHTS["squeeze"])
        network = pictures.lpips_at_hand()
        assert network == "squeeze"
        data = picture(1, 64)
        same = torch.from_numpy(np.asarray(Image.open(io.BytesIO(data)), np.float32) / 255)
        assert pictures.quality(same, data, None, network)["lpips"] == pytest.approx(0, abs=1e-6)
        assert pictures.quality(same.flip(0), data, None, network)["lpips"] > 0.01
