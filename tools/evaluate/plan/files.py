"""The files that a table names: read once before the run, each with a digest of its bytes."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

POINTS = ("result_x", "result_y", "reference_x", "reference_y")  # of a correspondence, 0 to 1
READERS = 4  # files read at a time


@dataclass(frozen=True)
class Found:
    """The digest of a complete file, or what is wrong with it."""

    digest: str = ""
    problem: str = ""


def inspect_pictures(paths: Iterable[Path]) -> dict[Path, Found]:
    """Checks every picture, decoding it completely."""
    return _inspect(paths, _decode)


def inspect_correspondences(paths: Iterable[Path]) -> dict[Path, Found]:
    """Checks every table of points: places of the result, and where each comes from."""
    return _inspect(paths, read_points)


def read_points(data: bytes) -> pd.DataFrame:
    """The points of a correspondence. Raises a readable ValueError if there are none."""
    points = pd.read_csv(io.BytesIO(data))
    missing = [name for name in POINTS if name not in points]
    if missing:
        raise ValueError(f"it has no column {', '.join(missing)}; it needs {', '.join(POINTS)}")
    points = points[list(POINTS)].astype(float)
    if not len(points) or not bool(points.ge(0).all(None) and points.le(1).all(None)):
        raise ValueError("it needs rows of numbers from 0 (left, top) to 1 (right, bottom)")
    return points


def _inspect(paths: Iterable[Path], check: object) -> dict[Path, Found]:
    def look(path: Path) -> Found:
        try:
            data = path.read_bytes()
            check(data)  # type: ignore[operator]
        except FileNotFoundError:
            return Found(problem=f"there is no file {path}")
        except Exception as error:  # decoders raise anything for a broken file
            return Found(problem=f"{path} cannot be read: {error}")
        return Found(hashlib.sha256(data).hexdigest()[:32])

    distinct = list(dict.fromkeys(paths))
    with ThreadPoolExecutor(READERS) as pool:
        return dict(zip(distinct, pool.map(look, distinct), strict=True))


def _decode(data: bytes) -> None:
    with Image.open(io.BytesIO(data)) as picture:
        picture.load()
