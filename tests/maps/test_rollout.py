"""Attention rollout against its definition: products of whole transition matrices."""

from __future__ import annotations

import recordings
import torch
from hypothesis import given
from hypothesis import strategies as st

from i2am.maps import attention_rollout, trace_reference
from i2am.tokens import Grid, Picture


def attentions(seed: int, layers: int, tokens: int, patches: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (2, 3, tokens, patches + tokens)
    return [(torch.randn(shape, generator=generator) * 3).softmax(-1) for _ in range(layers)]


@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 5), st.integers(1, 7))
def test_is_the_product_of_all_layers(seed: int, layers: int, tokens: int, patches: int) -> None:
    """(A + I) / 2 of each layer over [patches | tokens]; patches stay unchanged."""
    found = attentions(seed, layers, tokens, patches)
    whole = torch.eye(patches + tokens, dtype=torch.float64).repeat(2, 1, 1)
    for layer in found:
        step = torch.eye(patches + tokens, dtype=torch.float64).repeat(2, 1, 1)
        step[:, patches:] = (step[:, patches:] + layer.double().mean(1)) / 2
        whole = step @ whole
    owed = attention_rollout(found)
    assert torch.allclose(owed, whole[:, patches:, :patches], atol=1e-12)
    assert float(owed.min()) >= 0
    assert float(owed.sum(-1).max()) <= 1 + 1e-12


def test_traced_maps_keep_their_sums() -> None:
    """Every array over the reference moves to the patches, and nothing else changes."""
    before = recordings.recording(references=(Grid(1, 16), Grid(2, 2)))
    owed = attention_rollout(attentions(1, 4, 16, 9))
    after = trace_reference(before, 0, owed[:1], Picture(Grid(3, 3), (0, 0), "traced"))
    assert after.header.references[0].grid == Grid(3, 3)
    moved = 0
    for name, array in before.arrays.items():
        if (name.startswith("correspondence") and name.endswith("0")) or ".g2r.0." in name:
            assert after.arrays[name].shape == (*array.shape[:-2], 3, 3)
            sums, wanted = (maps.flatten(-2).sum(-1) for maps in (after.arrays[name], array))
            assert torch.allclose(sums, wanted, atol=1e-5)
            moved += 1
        else:
            assert after.arrays[name] is array
    assert moved == 9
