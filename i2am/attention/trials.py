"""Trials of ways that need a device's own code: do they give the blocked computation's sums there?

What a driver, a compiler or a build of torch can do is known only by trying. A way that fails, or
disagrees, is not used for such inputs again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..tokens import Grid, Role, Span, TokenLayout
from .blocked import blocked_marginals
from .marginals import Marginals
from .workspace import SCRATCH_BYTES, Workspace

_CLOSE = 1e-4  # allowed difference from the blocked sums, as a fraction of the largest value
_log = logging.getLogger(__name__)


class Trials:
    """A way to compute marginals, and the kinds of inputs (device, dtype, head size) it serves.

    name: of the way, in the plural, for the log. compute: takes q of the generated tokens, k, the
    layout, and options by name: scale, correspondence, weights, paper and log_sum in a trial, and
    mask if `masks`. half_close: the allowed difference of sums in half precision, where it is more,
    by their name. masks: whether it takes masks.
    """

    def __init__(
        self,
        name: str,
        compute: Callable[..., Marginals],
        half_close: Mapping[str, float],
        masks: bool = False,
    ) -> None:
        self._name, self._compute, self._half_close = name, compute, half_close
        self._masks = masks
        self._lock = threading.Lock()
        self._good: dict[tuple[torch.device, torch.dtype, int], bool] = {}
        self._reported: set[tuple[torch.device, str]] = set()

    def marginals(
        self,
        q: Tensor,
        k: Tensor,
        layout: TokenLayout,
        *,
        mask: Tensor | None,
        weights: Tensor | None,
        **options: Any,
    ) -> Marginals | None:
        """The marginals of a call, or None if this way does not serve it.

        Such ways take one precision, and several softmaxes only with their weights. The first call
        of a kind tries the way, which waits for the device; later calls do not.
        """
        kind = (q.device, q.dtype, q.shape[-1])
        if mask is not None and not self._masks:
            return None
        if not _is_usual(q, k, layout, weights) or not self.passed(*kind):
            return None
        options["weights"] = weights
        if mask is not None:
            options["mask"] = mask
        try:
            return self._compute(q, k, layout, **options)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # from the compiler or the driver, for a shape not tried
            with self._lock:
                self._note(*kind, _first_line(error))
            return None

    def passed(self, device: torch.device, dtype: torch.dtype, dim: int) -> bool:
        """Whether the way serves such inputs. Tries it the first time."""
        with self._lock:
            if (device, dtype, dim) not in self._good:
                self._note(device, dtype, dim, self.trouble(device, dtype, dim))
            return self._good[device, dtype, dim]

    def trouble(self, device: torch.device, dtype: torch.dtype, dim: int) -> str:
        """What is wrong, found by small calls of every sort; "" if nothing is."""
        try:
            for q, k, layout, options, close in _trial_calls(dtype, dim, self._masks):
                wanted = blocked_marginals(q, k, layout, **{"mask": None, **options}, **_PLAIN)
                there = q.to(device), k.to(device)
                known = _log_sum(q, k, options["scale"], options.get("mask")).to(device)
                options |= {n: x.to(device) for n, x in options.items() if isinstance(x, Tensor)}
                for log_sum, paper in ((None, True), (known, True), (known, False)):
                    more: dict[str, Any] = {"log_sum": log_sum, "paper": paper}
                    found = self._compute(*there, layout, **options, **more)
                    sums = _sums(found, paper), _sums(wanted, paper)
                    trouble = self._differing(*sums, close, dtype != torch.float32)
                    if trouble:
                        return trouble
        except Exception as error:  # from the compiler, the driver, or because it is not there
            return _first_line(error)
        return ""

    def _differing(self, found: _Sums, wanted: _Sums, close: float, half: bool) -> str:
        """Which sums differ by more than allowed; "" if none do."""
        for name, tensors in found.items():
            allowed = max(close, self._half_close.get(name, 0)) if half else close
            off = max(map(_difference, tensors, wanted[name]), default=0)
            if not off <= allowed:  # true for NaN, too
                return f"{name} differs by {off:.1e}"
        return ""

    def _note(self, device: torch.device, dtype: torch.dtype, dim: int, trouble: str) -> None:
        self._good[device, dtype, dim] = not trouble
        if trouble and (device, trouble) not in self._reported:
            self._reported.add((device, trouble))
            _log.warning(
                "I2AM: %s are off for %s heads of size %d on %s. Recording takes longer and gives "
                "the same results. Reason: %s",
                *(self._name, str(dtype).removeprefix("torch."), dim, device, trouble),
            )


def _is_usual(q: Tensor, k: Tensor, layout: TokenLayout, weights: Tensor | None) -> bool:
    return (
        q.dtype in (torch.float32, torch.float16, torch.bfloat16)
        and k.dtype == q.dtype
        and q.shape[1] % k.shape[1] == 0
        and all(span.length > 0 for span in layout.keys)
        and (weights is not None or not any(span.softmax for span in layout.keys))
    )


_PLAIN: dict[str, Any] = {
    "scratch_bytes": SCRATCH_BYTES,
    "workspace": Workspace(),
}
_Sums = Mapping[str, Sequence[Tensor]]


def _sums(marginals: Marginals, paper: bool) -> _Sums:
    """By name; of the model's definition alone, or of the paper's as well."""
    first = 0 if paper else 1
    return {
        "share": [marginals.share],
        "R2G": [marginals.paper_r2g] if paper else [],
        "G2R": [sums[:, :, first:] for sums in marginals.g2r],
        "correspondence": [sums[:, first:] for sums in marginals.correspondence],
    }


def _log_sum(q: Tensor, k: Tensor, scale: float, mask: Tensor | None) -> Tensor:
    """L of each row, as a tap would read it."""
    k = k.float().repeat_interleave(q.shape[1] // k.shape[1], dim=1)
    logits = q.float() @ k.mT * scale
    return (logits if mask is None else logits + mask).logsumexp(-1)


def _difference(one: Tensor, other: Tensor) -> float:
    """The largest difference, as a fraction of the largest value."""
    return float((one.cpu() - other).abs().max() / other.max())


def _first_line(error: Exception) -> str:
    """The first line of its message, or else its kind."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _trial_calls(
    dtype: torch.dtype, dim: int, masks: bool
) -> Iterator[tuple[Tensor, Tensor, TokenLayout, dict[str, Any], float]]:
    """q, k, layout, options, and the allowed difference.

    They have several blocks each way, a shared key head, pooling by whole cells and by parts of
    them, rows and columns with very different log-sum-exps, weighted softmaxes, and a mask.
    """
    generated = Grid(36, 5, (35.5, 4.75))
    pictures = (None, generated, Grid(64, 2), Grid(3, 7))
    roles = (Role.TEXT, Role.GENERATED, Role.REFERENCE, Role.REFERENCE)
    rows = (Span(Role.GENERATED, 0, generated.area, generated),)
    for order, reach, scale, correspondence, kind, close in (
        ((0, 1, 2, 3), 0.0, dim**-0.5, True, "", _CLOSE),
        ((2, 1, 3, 0), 100.0, 1.0, True, "", 20 * _CLOSE),
        ((3, 0, 2, 1), 0.0, 0.1, False, "", _CLOSE),
        ((0, 2, 3), 0.0, dim**-0.5, True, "weighted", _CLOSE),
        *([((0, 1, 2, 3), 0.0, dim**-0.5, True, "masked", _CLOSE)] if masks else []),
    ):
        keys: list[Span] = []
        for index in order:
            start, grid = keys[-1].stop if keys else 0, pictures[index]
            keys.append(Span(roles[index], start, start + (grid.area if grid else 9), grid))
        random = torch.Generator().manual_seed(1)  # of its own: the host's stays where it is
        q = torch.randn(2, 2, generated.area, dim, generator=random)
        k = torch.randn(2, 1, keys[-1].stop, dim, generator=random)
        if reach:  # adds up to so much to the logits, to each row and each column on its own
            q[..., 0], k[..., 1] = (x[..., 0].clamp(-1, 1) * reach for x in (q, k))
            q[..., 1] = k[..., 0] = 1.0
        options: dict[str, Any] = {"scale": scale, "correspondence": correspondence}
        weights = None
        if kind == "weighted":  # two softmaxes
            keys = [replace(span, softmax=number % 2) for number, span in enumerate(keys)]
            weights = torch.rand(2, 2, generated.area, generator=random)
            weights[:, 1, 0] = 0.0
        options["weights"] = weights
        if kind == "masked":  # some hidden from each row, one from all, and one row from a picture
            mask = torch.randn(1, 2, generated.area, keys[-1].stop, generator=random)
            mask[mask > 1] = -torch.inf
            mask[..., keys[2].start + 3] = mask[:, :, 7, keys[2].slice] = -torch.inf
            options["mask"] = mask
        yield q.to(dtype), k.to(dtype), TokenLayout(rows, tuple(keys)), options, close
