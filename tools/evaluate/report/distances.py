"""FID and KID of a set of results against their targets, by torchmetrics.

They need the Inception weights of torch-fidelity. Nothing is downloaded: if the file is missing,
the report says so and where to put it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..plan.table import TARGET
from ..worker.pictures import weights_folder

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
FEW = 2048  # pictures: with fewer, FID mostly measures their number
SUBSET, SUBSETS = 50, 100  # of KID
BATCH = 16


@dataclass(frozen=True)
class Distances:
    """How FID and KID are computed. picture: a key and an item → the file of a result.

    extractor: what turns pictures into features, instead of Inception; for tests.
    """

    picture: Callable[[str, int], Path]
    folder: Path  # of the table: where targets are
    extractor: Any = None

    @property
    def weights(self) -> Path:
        return weights_folder() / WEIGHTS

    @property
    def at_hand(self) -> bool:
        return self.extractor is not None or self.weights.is_file()

    @property
    def note(self) -> str:
        """A note on the two columns."""
        if not self.at_hand:
            home, folder = str(Path.home()), str(weights_folder())
            where = folder.replace(home, "~", 1) if folder.startswith(home) else folder
            return (
                f"No FID and KID: their Inception weights are not at hand. Put {WEIGHTS} (from the "
                f"releases of torch-fidelity) into {where} and make the report again."
            )
        return f"FID of fewer than {FEW} pictures is too high; compare equal numbers of rows alone."

    def of(self, rows: pd.DataFrame) -> tuple[str, str]:
        """FID and KID of some rows as text; dashes if there are none."""
        if not self.at_hand or TARGET not in rows or len(rows) < 2:
            return "–", "–"
        import torch
        from torchmetrics.image.fid import FrechetInceptionDistance
        from torchmetrics.image.kid import KernelInceptionDistance

        feature: Any = self.extractor if self.extractor is not None else 2048
        fid = FrechetInceptionDistance(feature, normalize=True).set_dtype(torch.float64)
        kid = KernelInceptionDistance(
            feature,
            subsets=SUBSETS,
            subset_size=min(SUBSET, len(rows)),
            normalize=True,
        )
        with torch.no_grad(), torch.random.fork_rng():
            torch.manual_seed(0)  # KID draws its subsets
            for real, pictures in self._batches(rows):
                fid.update(pictures, real=real)
                kid.update(pictures, real=real)
            score, (close, _) = float(fid.compute()), kid.compute()
        return f"{score:.4f}", f"{float(close):.4f}"

    def _batches(self, rows: pd.DataFrame) -> Iterator[tuple[bool, Any]]:
        import torch
        from PIL import Image

        targets = [self.folder / str(cell) for cell in rows[TARGET]]
        made = [
            self.picture(str(key), int(item) - 1)
            for key, item in zip(rows["key"], rows["picture"], strict=True)
        ]
        for real, paths in ((True, targets), (False, made)):
            for start in range(0, len(paths), BATCH):
                pictures: list[Any] = []
                for path in paths[start : start + BATCH]:
                    with Image.open(path) as picture:
                        pictures.append(np.asarray(picture.convert("RGB"), np.float32) / 255)
                yield real, torch.from_numpy(np.stack(pictures)).movedim(-1, 1)
