"""One attention call → its sums: limited to its region, thinned by the budget, added up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ..attention import (
    CallSignature,
    CallTensors,
    Effects,
    Marginals,
    PointMarginals,
    SoftmaxSums,
    Workspace,
    attention_effects,
    attention_marginals,
    point_coverage,
    point_marginals,
)
from ..tokens import (
    WHOLE_PICTURE,
    PointQuery,
    Region,
    Role,
    Span,
    TokenLayout,
    grid_of,
    region_weights,
)
from .plan import THINNED_SIDE, Plan
from .word_sums import Prompt

_NOWHERE = torch.zeros(())  # portions, for a call without a region


@dataclass(frozen=True)
class RecordedCall:
    """The rows of one conditioning in one attention call.

    q, k, layout, scale, mask, weights, observed, log_sum: as in `attention_marginals`. v: as in
    `attention_effects`, if the effect is recorded. region: where the conditioning acts, if it is
    one of several or limited to a part. portions: how much it counts at each of the region's
    tokens, (1 or batch, tokens). output_weights: the weights without the region's portions. prompt:
    the conditioning's text, if words are recorded.
    """

    q: Tensor
    k: Tensor
    layout: TokenLayout
    v: Tensor | None = None
    scale: float | None = None
    mask: Tensor | None = None
    weights: Tensor | None = None
    region: Region | None = None
    portions: Tensor = _NOWHERE
    output_weights: Tensor | None = None
    observed: SoftmaxSums | None = None
    log_sum: Tensor | None = None
    prompt: Prompt | None = None

    def in_region(self) -> RecordedCall:
        """The call with its region's portions included in the weights of its softmaxes."""
        if self.region is None:
            return self
        portions = self.region.token_portions(grid_of(self.layout.generated))
        weights = region_weights(self.weights, portions, self.layout, self.q)
        return replace(self, portions=portions, weights=weights)

    def thinned(self, side: int, turn: int) -> RecordedCall:
        """The call with one query for each `side` × `side` generated tokens, in place of them all.

        turn: selects one of the `side`² tokens. Consecutive turns go through all of them, so a mean
        over that many layers or steps leaves no token out. A grid with fewer than THINNED_SIDE
        tokens a side is not thinned, nor is the call of a region.
        """
        grid = self.layout.generated.grid
        if side == 1 or self.region is not None or grid is None or min(grid.sides) < THINNED_SIDE:
            return self
        tokens, layout = _thinned(self.layout, side, turn % side**2, self.q.device)
        mask = self.mask
        if mask is not None and mask.shape[-2] > 1:
            mask = mask[..., tokens, :]
        return replace(
            self,
            q=self.q[:, :, tokens],
            layout=layout,
            mask=mask,
            weights=_rows_of(self.weights, tokens),
            output_weights=_rows_of(self.output_weights, tokens),
            log_sum=_rows_of(self.log_sum, tokens),
        )

    @property
    def tensors(self) -> CallTensors:
        """What small calls are stacked of."""
        return CallTensors(self.q, self.k, self.v, self.log_sum, self.weights)

    @property
    def signature(self) -> CallSignature | None:
        """What small calls must share to be computed together.

        None if the call is large, observed, masked or of a region, if its words are recorded, or
        the effect of one that is weighted.
        """
        if self.prompt is not None or self.region is not None:
            return None
        if self.observed is not None or self.mask is not None:
            return None
        if self.weights is not None and self.v is not None:
            return None
        signature = CallSignature.of(self.tensors, self.layout, self.scale)
        return signature if signature.is_small else None

    def marginals(self, plan: Plan, workspace: Workspace) -> Marginals:
        """The call's sums over the result and over each reference, as planned."""
        marginals = attention_marginals(
            self.q,
            self.k,
            self.layout,
            scale=self.scale,
            mask=self.mask,
            weights=self.weights,
            correspondence=plan.correspondence,
            paper=plan.paper,
            workspace=workspace,
            observed=self.observed,
            log_sum=self.log_sum,
            prompt=0 if self.prompt is None else self.prompt.tokens,
        )
        if self.v is None or not self.layout.references:
            return marginals
        return replace(marginals, effects=self._effects(correspondence=plan.correspondence))

    def _effects(self, **asked: Any) -> Effects:
        """The effects of the call's references. asked: more arguments of `attention_effects`."""
        assert self.v is not None
        return attention_effects(
            self.q,
            self.k,
            self.v,
            self.layout,
            scale=self.scale,
            mask=self.mask,
            weights=self.output_weights,
            portions=None if self.region is None else self.portions,
            **asked,
        )

    def point_marginals(self, points: tuple[PointQuery, ...]) -> PointMarginals:
        """The exact rows and columns of these points."""
        part = WHOLE_PICTURE if self.region is None else self.region.part
        marginals = point_marginals(
            self.q,
            self.k,
            self.layout,
            points,
            scale=self.scale,
            mask=self.mask,
            weights=self.weights,
            part=part,
            portions=None if self.region is None else self.portions,
            observed=self.observed,
        )
        if self.v is None:
            return marginals
        covered = point_coverage(points, self.layout, part, self.q.device)
        on_result, *on_references = (one.cover for one in covered)
        effects = self._effects(
            correspondence=False, result_points=on_result, reference_points=tuple(on_references)
        )
        return marginals.with_effects(effects, grid_of(self.layout.generated), part)


@lru_cache(maxsize=64)  # copied for each call, tokens would make the processor wait for a card
def _thinned(
    layout: TokenLayout, side: int, turn: int, device: torch.device
) -> tuple[Tensor, TokenLayout]:
    """Which queries stay if there is one for each `side` × `side` tokens, and their layout.

    turn: from 0 to side² − 1.
    """
    grid = grid_of(layout.generated)
    coarse = grid.merged(side)
    down, across = turn % side, (turn + turn // side) % side
    rows = (torch.arange(coarse.height) * side + down).clamp(max=grid.height - 1)
    columns = (torch.arange(coarse.width) * side + across).clamp(max=grid.width - 1)
    frames = torch.arange(grid.frames) * grid.height * grid.width
    tokens = frames[:, None, None] + rows[:, None] * grid.width + columns + layout.generated.start
    tokens = tokens.flatten()
    if layout.query_order is not None:
        tokens = torch.tensor(layout.query_order)[tokens]
    queries = Span(Role.GENERATED, 0, coarse.area, coarse)
    return tokens.to(device), replace(layout, queries=(queries,), query_order=None)


def _rows_of(values: Tensor | None, tokens: Tensor) -> Tensor | None:
    """(…, queries) → the same for some of them."""
    return None if values is None else values[..., tokens]
