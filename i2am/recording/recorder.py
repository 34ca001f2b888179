"""Plan → Recorder → Recording: the thing that adds up."""

from __future__ import annotations

import threading
from dataclasses import replace

import torch
from torch import Tensor

from ..attention import (
    CallBatch,
    CallSignature,
    Marginals,
    PointMarginals,
    SoftmaxSums,
    Workspace,
    attention_marginals,
    correspondence_grid,
    point_marginals,
)
from ..errors import I2AMError
from ..tokens import (
    WHOLE_PICTURE,
    Grid,
    Picture,
    Region,
    Role,
    Span,
    TokenLayout,
    grid_of,
    in_ranges,
    mean_over_cells,
    region_weights,
    spread,
)
from ..tokens.architectures.base import Architecture, Layer
from .plan import BUDGETS, THINNED_SIDE, Plan, planned_steps, step_of_sigma
from .point_sums import PointSums
from .recording import Header, Recording, Run, map_grid
from .running_sums import (
    LayerMaps,
    RunningCorrespondence,
    StepSums,
    finest_grid,
    region_correspondence,
    stack_layers,
    to_map_grids,
)


class Recorder:
    """Adds up the attention of one sampling run. Owned by that run, gone with it.

    Everything is folded in as it comes: memory grows with tokens, layers and steps, never with
    the square of tokens. Several evaluations of one step, and several conditionings of one branch,
    count as one by their mean. Safe to call from several threads.
    """

    def __init__(
        self, plan: Plan, run: Run, architecture: Architecture, layers: tuple[Layer, ...]
    ) -> None:
        self.plan = plan
        self.run = run
        self.architecture = architecture
        self.layers = tuple(
            layer for number, layer in enumerate(layers) if in_ranges(plan.layers, number)
        )
        self._budget = BUDGETS[plan.budget]
        count = len(run.schedule) - 1
        self._wanted = frozenset(planned_steps(plan, count))
        self._lock = threading.Lock()
        self._threads = threading.local()  # each thread has a workspace of its own
        self._steps: list[tuple[int, float]] = []  # number in the schedule, noise level
        self._counts: list[dict[Layer, int]] = []
        self._open: dict[Layer, StepSums] = {}
        self._generated: dict[Layer, LayerMaps] = {}
        self._references: dict[Layer, tuple[LayerMaps, ...]] = {}
        self._matches: dict[tuple[int, Grid, Grid], RunningCorrespondence] = {}
        self._points = PointSums(plan.places, len(self._wanted)) if plan.places else None
        self._waiting = CallBatch[Layer]()  # small calls of the open step
        self._layer_grids: dict[Layer, Grid] = {}
        self._pictures: dict[Layer, tuple[Grid, ...]] = {}
        self._expected = self._evaluations = 0
        self._finished = 0  # how many of the steps are closed
        self._joint = architecture.joint
        self._keys: tuple[int, ...] = ()
        self._seen = True  # whether the evaluation under way has been recorded

    def step_of_sigma(self, sigma: float) -> int:
        """The step of the schedule that a noise level belongs to: the last one not below it."""
        return step_of_sigma(self.run.schedule, sigma)

    def begin_evaluation(self, sigma: float) -> bool:
        """The model is about to be evaluated at this noise level; whether to record it."""
        step = self.step_of_sigma(sigma)
        if step not in self._wanted:
            return False
        with self._lock:
            if not self._steps or self._steps[-1][0] != step:
                self._close_step()
                self._steps.append((step, sigma))
                self._counts.append({})
            self._expected += 1
            self._seen = False
        return True

    def hearing(
        self, layer: Layer, layout: TokenLayout, region: Region | None
    ) -> SoftmaxSums | None:
        """What may be told a call's softmax before the call is added; None if it is of no use."""
        if layer not in self.layers or region is not None or self._budget.side > 1:
            return None
        return SoftmaxSums(layout, self.plan.correspondence) if SoftmaxSums.suits(layout) else None

    def add(
        self,
        layer: Layer,
        q: Tensor,
        k: Tensor,
        layout: TokenLayout,
        *,
        scale: float | None = None,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        region: Region | None = None,
        observed: SoftmaxSums | None = None,
    ) -> None:
        """Fold in one attention call, of the rows of one conditioning.

        q, k, scale, mask, weights, observed: as `attention_marginals` takes them. region: where the
        conditioning acts, if it is one of several or is limited to a part. Raises I2AMError if
        the references are not those of the calls before.
        """
        if layer not in self.layers:
            return
        portions = torch.zeros(())
        if region is not None:
            portions = region.of_tokens(grid_of(layout.generated))
            weights = region_weights(weights, portions, layout, q)
        looked = None
        if self._points is not None:
            looked = point_marginals(
                q,
                k,
                layout,
                self.plan.places,
                scale=scale,
                mask=mask,
                weights=weights,
                part=WHOLE_PICTURE if region is None else region.part,
                portions=None if region is None else portions,
                observed=observed,
            )
        if region is None and self._budget.side > 1:
            turn = self.layers.index(layer) + len(self._steps)
            q, layout, mask, weights = _thinned(self._budget.side, turn, q, layout, mask, weights)
        kind = CallSignature.of(q, k, layout, scale)
        if observed is None and mask is None and weights is None and kind.is_small:
            with self._lock:
                self._look(layer, layout, looked, None)
                if not self._waiting.has_room(kind):
                    self._fold_waiting()
                self._waiting.put(layer, q, k, kind)
            return
        marginals = attention_marginals(
            q,
            k,
            layout,
            scale=scale,
            mask=mask,
            weights=weights,
            correspondence=self.plan.correspondence,
            workspace=self._workspace,
            observed=observed,
        )
        with self._lock:
            self._look(layer, layout, looked, region)
            self._fold((layer,), marginals, layout, region, portions)

    @property
    def _workspace(self) -> Workspace:
        """This thread's own."""
        if not hasattr(self._threads, "workspace"):
            self._threads.workspace = Workspace()
        return self._threads.workspace

    def _look(
        self,
        layer: Layer,
        layout: TokenLayout,
        looked: PointMarginals | None,
        region: Region | None,
    ) -> None:
        """Note what a call is one of. Raises I2AMError if it has other references."""
        pictures = tuple(grid_of(span) for span in layout.references)
        if self._pictures.setdefault(layer, pictures) != pictures:
            raise I2AMError(
                "The references changed while sampling: conditionings that are combined hold "
                "different reference pictures. Give all of them the same ones."
            )
        self._joint = any(span.role is Role.GENERATED for span in layout.keys)
        self._keys = max(self._keys, _key_counts(layout), key=sum)
        if layer not in self._generated:
            tokens = grid_of(layout.generated)
            grid = tokens if region is None else region.part.whole(tokens)
            self._layer_grids[layer] = grid
            self._generated[layer] = LayerMaps(map_grid(grid))
            self._references[layer] = tuple(LayerMaps(map_grid(p)) for p in pictures)
        if self._points is not None and looked is not None:
            self._points.add(layer, looked)
        if not self._seen:
            self._seen = True
            self._evaluations += 1

    def _fold_waiting(self) -> None:
        """Take the sums of the small calls that wait."""
        batch = self._waiting.take()
        if batch is None:
            return
        layout = batch.kind.layout
        marginals = attention_marginals(
            batch.q,
            batch.k,
            layout,
            scale=batch.kind.scale,
            correspondence=self.plan.correspondence,
            workspace=self._workspace,
        )
        self._fold(batch.names, marginals, layout, None, torch.zeros(()))

    def _fold(
        self,
        layers: tuple[Layer, ...],
        marginals: Marginals,
        layout: TokenLayout,
        region: Region | None,
        portions: Tensor,
    ) -> None:
        """Add up the sums of one call of each of these layers, one after the other in the batch."""
        tokens = grid_of(layout.generated)
        pictures = self._pictures[layers[0]]  # the same of all of them: their layouts are
        sums = to_map_grids(marginals, tokens, pictures, region, portions)
        for layer, one in zip(layers, sums.split(len(layers)), strict=True):
            if layer in self._open:
                self._open[layer].add(one)
            else:
                self._open[layer] = one
        grid = tokens if region is None else region.part.whole(tokens)
        for index, match in enumerate(marginals.correspondence):
            key = (index, correspondence_grid(grid), correspondence_grid(pictures[index]))
            found = self._matches.setdefault(key, RunningCorrespondence())
            if region is None:
                count = len(layers)
                each = match.view(count, -1, *match.shape[1:])
                found.add(each.sum(0) if count > 1 else match, layers, float(count))
            else:
                match, weight = region_correspondence(match, tokens, key[1], region.part, portions)
                found.add(match, layers, weight)

    def _close_step(self) -> None:
        """Move what the finished step added up to the CPU: once a step, not once a layer."""
        self._fold_waiting()
        step = len(self._steps) - 1
        for layer, sums in self._open.items():
            sides = (self._generated[layer], *self._references[layer])
            for side, maps in zip(sides, (sums.generated, *sums.references), strict=True):
                side.close(step, sums.mean(maps).cpu())
            self._counts[step][layer] = sums.count
        self._open = {}
        for matches in self._matches.values():
            matches.close()
        if self._points is not None:
            self._points.close(step)
        self._finished = len(self._steps)

    @property
    def joint(self) -> bool:
        """Whether text, result and references share one softmax, as far as calls have shown."""
        return self._joint

    def step_of(self, row: int) -> int:
        """The number in the schedule of a recorded step."""
        return self._steps[row][0]

    def finished_maps(self, since: int) -> tuple[int, list[tuple[Grid, Tensor]]]:
        """What was brought to the CPU of the recorded steps from `since` on, but for the open one.

        How many steps are finished by now; and for each of the new ones and each layer the maps
        over the result on their grid, (batch, kinds, cells), mean over heads.
        """
        with self._lock:
            return self._finished, [
                (side.grid, side.steps[row])
                for side in self._generated.values()
                for row in range(since, self._finished)
                if row in side.steps
            ]

    def finish(self, references: tuple[Picture, ...], seconds: float = 0.0) -> Recording:
        """Freeze what was added up.

        references: what the model was given, on the grids of its tokens. Raises I2AMError if
        nothing was recorded, or the model's attention was not made of numbers.
        """
        with self._lock:
            self._close_step()
        steps = [number for number, counts in enumerate(self._counts) if counts]
        layers = tuple(layer for layer in self.layers if layer in self._generated)
        if not steps or not self._pictures:
            where = "the positive conditioning of this sampler"
            if self.plan.branch != "conditional":
                where = "the negative conditioning of this sampler, that its cfg is not 1"
            raise I2AMError(
                f"Nothing was recorded: no attention of this {self.architecture.name} model held a "
                f"reference ({self.architecture.reference_kind}). Check that the references are "
                f"in {where}, and that Capture Attention asks for steps and layers that ran."
            )
        generated = [self._generated[layer] for layer in layers]
        sides = [[self._references[layer][r] for layer in layers] for r in self._indices]
        grid = finest_grid(side.grid for side in generated)
        grids = [finest_grid(side.grid for side in over_one) for over_one in sides]
        arrays = self._map_arrays(steps, generated, sides, grid, grids)
        arrays |= self._match_arrays()
        if self._points is not None:
            arrays |= self._points.arrays(steps, layers)
        if not all(bool(array.isfinite().all()) for array in arrays.values()):
            raise I2AMError(
                "The model's attention held values that are not numbers, so there is no map. "
                "Sample in a precision the model can bear (fp32 or bf16 instead of fp16)."
            )
        header = Header(
            run=self.run,
            plan=self.plan,
            architecture=self.architecture.name,
            joint=self._joint,
            steps=tuple(self._steps[step][0] for step in steps),
            sigmas=tuple(self._steps[step][1] for step in steps),
            layers=layers,
            layer_grids=tuple(self._layer_grids[layer] for layer in layers),
            heads=tuple(side.heads.shape[1] for side in generated),
            counts=tuple(
                tuple(self._counts[step].get(layer, 0) for layer in layers) for step in steps
            ),
            generated=Picture(grid, self.run.latent, "result"),
            references=tuple(
                Picture(g, given.latent, given.kind)
                for g, given in zip(grids, references, strict=True)
            ),
            evaluations=self._evaluations,
            expected_evaluations=self._expected,
            expected_layers=len(self.layers),
            seconds=seconds,
            keys=self._keys,
            token_grids=() if self._points is None else self._points.grids(),
            step_groups=() if self._points is None else self._points.groups(steps),
        )
        return Recording(header, arrays)

    @property
    def _indices(self) -> range:
        return range(len(next(iter(self._pictures.values()), ())))

    def _map_arrays(
        self,
        steps: list[int],
        generated: list[LayerMaps],
        references: list[list[LayerMaps]],
        grid: Grid,
        grids: list[Grid],
    ) -> dict[str, Tensor]:
        """The arrays of maps and shares."""
        count = len(references)
        step_layer, layer_head = stack_layers(steps, generated, grid)
        arrays: dict[str, Tensor] = {}
        for r in range(count):
            over_reference = stack_layers(steps, references[r], grids[r])
            for kind, definition in ((2 + count + r, "paper"), (2 + r, "model")):
                arrays[f"{definition}.r2g.{r}.step_layer"] = step_layer[:, :, :, kind]
                arrays[f"{definition}.r2g.{r}.layer_head"] = layer_head[:, :, :, kind]
            for kind, definition in enumerate(("paper", "model")):
                for name, maps in zip(("step_layer", "layer_head"), over_reference, strict=True):
                    arrays[f"{definition}.g2r.{r}.{name}"] = maps[:, :, :, kind]
        shares = slice(0, 2 + count)
        arrays["share.step_layer"] = step_layer[:, :, :, shares].flatten(4).sum(-1)
        places = torch.zeros(())
        for side in generated:
            mean = side.heads[:, :, shares].mean(1)
            even = mean.new_full((side.grid.area,), 1 / side.grid.area)
            places = places + spread(mean, side.grid, grid) / spread(even, side.grid, grid)
        share_map = places / len(generated)
        arrays["share.map"] = share_map.reshape(*share_map.shape[:-1], *grid.shape)
        return {name: array.contiguous() for name, array in arrays.items()}

    def _match_arrays(self) -> dict[str, Tensor]:
        """The arrays of correspondence: layers of different grids brought to the finest."""
        arrays: dict[str, Tensor] = {}
        for r in self._indices if self._matches else ():
            pairs = {key[1:]: found for key, found in self._matches.items() if key[0] == r}
            rows = finest_grid(pair[0] for pair in pairs)
            columns = finest_grid(pair[1] for pair in pairs)
            total = torch.zeros(())
            for (looking, looked_at), found in pairs.items():
                match = spread(found.mean, looked_at, columns)
                total = total + len(found.layers) * mean_over_cells(match, looking, rows)
            mean = total / sum(len(found.layers) for found in pairs.values())
            sides = (rows.height, rows.width, columns.height, columns.width)
            arrays[f"correspondence.{r}"] = mean[:, 0].reshape(-1, *sides).contiguous()
            arrays[f"correspondence.model.{r}"] = mean[:, 1].reshape(-1, *sides).contiguous()
        return arrays


