"""How much each place of the result attends to each token of the prompt.

P[g, k] is the model's own attention, as in `marginals`. The map of prompt token t is P[g, t] over
the generated tokens g, a mean over heads: in a UNet's cross-attention, the quantity that DAAM (Tang
et al., ACL 2023, section 3) calls an attribution map.

One softmax holds the text and perhaps the picture itself and references. Only the logits of the
text are computed: P over it is their own softmax times the text's share, which is known.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

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
    spans, portion = _text_softmax(layout, share, weights)
    keys = torch.cat([torch.arange(span.start, span.stop) for span in spans])
    batch, heads, count, _ = q.shape
    sums = PooledRows(
        partial(q.new_zeros, dtype=torch.float32), batch, grid_of(layout.generated), len(keys)
    )
    budget = CACHE_BYTES if can_read_back(q.device) else scratch_bytes // 4
    at_once = max(1, budget // (4 * heads * len(keys)))
    keys_here = keys.to(k.device)
    for item in range(batch):
        columns = k[item][:, keys_here].repeat_interleave(heads // k.shape[1], 0)
        factors = Factors.of(q[item], columns, scale)
        for first in range(0, count, at_once):
            tile = slice(first, min(first + at_once, count))
            logits = factors.logits(tile, slice(None))
            if mask is not None:
                logits += mask[item if len(mask) > 1 else 0, :, tile][..., keys_here]
            values = logits.softmax(-1)
            if mask is not None:
                values.nan_to_num_(0.0)  # a row that may look at none of these keys
            values = (values * portion[item, :, tile, None]).sum(0)
            sums.add(slice(item, item + 1), tile, values.unsqueeze(0))
    by_key = sums.mean(heads).mT  # (batch, keys, cells)
    numbers, chosen = _prompt_numbers(spans)
    if len(numbers) and int(numbers.max()) >= prompt:
        raise LayoutMismatch(
            f"{int(numbers.max()) + 1} tokens of text, but the prompt has {prompt}"
        )
    maps = by_key.new_zeros(batch, prompt, by_key.shape[-1])
    return maps.index_add_(1, numbers.to(maps.device), by_key[:, chosen.to(maps.device)])


def _text_softmax(
    layout: TokenLayout, share: Tensor, weights: Tensor | None
) -> tuple[list[Span], Tensor]:
    """The keys to take a softmax over, and how much of the model's attention that softmax has.

    The second is (batch, heads, generated). In self-attention these are the keys of the text, and
    its share. In cross-attention they are all keys of the prompt's own softmax, which are few.
    """
    first = [span for span in layout.keys if span.softmax == 0]
    if any(span.role is Role.GENERATED for span in first):
        return [span for span in first if span.role is Role.TEXT], share[:, :, 0]
    if weights is None:
        return first, torch.ones_like(share[:, :, 0])
    portions = SoftmaxWeights.of(weights).portions[:, :1]
    return first, portions.expand(-1, share.shape[1], -1)


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
