"""A tiny OmniGen2, its conditionings and latents."""

from __future__ import annotations

from typing import Any

import tiny
import torch

START = tiny.latent(52, 2, 16, 11, 10)
REFERENCES = (tiny.latent(53, 1, 16, 7, 14), tiny.latent(54, 1, 16, 6, 5))
SIZES = {
    "hidden_size": 96,
    "num_refiner_layers": 2,
    "num_attention_heads": 4,
    "num_kv_heads": 2,
    "multiple_of": 32,
    "axes_dim_rope": (8, 8, 8),
}


def conditioning(seed: int, tokens: int, references: bool = True) -> list[Any]:
    """A text in which every token counts."""
    mask = torch.ones(1, tokens, dtype=torch.long)
    given = REFERENCES if references else ()
    return tiny.conditioning(seed, tokens, 24, given, attention_mask=mask)


def omnigen2() -> Any:
    """Two blocks with four query heads and two key heads."""
    return tiny.build("Omnigen2", image_model="omnigen2", num_layers=2, text_feat_dim=24, **SIZES)
