"""Attention rollout: tokens that a projector made from a picture → the picture's patches.

A resampler starts from learned tokens. In each layer they attend to the picture's patches and to
each other. Multiplying the attention of the layers gives how much of a finished token came from
each patch. Half of each layer's output is its input (Abnar and Zuidema, Quantifying Attention Flow
in Transformers, ACL 2020).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from einops import rearrange
from torch import Tensor

from ..recording import Recording, correspondence_name
from ..tokens import Picture


def attention_rollout(layers: Iterable[Tensor]) -> Tensor:
    """Attention of each layer → how much each finished token owes each patch.

    layers: first to last, each the attention of the tokens to [patches | tokens], (pictures,
    heads, tokens, patches + tokens); rows sum to one. Returns (pictures, tokens, patches). The
    rows sum to less than one: the remainder belongs to the learned tokens.
    """
    owed = torch.zeros((), dtype=torch.float64)
    for attention in layers:
        mean = attention.double().mean(1)
        tokens = mean.shape[1]
        to_patches, to_tokens = mean[..., :-tokens], mean[..., -tokens:]
        owed = (to_patches + to_tokens @ owed.expand_as(to_patches) + owed) / 2
    return owed


def trace_reference(
    recording: Recording, reference: int, owed: Tensor, picture: Picture
) -> Recording:
    """Recording → the same with one reference's tokens traced to the patches of a picture.

    owed: (1 or batch, tokens, patches of `picture`), from `attention_rollout`. Each token's
    attention is divided among the patches in these proportions. All sums stay the same.
    """
    portions = (owed / owed.sum(-1, keepdim=True)).float()
    header, arrays = recording.header, dict(recording.arrays)
    sides = picture.grid.shape
    names = [correspondence_name(definition, reference) for definition in header.plan.recorded]
    names += [
        f"{definition.value}.g2r.{reference}.{table}"
        for definition in header.plan.recorded
        for table in ("step_layer", "layer_head")
    ]
    for name in arrays.keys() & set(names):
        maps = arrays[name]
        # (batch, layers × steps or heads, tokens) @ (1 or batch, tokens, patches)
        rows = rearrange(maps, "b ... h w -> b (...) (h w)") @ portions
        arrays[name] = rows.reshape(*maps.shape[:-2], *sides)
    references = list(header.references)
    references[reference] = picture
    return Recording(replace(header, references=tuple(references)), arrays)
