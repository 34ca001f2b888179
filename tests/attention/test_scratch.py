"""The same sums with less scratch memory, borrowed buffers, and without reading values back."""

from __future__ import annotations

import pytest
import torch
from recordings import layout, rand

from i2am.attention import Workspace, attention_marginals, blocked, dense
from i2am.tokens import Grid


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize("scratch", [1, 8_000, 2**28])
@pytest.mark.parametrize("reach", [1, 60, 400])
def test_without_reading_back(
    reach: float, scratch: int, masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The sums are the same without reading values back from the device, as on graphics cards."""
    spans = layout()
    q, k = (rand(seed, 2, 3, spans.key_count, 8) for seed in (1, 2))
    ones = torch.ones_like(q[..., :1])
    rows, columns = (reach * (rand(seed, *ones.shape) / 2).clamp(-1, 1) for seed in (7, 8))
    q, k = torch.cat((q, rows, ones), -1), torch.cat((k, ones, columns), -1)
    mask = rand(9, spans.key_count, spans.key_count) if masked else None
    given = {"scale": 1.0, "mask": mask, "scratch_bytes": scratch}
    asked = attention_marginals(q, k, spans, **given)
    for module in (dense, blocked):
        monkeypatch.setattr(module, "can_read_back", lambda device: False)
    monkeypatch.setattr(blocked.ColumnSums, "weak", property(lambda self: 1 / 0))
    found = attention_marginals(q, k, spans, **given)
    torch.testing.assert_close(found.paper_r2g, asked.paper_r2g, atol=1e-6, rtol=2e-3)
    for one, other in zip(found.correspondence, asked.correspondence, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-4)


def test_buffers_are_reused() -> None:
    """One workspace for calls of different sizes: each gives what a fresh one gives."""
    workspace = Workspace()
    for seed, side in ((1, 4), (3, 2), (5, 6), (7, 4)):
        spans = layout(generated=Grid(side, 3), references=(Grid(2, side), Grid(1, 3)))
        q, k = (rand(seed + n, 2, 3, spans.key_count, 8) for n in (0, 1))
        fresh = attention_marginals(q, k, spans)
        again = attention_marginals(q, k, spans, workspace=workspace)
        for name in ("share", "paper_r2g"):
            assert torch.equal(getattr(again, name), getattr(fresh, name))
        maps = [(*sums.g2r, *sums.correspondence) for sums in (again, fresh)]
        assert all(torch.equal(one, other) for one, other in zip(*maps, strict=True))
