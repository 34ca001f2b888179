"""Words and references → who has how much of the model's attention, over the result or a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..maps import ALL_STEPS, region_weights, token_maps, word_grid, word_groups, word_shares
from ..recording import Definition, Recording, Word


@dataclass(frozen=True)
class Ranked:
    """One word or reference: its share of the model's attention inside the part, and everywhere.

    Each (batch,), 0 to 1.
    """

    name: str
    inside: Tensor
    whole: Tensor
    is_word: bool

    @property
    def lift(self) -> float:
        """The share inside the part divided by the share everywhere, mean over the batch."""
        return float(self.inside.mean() / self.whole.mean().clamp(min=1e-9))


@dataclass(frozen=True)
class Ranking:
    """Words and references, the largest share inside the part first.

    others: the prompt's tokens that are none of these words: start, end, padding, templates,
    punctuation and other words. apart: whether the words have a softmax of their own, so that
    their shares cannot be held against those of references.
    """

    sources: tuple[Ranked, ...]
    others: Ranked
    apart: bool


def rank_sources(
    recording: Recording,
    words: Sequence[Word],
    region: Tensor | None = None,
    group: int = ALL_STEPS,
) -> Ranking:
    """Which of the words and references the model attended to most.

    words: of one prompt. region: a mask over the result, (1 or batch, height, width); None for the
    whole. group: of steps, from 1. Shares are means over places, heads, layers and steps.
    """
    inside = word_shares(recording, words, region, group)
    whole = word_shares(recording, words, None, group)
    ranked = [
        Ranked(word.text, inside[:, n], whole[:, n], is_word=True) for n, word in enumerate(words)
    ]
    ranked += [
        Ranked(f"reference {r + 1}", *_reference_shares(recording, r, region, group), is_word=False)
        for r in range(len(recording.header.references))
        if Definition.MODEL in recording.header.plan.recorded
    ]
    ranked.sort(key=lambda one: -float(one.inside.mean()))
    return Ranking(
        tuple(ranked),
        Ranked("all other tokens of the prompt", *_others(recording, words, region, group), True),
        recording.header.words_apart,
    )


def _reference_shares(
    recording: Recording, reference: int, region: Tensor | None, group: int
) -> tuple[Tensor, Tensor]:
    """A reference's share inside a region and everywhere, (batch,) each."""
    header = recording.header
    maps = recording.arrays[f"model.r2g.{reference}.step_layer"]
    maps = maps.sum(3) if header.generated.grid.frames > 1 else maps
    seen = torch.tensor(header.counts) > 0
    if group != ALL_STEPS:
        steps = list(word_groups(recording)[group - 1])
        maps, seen = maps[:, steps], seen[steps]
    mean = maps[:, seen].mean(1).flatten(1)  # (batch, cells); sums to the share
    weights = region_weights(region, header.generated.grid.one_frame)
    even = region_weights(None, header.generated.grid.one_frame)
    normed = (weights / even) / (weights.sum(-1, keepdim=True) / even.sum(-1, keepdim=True))
    return (mean * normed).sum(-1), mean.sum(-1)


def _others(
    recording: Recording, words: Sequence[Word], region: Tensor | None, group: int
) -> tuple[Tensor, Tensor]:
    """The share of the prompt's tokens that belong to none of the words, as `_reference_shares`."""
    prompt = words[0].prompt
    maps = token_maps(recording, prompt, group)
    taken = {token for word in words for token in word.tokens}
    rest = [token for token in range(maps.shape[1]) if token not in taken]
    left = maps[:, rest].sum(1).flatten(1)
    inside, whole = (region_weights(one, word_grid(recording, prompt)) for one in (region, None))
    return tuple((left * w).sum(-1) / w.sum(-1) for w in (inside, whole))  # type: ignore[return-value]


def ranking_text(ranking: Ranking, part: str = "") -> str:
    """A ranking in words and numbers. part: what `inside` is, "region"; "" for the whole result."""
    where = f"in the {part}" if part else "over the whole result"
    words = [one for one in ranking.sources if one.is_word]
    together = sum((one.inside.mean() for one in words), torch.zeros(())).clamp(min=1e-9)
    if ranking.apart:
        lines = [f"Attention to the text alone, which has a softmax of its own, {where}:"]
        lines += _lines(words, part, together)
        lines += _lines([ranking.others], part, None)
        lines.append("Attention of the layers that hold the references:")
        return "\n".join(
            lines + _lines([one for one in ranking.sources if not one.is_word], part, None)
        )
    lines = [f"Share of the model's attention, {where}, the largest first:"]
    lines += _lines(list(ranking.sources), part, together)
    return "\n".join(lines + _lines([ranking.others], part, None))


def _lines(sources: Sequence[Ranked], part: str, together: Tensor | None) -> list[str]:
    lines: list[str] = []
    for one in sources:
        text = f"  {one.name} {float(one.inside.mean()):.1%}"
        if together is not None and one.is_word:
            text += f", {float(one.inside.mean() / together):.0%} of the words'"
        if part:
            text += f", {one.lift:.2f} × its average"
        lines.append(text)
        if len(one.inside) > 1:
            each = " · ".join(f"{float(share):.1%}" for share in one.inside)
            lines.append(f"    picture by picture: {each}")
    return lines