def _key_counts(layout: TokenLayout) -> tuple[int, ...]:
    """How many keys are text, the picture's own and each reference's; none of several softmaxes."""
    if any(span.softmax for span in layout.keys):
        return ()
    own = sum(span.length for span in layout.keys if span.role is Role.GENERATED)
    references = tuple(span.length for span in layout.references)
    return layout.key_count - own - sum(references), own, *references


def _thinned(
    side: int,
    turn: int,
    q: Tensor,
    layout: TokenLayout,
    mask: Tensor | None,
    weights: Tensor | None,
) -> tuple[Tensor, TokenLayout, Tensor | None, Tensor | None]:
    """A call with one of `side` × `side` generated queries, each standing for those around it.

    turn: which one, counted on; over `side`² layers or steps each has its turn, so that what is
    averaged over them leaves no place out.
    """
    span, grid = layout.generated, layout.generated.grid
    if grid is None or min(grid.sides) < THINNED_SIDE:
        return q, layout, mask, weights
    coarse = grid.with_tokens_of(side)
    down, across = turn % side, (turn + turn // side) % side
    rows = (torch.arange(coarse.height) * side + down).clamp(max=grid.height - 1)
    columns = (torch.arange(coarse.width) * side + across).clamp(max=grid.width - 1)
    frames = torch.arange(grid.frames) * grid.height * grid.width
    places = frames[:, None, None] + rows[:, None] * grid.width + columns + span.start
    places = places.flatten()
    if layout.query_order is not None:
        places = torch.tensor(layout.query_order)[places]
    places = places.to(q.device)
    if mask is not None and mask.shape[-2] > 1:
        mask = mask[..., places, :]
    asking = Span(Role.GENERATED, 0, coarse.area, coarse)
    return (
        q[:, :, places],
        replace(layout, queries=(asking,), query_order=None),
        mask,
        None if weights is None else weights[..., places],
    )
