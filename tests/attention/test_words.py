"""Maps of a prompt's tokens against dense float64 matrices, in every way of computing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from dense_attention import call, log_sums
from recordings import rand
from torch import Tensor

from i2am.attention import attention_marginals, words
from i2am.attention.torch_backend import backend
from i2am.errors import LayoutMismatch
from i2am.tokens import Grid, Role, Span, TokenLayout

pytestmark = pytest.mark.usefixtures("both_ways")


def dense_words(
    q: Tensor, k: Tensor, spans: TokenLayout, prompt: int, bias: Tensor | None = None
) -> Tensor:
    """P of each token of the prompt, mean over heads: (batch, tokens, generated)."""
    q, k = q.double(), k.double().repeat_interleave(q.shape[1] // k.shape[1], 1)
    logits = q @ k.mT * q.shape[-1] ** -0.5
    if bias is not None:
        logits = logits + bias.double()
    model = logits.softmax(-1)[:, :, spans.generated.slice].mean(1)
    found = model.new_zeros(len(q), prompt, model.shape[1])
    for span in spans.keys:
        if span.prompt is not None:
            tokens = slice(span.prompt, span.prompt + span.length)
            found[:, tokens] += model[..., span.slice].mT
    return found


def with_prompt(spans: TokenLayout) -> TokenLayout:
    """The same with its text as a prompt."""

    def marked(some: tuple[Span, ...]) -> tuple[Span, ...]:
        return tuple(
            replace(span, prompt=span.start) if span.role is Role.TEXT else span for span in some
        )

    return replace(spans, queries=marked(spans.queries), keys=marked(spans.keys))


def assert_words(found: Tensor | None, wanted: Tensor, tolerance: float = 1e-5) -> None:
    assert found is not None
    assert float((found.double() - wanted).abs().max()) <= tolerance * float(wanted.max())


@pytest.mark.parametrize("references", [True, False], ids=["with references", "text alone"])
@pytest.mark.parametrize("key_heads", [4, 2])
def test_self_attention(references: bool, key_heads: int) -> None:
    """Text, picture and references share one softmax."""
    options: dict[str, Any] = {} if references else {"references": ()}
    q, k, spans = call(text=5, **options)
    k, spans = k[:, :key_heads], with_prompt(spans)
    found = attention_marginals(q, k, spans, prompt=5)
    assert_words(found.words, dense_words(q, k, spans, 5))
    assert found.words is not None
    torch.testing.assert_close(found.words.sum(1), found.share[:, :, 0].mean(1))


def test_cross_attention() -> None:
    """Text around a picture; a share for every token, and none where the picture's tokens are."""
    keys = (
        Span(Role.TEXT, 0, 2, prompt=0),
        Span(Role.REFERENCE, 2, 8, Grid(2, 3)),
        Span(Role.TEXT, 8, 9, prompt=8),
    )
    spans = TokenLayout((Span(Role.GENERATED, 0, 12, Grid(3, 4)),), keys)
    q, k = rand(0, 2, 2, 12, 8), rand(1, 2, 2, 9, 8)
    found = attention_marginals(q, k, spans, prompt=9)
    assert_words(found.words, dense_words(q, k, spans, 9))
    assert found.words is not None
    assert not found.words[:, 2:8].any()


def test_text_alone() -> None:
    """Cross-attention to the prompt: all the attention there is."""
    spans = TokenLayout(
        (Span(Role.GENERATED, 0, 12, Grid(3, 4)),), (Span(Role.TEXT, 0, 7, prompt=0),)
    )
    q, k = rand(0, 2, 2, 12, 8), rand(1, 2, 2, 7, 8)
    found = attention_marginals(q, k, spans, prompt=7)
    assert_words(found.words, dense_words(q, k, spans, 7))
    assert bool((found.share[:, :, 0] == 1).all())


def test_one_token_twice() -> None:
    """A token with two keys has the attention of both; one without a key has none."""
    keys = (Span(Role.TEXT, 0, 3, prompt=1), Span(Role.TEXT, 3, 6, prompt=1))
    spans = TokenLayout((Span(Role.GENERATED, 0, 12, Grid(3, 4)),), keys)
    q, k = rand(0, 1, 2, 12, 8), rand(1, 1, 2, 6, 8)
    found = attention_marginals(q, k, spans, prompt=5)
    assert_words(found.words, dense_words(q, k, spans, 5))


