"""How much each place of the result attends to each token of the prompt.

P[g, k] is the model's own attention, as in `marginals`. The map of prompt token t is P[g, t] over
the generated tokens g, a mean over heads: in a UNet's cross-attention, the quantity that DAAM (Tang
et al., ACL 2023, section 3) calls an attribution map.

One softmax holds the text and perhaps the picture itself and references. Only the logits of the
text are computed: P over it is their own softmax times the text's share, which is known.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache, partial

import torch
from torch import Tensor

from ..errors import LayoutMismatch
from ..tokens import Grid, Role, Span, TokenLayout, grid_of
from .call_inputs import SoftmaxWeights
from .marginals import Marginals
from .pooling import PooledRows
from .products import Factors
from .workspace import CACHE_BYTES, can_read_back


def prompt_maps(
    q: Tensor,
    k: Tensor,
    layout: TokenLayout,
    share: Tensor,
    *,
    scale: float,
    mask: Tensor | None,
    weights: Tensor | None,
    prompt: int,
    scratch_bytes: int,
) -> Tensor:
    """P of each prompt token at each cell of the result: (batch, prompt tokens, cells), float32.

    Mean over heads and over a cell's generated tokens; the cells are those of
    `correspondence_grid`.

    q, mask, weights: as in `blocked_marginals`. share: as in `Marginals`. prompt: how many tokens
    the conditioning has; those that are not among the keys are zero.
    """
    text = _TextKeys.of(layout, q.device)
    if text.prompt > prompt:
        raise LayoutMismatch(f"{text.prompt} tokens of text, but the prompt has {prompt}")
    keys, portion = text.keys, _text_portion(layout, share, weights)
    batch, heads, count, _ = q.shape
    sums = PooledRows(
        partial(q.new_zeros, dtype=torch.float32), batch, grid_of(layout.generated), len(keys)
    )
    budget = CACHE_BYTES if can_read_back(q.device) else scratch_bytes // 4
    at_once = max(1, budget // (4 * heads * len(keys)))
    for item in range(batch):
        columns = k[item][:, keys].repeat_interleave(heads // k.shape[1], 0)
        factors = Factors.of(q[item], columns, scale)
        for first in range(0, count, at_once):
            tile = slice(first, min(first + at_once, count))
            logits = factors.logits(tile, slice(None))
            if mask is not None:
                logits += mask[item if len(mask) > 1 else 0, :, tile][..., keys]
            values = logits.softmax(-1)
            if mask is not None:
                values.nan_to_num_(0.0)  # a row that may look at none of these keys
            values = (values * portion[item, :, tile, None]).sum(0)
            sums.add(slice(item, item + 1), tile, values.unsqueeze(0))
    by_key = sums.mean(heads).mT  # (batch, keys, cells)
    maps = by_key.new_zeros(batch, prompt, by_key.shape[-1])
    return maps.index_add_(1, text.numbers, by_key[:, text.places])


@dataclass(frozen=True)
class _TextKeys:
    """The keys to take a softmax over: positions, on a device.

    In self-attention, those of the text. In cross-attention, all keys of the prompt's own softmax,
    which are few. numbers: in the prompt, of the tokens that are there; places: theirs among the
    keys. prompt: how many tokens it has at least.
    """

    keys: Tensor
    numbers: Tensor
    places: Tensor
    prompt: int

    @staticmethod
    @lru_cache(maxsize=32)  # copied for each call, they would make the processor wait for a card
    def of(layout: TokenLayout, device: torch.device) -> _TextKeys:
        """Those of a call with this layout."""
        spans = [span for span in layout.keys if span.softmax == 0]
        if _is_self_attention(layout):
            spans = [span for span in spans if span.role is Role.TEXT]
        keys = torch.cat([torch.arange(span.start, span.stop) for span in spans])
        numbers, places = _prompt_numbers(spans)
        prompt = int(numbers.max()) + 1 if len(numbers) else 0
        return _TextKeys(keys.to(device), numbers.to(device), places.to(device), prompt)


def _is_self_attention(layout: TokenLayout) -> bool:
    """Whether the picture itself is among the keys of the first softmax."""
    return any(span.role is Role.GENERATED for span in layout.keys if span.softmax == 0)


def _text_portion(layout: TokenLayout, share: Tensor, weights: Tensor | None) -> Tensor:
    """How much of the model's attention the softmax over `_TextKeys` has: (batch, heads, rows)."""
    if _is_self_attention(layout):
        return share[:, :, 0]
    if weights is None:
        return torch.ones_like(share[:, :, 0])
    return SoftmaxWeights.of(weights).portions[:, :1].expand(-1, share.shape[1], -1)


def _prompt_numbers(spans: list[Span]) -> tuple[Tensor, Tensor]:
    """Keys, in the order of their spans → each one's number in the prompt, and its place."""
    numbers: list[Tensor] = []
    places: list[Tensor] = []
    start = 0
    for span in spans:
        if span.prompt is not None:
            numbers.append(torch.arange(span.prompt, span.prompt + span.length))
            places.append(torch.arange(start, start + span.length))
        start += span.length
    if not numbers:
        return torch.zeros(0, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    return torch.cat(numbers), torch.cat(places)


def text_as_references(layout: TokenLayout) -> TokenLayout:
    """The layout of a call without references → the same with its text as references.

    So text's share of the model's attention is computed in every way that a reference's is. Raises
    LayoutMismatch if there is no text either.
    """

    def as_reference(span: Span) -> Span:
        if span.role is not Role.TEXT:
            return span
        return replace(span, role=Role.REFERENCE, grid=Grid(1, span.length), prompt=None)

    if not any(span.role is Role.TEXT for span in layout.keys):
        raise LayoutMismatch("the call holds neither a reference nor text")
    return replace(layout, keys=tuple(map(as_reference, layout.keys)))


def of_text(found: Marginals) -> Marginals:
    """Marginals of `text_as_references` → those of the call itself, which has no references."""
    share = torch.stack((found.share[:, :, 2:].sum(2), found.share[:, :, 1]), 2)
    return Marginals(share, found.paper_r2g[:, :, :0], (), (), way=found.way)


def of_cross_attention(q: Tensor, layout: TokenLayout, weights: Tensor | None) -> Marginals:
    """The marginals of a call whose keys are text alone: all the attention there is is the text's.

    q, weights: as in `prompt_maps`.
    """
    batch, heads, count, _ = q.shape
    share = q.new_zeros(batch, heads, 2, count, dtype=torch.float32)
    share[:, :, 0] = 1.0
    if weights is not None:
        kinds = sorted({span.softmax for span in layout.keys})
        share[:, :, 0] = SoftmaxWeights.of(weights).portions[:, kinds].sum(1, keepdim=True)
    return Marginals(share, share[:, :, :0], (), (), way="no share to compute: text alone")
