"""Both ways that small calls are computed on a CPU."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import i2am.attention.dense


@pytest.fixture(scope="module", params=["dense", "blocked"])
def both_ways(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test runs twice: with small calls computed at once, and in blocks."""
    with pytest.MonkeyPatch.context() as patched:
        if request.param == "blocked":
            patched.setattr(i2am.attention.dense, "SMALL_BYTES", 0)
        yield
