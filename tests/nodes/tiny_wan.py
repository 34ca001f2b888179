"""A tiny Wan model, its texts and latents."""

from __future__ import annotations

from typing import Any

import tiny

# Three latent frames of 7×10, with 4×5 tokens each: the last row extends past the frame.
START = tiny.latent(60, 2, 16, 3, 7, 10)
EVEN = tiny.latent(60, 2, 16, 3, 8, 10)
TEXT = 9


def wan(family: str, seed: int = 0, **config: Any) -> Any:
    """Two blocks of two heads of 12."""
    settings = {"image_model": "wan2.1", "model_type": "t2v", "in_dim": 16, "out_dim": 16}
    settings |= {"dim": 24, "ffn_dim": 32, "freq_dim": 32, "text_dim": 24}
    return tiny.build(family, seed, **settings | {"num_heads": 2, "num_layers": 2} | config)


def texts(**extra: Any) -> tuple[list[Any], list[Any]]:
    """The positive and the negative conditioning."""
    return tiny.conditioning(61, TEXT, 24, **extra), tiny.conditioning(62, TEXT, 24, **extra)
