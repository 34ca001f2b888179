"""The marginals of one attention call, and the definitions of I2AM (section 3) they follow.

S = q·kᵀ/√d are the logits of the generated tokens g (rows) and all keys; r are the tokens of one
reference (columns). Three softmaxes of S:

    M_g[g, r] = exp S[g, r] / Σ_g' exp S[g', r]   over the result, for each reference token   (R2G)
    M_r[g, r] = exp S[g, r] / Σ_r' exp S[g, r']   over the reference, for each generated token (G2R)
    P[g, k]   = exp S[g, k] / Σ_k' exp S[g, k']   over all keys: the model's own attention

A map over one picture is a mean over the tokens of the other:

    definition   R2G, over the result        G2R, over the reference
    paper        mean over r of M_g[g, r]    mean over g of M_r[g, r]
    model        Σ_r P[g, r], the share      mean over g of P[g, r]

All are built from generated queries, because in the last block the queries of reference tokens
are never trained.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..tokens import Role, Span, TokenLayout
from .effects import Effects

LOWEST = torch.finfo(torch.float32).min


@dataclass(frozen=True)
class Marginals:
    """The marginals of one call, float32, on the device of its queries.

    share: (batch, heads, 2 + references, generated). Σ P over the text, the picture itself,
        reference 1, 2, …; sums to one over axis 2.
    paper_r2g: (batch, heads, references, generated). Mean over r of M_g; sums to one over g.
    g2r: for each reference (batch, heads, 2, reference). Mean over g of M_r, which sums to one,
        and of P, which sums to the mean share.
    correspondence: for each reference (batch, 2, generated cells, reference cells), mean over
        heads of M_r, whose rows sum to one, and of P, whose rows sum to the share; pooled to the
        grids of `correspondence_grid`. Empty if it was not requested.
    effects: of the same call, if they were requested (`effects`).
    words: P of each prompt token at each cell of the result, if requested (`words`).
    way: how they were computed, in words for a report.
    """

    share: Tensor
    paper_r2g: Tensor
    g2r: tuple[Tensor, ...]
    correspondence: tuple[Tensor, ...]
    effects: Effects | None = None
    words: Tensor | None = None
    way: str = ""

    @property
    def over_references(self) -> tuple[Tensor, ...]:
        """For each reference (batch, heads, definitions, reference): paper, model, effect if it is
        there."""
        if self.effects is None:
            return self.g2r
        pairs = zip(self.g2r, self.effects.g2r, strict=True)
        return tuple(torch.cat((two, effect.unsqueeze(2)), 2) for two, effect in pairs)

    @property
    def correspondences(self) -> tuple[Tensor, ...]:
        """For each reference (batch, definitions, generated cells, reference cells)."""
        if self.effects is None:
            return self.correspondence
        pairs = zip(self.correspondence, self.effects.correspondence, strict=True)
        return tuple(torch.cat((two, effect.unsqueeze(1)), 1) for two, effect in pairs)


def softmax_log_sums(sums: dict[Span, Tensor]) -> dict[int, Tensor]:
    """Log-sum-exps over each span of keys → over all keys of each softmax, by its number."""
    return {
        number: torch.stack([own for s, own in sums.items() if s.softmax == number]).logsumexp(0)
        for number in {span.softmax for span in sums}
    }


def weigh_paper_r2g(paper_r2g: Tensor, emphasis: Tensor, layout: TokenLayout) -> None:
    """Weigh M_g by each place's emphasis, and let it sum to one again, in place.

    paper_r2g: as in `Marginals`. emphasis: (batch, softmaxes, generated).
    """
    paper_r2g *= torch.stack([emphasis[:, s.softmax] for s in layout.references], 1).unsqueeze(1)
    paper_r2g /= paper_r2g.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def leave_out_hidden(paper_r2g: Tensor) -> None:
    """Let M_g sum to one over g again: keys hidden from every query have no column. In place."""
    paper_r2g /= paper_r2g.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)


def fill_own_share(share: Tensor, layout: TokenLayout) -> None:
    """Fill in the share of the picture itself, zero so far: what others leave of one. In place."""
    if any(span.role is Role.GENERATED for span in layout.keys):
        torch.clamp(1 - share.sum(2), min=0, out=share[:, :, 1])