def test_masks() -> None:
    """Hidden text gets nothing, and a mask of each query is kept to."""
    q, k, spans = call(text=5)
    spans, count = with_prompt(spans), q.shape[2]
    keep = torch.rand(count, count, generator=torch.Generator().manual_seed(5)) > 0.3
    keep[:, 5:17] = True
    keep[:, 1] = False
    found = attention_marginals(q, k, spans, mask=keep, prompt=5)
    bias = torch.zeros(count, count).masked_fill(~keep, -torch.inf)
    assert_words(found.words, dense_words(q, k, spans, 5, bias))
    assert found.words is not None
    assert not found.words[:, 1].any()


def test_pooled_and_in_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large result is pooled to cells, whatever tiles its rows come in."""
    grid = Grid(37, 40, (36.5, 40.0))
    spans = TokenLayout(
        (Span(Role.GENERATED, 0, grid.area, grid),), (Span(Role.TEXT, 0, 7, prompt=0),)
    )
    q, k = rand(0, 1, 2, grid.area, 8), rand(1, 1, 2, 7, 8)
    whole = attention_marginals(q, k, spans, prompt=7).words
    monkeypatch.setattr(words, "CACHE_BYTES", 4 * 2 * 7 * 53)
    tiled = attention_marginals(q, k, spans, prompt=7).words
    assert whole is not None
    assert tiled is not None
    assert whole.shape == (1, 7, 30 * 32)
    torch.testing.assert_close(whole, tiled)
    each = dense_words(q, k, spans, 7).mean(-1)
    assert float((whole.mean(-1) - each).abs().max()) < 0.01  # cells at the edge count the same


def test_weighted_softmaxes() -> None:
    """Beside an adapter the text has a portion of the attention at each place."""
    keys = (Span(Role.TEXT, 0, 4, prompt=0), Span(Role.REFERENCE, 4, 10, Grid(2, 3), 1))
    spans = TokenLayout((Span(Role.GENERATED, 0, 12, Grid(3, 4)),), keys)
    q, k = rand(0, 2, 2, 12, 8), rand(1, 2, 2, 10, 8)
    weights = torch.rand(2, 2, 12, generator=torch.Generator().manual_seed(2)) + 0.1
    found = attention_marginals(q, k, spans, weights=weights, prompt=4)
    own = (q.double() @ k[:, :, :4].double().mT * 8**-0.5).softmax(-1).mean(1).mT
    portion = weights[:, 0] / weights.sum(1)
    assert_words(found.words, own * portion.double().unsqueeze(1))


def test_in_the_ways_of_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """By torch's fused attention, with the row sums of the model's own call."""
    monkeypatch.setattr(backend, "_is_card", lambda device: True)
    monkeypatch.setattr("i2am.attention.dense.SMALL_BYTES", 0)
    both: tuple[dict[str, Any], ...] = ({}, {"references": ()})
    for options in both:
        q, k, spans = call(text=5, **options)
        spans = with_prompt(spans)
        found = attention_marginals(q, k, spans, prompt=5, log_sum=log_sums(q, k))
        assert found.way.startswith("torch's fused attention")
        assert_words(found.words, dense_words(q, k, spans, 5), 1e-4)


def test_half_precision() -> None:
    """Computed in float32 from what the model had."""
    q, k, spans = call(text=5)
    q, k, spans = q.half(), k.half(), with_prompt(spans)
    found = attention_marginals(q, k, spans, prompt=5)
    assert_words(found.words, dense_words(q, k, spans, 5))


def test_refuses_what_does_not_fit() -> None:
    q, k, spans = call(text=5)
    with pytest.raises(LayoutMismatch, match="5 tokens of text, but the prompt has 4"):
        attention_marginals(q, k, with_prompt(spans), prompt=4)
    q, k, spans = call(text=5, references=())
    with pytest.raises(LayoutMismatch, match="holds no reference"):
        attention_marginals(q, k, spans)
