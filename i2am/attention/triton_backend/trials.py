"""Whether the Triton kernels serve a kind of inputs: each kind is tried once, on the device."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from ...tokens import Grid, Role, Span, TokenLayout
from ..blocked import blocked_marginals
from ..marginals import Marginals
from ..workspace import SCRATCH_BYTES, Workspace
from .passes import kernel_marginals

_CLOSE = 1e-4  # of the largest value: how near the kernels' sums must come to the blocked ones
_log = logging.getLogger(__name__)


class Trials:
    """Which kinds of inputs the kernels serve: each is tried once, on the device itself."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._good: dict[tuple[torch.device, torch.dtype, int], bool] = {}
        self._told: set[tuple[torch.device, str]] = set()

    def passed(self, device: torch.device, dtype: torch.dtype, dim: int) -> bool:
        """Whether the kernels may be used; the first time, they are tried."""
        with self._lock:
            if (device, dtype, dim) not in self._good:
                self._note(device, dtype, dim, _trouble(device, dtype, dim))
            return self._good[device, dtype, dim]

    def fail(self, device: torch.device, dtype: torch.dtype, dim: int, trouble: str) -> None:
        """They passed, and failed later: they are not used any more."""
        with self._lock:
            self._note(device, dtype, dim, trouble)

    def _note(self, device: torch.device, dtype: torch.dtype, dim: int, trouble: str) -> None:
        self._good[device, dtype, dim] = not trouble
        if trouble and (device, trouble) not in self._told:
            self._told.add((device, trouble))
            _log.warning(
                "I2AM: the fused kernels are off for %s heads of %d on %s, recording takes longer "
                "and gives the same: %s",
                *(str(dtype).removeprefix("torch."), dim, device, trouble),
            )


def _trouble(device: torch.device, dtype: torch.dtype, dim: int) -> str:
    """What is wrong with the kernels, or nothing: small calls with all that they serve."""
    try:
        for q, k, layout, options, close in _trial_calls(dtype, dim):
            found = kernel_marginals(q.to(device), k.to(device), layout, **options)
            wanted = blocked_marginals(q, k, layout, **options, **_PLAIN)
            for name, one, other in zip(_NAMES, _sums(found), _sums(wanted), strict=True):
                off = max((_difference(*pair) for pair in zip(one, other, strict=True)), default=0)
                if not off <= close:  # nor if it is no number
                    return f"{name} differs by {off:.1e}"
    except Exception as error:  # of the compiler, of the driver, or for want of Triton
        return first_line(error)
    return ""


_PLAIN: dict[str, Any] = {
    "mask": None,
    "weights": None,
    "scratch_bytes": SCRATCH_BYTES,
    "workspace": Workspace(),
}
_NAMES = ("share", "R2G", "G2R", "correspondence")


def _sums(marginals: Marginals) -> tuple[tuple[Tensor, ...], ...]:
    """As many as there are names."""
    return (marginals.share,), (marginals.paper_r2g,), marginals.g2r, marginals.correspondence


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest, in parts of the largest value."""
    return float((one.cpu() - other).abs().max() / other.max())


def first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _trial_calls(
    dtype: torch.dtype, dim: int
) -> Iterator[tuple[Tensor, Tensor, TokenLayout, dict[str, Any], float]]:
    """q, k, layout, options, and how near the sums must come: several blocks each way, a shared
    key head, pooling by whole cells and by parts of them, rows and columns of all levels."""
    generated = Grid(36, 5, (35.5, 4.75))
    pictures = (None, generated, Grid(64, 2), Grid(3, 7))
    roles = (Role.TEXT, Role.GENERATED, Role.REFERENCE, Role.REFERENCE)
    rows = (Span(Role.GENERATED, 0, generated.area, generated),)
    for order, level, scale, correspondence, close in (
        ((0, 1, 2, 3), 0.0, dim**-0.5, True, _CLOSE),
        ((2, 1, 3, 0), 100.0, 1.0, True, 20 * _CLOSE),
        ((3, 0, 2, 1), 0.0, 0.1, False, _CLOSE),
    ):
        keys: list[Span] = []
        for index in order:
            start, grid = keys[-1].stop if keys else 0, pictures[index]
            keys.append(Span(roles[index], start, start + (grid.area if grid else 9), grid))
        random = torch.Generator().manual_seed(1)  # of its own: the host's stays where it is
        q = torch.randn(2, 2, generated.area, dim, generator=random)
        k = torch.randn(2, 1, keys[-1].stop, dim, generator=random)
        if level:  # logits are lifted by so much, each row and each column by itself
            q[..., 0], k[..., 1] = (x[..., 0].clamp(-1, 1) * level for x in (q, k))
            q[..., 1] = k[..., 0] = 1.0
        options = {"scale": scale, "correspondence": correspondence}
        yield q.to(dtype), k.to(dtype), TokenLayout(rows, tuple(keys)), options, close
