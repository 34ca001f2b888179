"""One run's attention calls → a recording: choose calls, compute their marginals, add them up."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor

from ..attention import CallBatch, CallSignature, Marginals, SoftmaxSums, Workspace
from ..errors import I2AMError
from ..tokens import Grid, Picture, Region, TokenLayout, grid_of, in_ranges
from ..tokens.architectures.base import Architecture, Layer
from .call import RecordedCall
from .definitions import Definition, first_definition
from .freeze import freeze, header_of
from .host_copy import HostCopy
from .plan import BUDGETS, Plan, planned_steps, step_of_sigma
from .point_sums import PointSums
from .recording import Recording, Run
from .run_log import RunLog
from .running_sums import RunningSums
from .word_sums import Prompt, WordSums


class Recorder:
    """Records the attention of one sampling run. Belongs to that run.

    Calls are added up as they come. Several evaluations of one step are averaged, and so are
    several conditionings of one branch. Safe to call from several threads.
    """

    def __init__(
        self, plan: Plan, run: Run, architecture: Architecture, layers: tuple[Layer, ...]
    ) -> None:
        self.plan = plan
        self.run = run
        self.architecture = architecture
        self.layers = tuple(n for i, n in enumerate(layers) if in_ranges(plan.layers, i))
        self._numbers = {layer: number for number, layer in enumerate(self.layers)}
        self._budget = BUDGETS[plan.budget]
        self._wanted = frozenset(planned_steps(plan, len(run.schedule) - 1))
        self._lock = threading.Lock()
        self._threads = threading.local()  # a workspace for each thread
        self._log = RunLog(architecture.joint)
        self._sums = RunningSums()
        self._points = PointSums(plan.places, len(self._wanted)) if plan.places else None
        self._words = WordSums(len(self._wanted)) if plan.words else None
        self._small_calls = CallBatch[Layer]()  # of the open step
        self._level: HostCopy | None = None  # of the evaluation, if its step was not asked for yet
        self._recording = False  # whether the evaluation is within the plan, once that is known

    def begin_evaluation(self, sigma: float | HostCopy) -> bool:
        """Start an evaluation of the model at this noise level; return whether to record it.

        A level that is on its way from a card is looked at when the first call is added. By then
        the card has that call to work on, and need not wait for the processor. True until then.
        """
        with self._lock:
            self._find_step()  # of the evaluation before, if it had no calls
            if isinstance(sigma, HostCopy):
                self._level = sigma
                if not sigma.on_the_way:
                    self._find_step()
            else:
                self._begin_at(sigma)
            return self.wants_calls

    @property
    def wants_calls(self) -> bool:
        """Whether calls of the evaluation are recorded, as far as is known."""
        return self._recording or self._level is not None

    def _find_step(self) -> None:
        """Ask at which noise level the evaluation is, if that was not done yet."""
        if self._level is not None:
            level, self._level = self._level, None
            self._begin_at(float(level.arrived()[0]))

    def _begin_at(self, sigma: float) -> None:
        """Note an evaluation, and the step it begins, if it is within the plan."""
        step = step_of_sigma(self.run.schedule, sigma)
        self._recording = step in self._wanted
        if self._recording:
            if self._log.is_new(step):
                self._close_step()
                self._log.begin_step(step, sigma)
            self._log.begin_evaluation()

    def softmax_sums(
        self, layer: Layer, layout: TokenLayout, region: Region | None
    ) -> SoftmaxSums | None:
        """The sums that a tap fills with a call's softmax before the call is added.

        None if they are of no use for this call.
        """
        if layer not in self._numbers or region is not None or self._budget.side > 1:
            return None
        if not layout.references:
            return None
        return SoftmaxSums(layout, self.plan.correspondence) if SoftmaxSums.suits(layout) else None

    def add(
        self,
        layer: Layer,
        q: Tensor,
        k: Tensor,
        layout: TokenLayout,
        v: Tensor | None = None,
        *,
        scale: float | None = None,
        mask: Tensor | None = None,
        weights: Tensor | None = None,
        region: Region | None = None,
        observed: SoftmaxSums | None = None,
        log_sum: Tensor | None = None,
        prompt: Prompt | None = None,
        words_alone: bool = False,
    ) -> None:
        """Add the rows of one conditioning in one attention call; arguments as in `RecordedCall`.

        words_alone: the call is cross-attention to the text of a model that has its references in
        other calls. Raises I2AMError if the references differ from those of earlier calls.
        """
        if layer not in self._numbers:
            return
        if self.plan.effect and v is None:
            raise I2AMError("The effect of a reference needs the values of attention.")
        with self._lock:
            self._find_step()
            if not self._recording:
                return
        call = RecordedCall(
            *(q, k, layout, v if self.plan.effect else None),
            *(scale, mask, weights, region),
            output_weights=weights,
            observed=observed,
            log_sum=log_sum,
            prompt=prompt if self._words is not None else None,
        ).in_region()
        points = None
        if self._points is not None and layout.references:
            points = call.point_marginals(self.plan.places)
        turn = self._numbers[layer] + len(self._log.steps)
        call = call.thinned(self._budget.side, turn)
        signature = call.signature
        marginals = None
        if signature is None:
            marginals = call.marginals(self.plan, self._workspace)
        with self._lock:
            self._add_words(layer, call, marginals, words_alone)
            if words_alone:
                return
            if not self._sums.admit(layer, call.layout, region):
                raise I2AMError(
                    "The references changed while sampling: conditionings that are combined hold "
                    "different reference pictures. Give all of them the same ones."
                )
            self._log.note_call(call.layout)
            if self._points is not None and points is not None:
                self._points.add(layer, points)
            if marginals is not None:
                self._sums.add((layer,), marginals, call.layout, region, call.portions)
                self._log.ways[marginals.way] += 1
            elif signature is not None:
                if not self._small_calls.has_room(signature):
                    self._add_small_calls(signature)
                self._small_calls.put(layer, call.tensors, signature)

    @property
    def _workspace(self) -> Workspace:
        """This thread's workspace."""
        if not hasattr(self._threads, "workspace"):
            self._threads.workspace = Workspace()
        return self._threads.workspace

    def _add_words(
        self, layer: Layer, call: RecordedCall, marginals: Marginals | None, alone: bool
    ) -> None:
        """Add a call's maps of prompt tokens, if it has any. alone: as `words_alone` in `add`."""
        if self._words is None or marginals is None or marginals.words is None:
            return
        assert call.prompt is not None
        tokens = grid_of(call.layout.generated)
        self._words.apart |= alone
        self._words.add(layer, call.prompt, marginals.words, tokens, call.region, call.portions)

    def _add_small_calls(self, signature: CallSignature | None = None) -> None:
        """Compute small calls that wait, of one signature or all, together and add them."""
        for batch in self._small_calls.take(signature):
            q, k, v, log_sum, weights = batch.tensors
            call = RecordedCall(
                *(q, k, batch.signature.layout, v, batch.signature.scale),
                log_sum=log_sum,
                weights=weights,
            )
            marginals = call.marginals(self.plan, self._workspace)
            self._sums.add(batch.names, marginals, call.layout, None, call.portions)
            self._log.ways[marginals.way] += len(batch.names)

    def _close_step(self) -> None:
        """Send the sums of the finished step to the CPU, once a step, not once a layer."""
        self._add_small_calls()
        row = len(self._log.steps) - 1
        self._log.close_step(self._sums.close_step(row))
        if self._points is not None:
            self._points.close(row)
        if self._words is not None:
            self._words.close_step(row)

    @property
    def reference_count(self) -> int:
        """How many references the calls hold; 0 before the first."""
        return self._sums.reference_count

    @property
    def best_definition(self) -> Definition:
        """The definition to show first, judging by the calls so far."""
        return first_definition(self.plan.recorded, self._log.joint)

    def step_of(self, row: int) -> int:
        """A recorded step's row → its number in the schedule."""
        return self._log.steps[row][0]

    def finished_maps(self, since: int) -> tuple[int, list[tuple[Grid, Tensor]]]:
        """The maps over the result of finished steps, from the recorded step `since` on.

        Returns how many steps are finished, and the maps of each new step and layer with their
        grid: (batch, kinds, cells), mean over heads. `kind_of` numbers the kinds.
        """
        with self._lock:
            self._sums.settle()
            return self._log.finished, [
                (side.grid, side.steps[row])
                for side in self._sums.generated.values()
                for row in range(since, self._log.finished)
                if row in side.steps
            ]

    def finish(
        self,
        references: tuple[Picture, ...],
        seconds: float = 0.0,
        encodings: Sequence[Tensor] = (),
    ) -> Recording:
        """Freeze the sums → the recording.

        references: what the model was given, on the grids of its tokens. encodings: by the
        number of a prompt, as in `Recording`. Raises I2AMError if nothing was recorded, or if the
        model's attention held values that are not numbers.
        """
        with self._lock:
            self._find_step()
            self._close_step()
            self._sums.settle()
            if self._points is not None:
                self._points.settle()
        rows = [row for row, counts in enumerate(self._log.counts) if counts]
        if not rows or not self._sums.reference_grids:
            raise I2AMError(_nothing_recorded(self.plan, self.run, self.architecture))
        plan, points = self.plan, self._points
        if not self._sums.reference_count:
            plan, points = plan.without_references, None
        parts = self._sums, self._log, points, self._words
        header = header_of(
            *(self.run, plan, self.architecture.name, self.layers),
            *(*parts, rows, references, seconds),
        )
        record = freeze(*parts, header, rows)
        prompts = () if self._words is None else self._words.prompts
        kept = {n: encodings[prompt.number] for n, prompt in enumerate(prompts) if encodings}
        return replace(record, encodings=kept)


def _nothing_recorded(plan: Plan, run: Run, architecture: Architecture) -> str:
    node, ran = "sampler", "Capture Attention asks for steps and layers that ran"
    if run.probed:
        node, ran = "node", "it asks for layers that ran"
    where = f"the positive conditioning of this {node}"
    if plan.branch != "conditional":
        where = "the negative conditioning of this sampler, that its cfg is not 1"
    return (
        f"Nothing was recorded: no attention of this {architecture.name} model held a "
        f"reference ({architecture.reference_kind}). Check that the references are "
        f"in {where}, and that {ran}."
    )
