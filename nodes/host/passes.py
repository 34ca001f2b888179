"""Passes of the model: which rows of a batch are recorded, as which conditioning, read how."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ...i2am.errors import I2AMError
from ...i2am.recording import Prompt
from ...i2am.tokens import Picture, Region, TokenLayout
from ...i2am.tokens.architectures import Adapter, Architecture, Call, Forward, Layer
from .model_facts import forward_of, text_encoding
from .regions import active_regions

# What video models are given as references, besides reference latents.
_VIDEO_REFERENCES = {"clip_fea", "context_latents", "time_dim_concat", "ref_latent"}
_BRANCHES = {"conditional": "positive", "unconditional": "negative"}


@dataclass(frozen=True)
class PassLayouts:
    """The layer and layout of each call of a pass, read once: every evaluation repeats them."""

    architecture: Architecture
    forward: Forward
    _known: dict[object, tuple[Layer, TokenLayout] | None] = field(
        default_factory=dict[object, "tuple[Layer, TokenLayout] | None"]
    )

    def of(self, call: Call) -> tuple[Layer, TokenLayout] | None:
        """As `Architecture.read`."""
        identity = call.identity
        if identity not in self._known:
            read = self.architecture.read(self.forward, call)
            if read is not None:  # equal layouts become one object, which is quick to compare
                layer, layout = read
                layouts = (known[1] for known in self._known.values() if known is not None)
                read = layer, next((known for known in layouts if known == layout), layout)
            self._known[identity] = read
        return self._known[identity]


@dataclass(frozen=True)
class PassRows:
    """The rows of a pass's batch that one conditioning takes, and the region it acts on.

    prompt: its text. has_references: whether it is given any.
    """

    rows: slice
    layouts: PassLayouts
    region: Region | None
    prompt: Prompt | None
    has_references: bool


@dataclass
class ModelPass:
    """One pass of the model: what of it is recorded, and how many calls of each kind it made."""

    recorded: list[PassRows]
    calls: Counter[tuple[Any, ...]] = field(default_factory=Counter)


class PassReader:
    """Finds the recorded conditionings in the passes of one run.

    sides: of the whole latent, frames first. adapters: the IP-Adapters of the model, if any.
    """

    def __init__(
        self,
        guider: Any,
        branch: str,
        architecture: Architecture,
        layers: tuple[Layer, ...],
        sides: tuple[int, ...],
    ) -> None:
        self.adapters: tuple[Adapter, ...] = ()
        self.references: tuple[Picture, ...] = ()
        self.reference_latents: tuple[Tensor, ...] = ()  # as the conditioning holds them
        self.encodings: list[Tensor] = []  # of each prompt, by its number
        self._guider = guider
        self._branch_name = _BRANCHES[branch]
        self._architecture = architecture
        self._layers = layers
        self._sides = sides
        self._branch: int | None = None  # its place among the host's lists of conditionings
        self._regions: dict[Any, Region | None] = {}  # by uuid, those that act now
        self._seen: set[Any] = set()  # conditionings of the current evaluation
        self._given: dict[Any, list[Tensor]] = {}  # by uuid, the references each was given
        self._prompts: dict[Any, Prompt | None] = {}  # by uuid
        self._layouts: list[PassLayouts] = []

    def begin_evaluation(self) -> None:
        """The model is about to be evaluated again."""
        self._seen = set()

    def find_branch(
        self, lists: Iterable[list[dict[str, Any]] | None], x: Tensor, timestep: Tensor
    ) -> None:
        """Find the recorded branch among the host's lists of conditionings, and where each acts."""
        wanted = self._conditionings()
        names = [cond["uuid"] for cond in wanted]
        given = ([cond["uuid"] for cond in conds or ()] for conds in lists)
        self._branch = next((n for n, uuids in enumerate(given) if uuids == names), None)
        if names and self._branch is not None:
            self._regions = active_regions(wanted, x, timestep)

    def read(
        self, x: Tensor, context: Tensor | None, options: dict[str, Any], kwargs: dict[str, Any]
    ) -> ModelPass | None:
        """What of a pass belongs to the recorded branch; None if nothing does.

        x, context, options, kwargs: as APPLY_MODEL is given them. Guidance that evaluates a
        conditioning again with tampered attention comes second, so the first time a conditioning
        is seen in an evaluation is the one that counts. Raises I2AMError for tiles and windows.
        """
        named = {cond["uuid"]: cond for cond in self._conditionings()}
        uuids = options["uuids"]
        size = x.shape[0] // len(uuids)
        recorded: list[PassRows] = []
        # With areas the host gives one branch copies of the other's conditionings, uuid and all.
        for index, identity in enumerate(zip(uuids, options["cond_or_uncond"], strict=True)):
            cond = named.get(identity[0])
            if cond is None or identity in self._seen or identity[1] != self._branch:
                continue
            region = self._regions[identity[0]]
            self._check_size(x, region)
            self._seen.add(identity)
            forward = forward_of(
                *(self._guider, cond, x, context, options, kwargs, self._layers, self.adapters)
            )
            self._check_references(cond, forward)
            references = self._architecture.references(forward)
            self.references = references or self.references
            rows = slice(index * size, (index + 1) * size)
            of_cond = region, self._prompt_of(cond), bool(references)
            recorded.append(PassRows(rows, self._layouts_of(forward), *of_cond))
        return ModelPass(recorded) if recorded else None

    def _conditionings(self) -> list[dict[str, Any]]:
        """Those of the branch that is recorded."""
        return self._guider.conds.get(self._branch_name) or []

    def _layouts_of(self, forward: Forward) -> PassLayouts:
        """What was read of equal passes before."""
        for known in self._layouts:
            if known.forward == forward:
                return known
        self._layouts.append(PassLayouts(self._architecture, forward))
        return self._layouts[-1]

    def _prompt_of(self, cond: dict[str, Any]) -> Prompt | None:
        """The text of a conditioning; None if it has none."""
        if cond["uuid"] not in self._prompts:
            encoding = text_encoding(cond)
            number = next(
                (n for n, known in enumerate(self.encodings) if _same(known, encoding)),
                len(self.encodings),
            )
            if encoding is not None and number == len(self.encodings):
                self.encodings.append(encoding)
            prompt = None if encoding is None else Prompt(number, encoding.shape[1])
            self._prompts[cond["uuid"]] = prompt
        return self._prompts[cond["uuid"]]

    def _check_size(self, x: Tensor, region: Region | None) -> None:
        """The model must be given all of the latent, or all of the conditioning's region."""
        whole = self._sides if region is None else (*self._sides[:-2], *region.sides)
        if x.shape[2:] != whole:
            raise I2AMError(
                "Samplers that work in tiles or windows cannot be read so far: the model was "
                f"given {_sides(x.shape[2:])} of a latent of {_sides(whole)}. Use the whole "
                "picture."
            )

    def _check_references(self, cond: dict[str, Any], forward: Forward) -> None:
        """Conditionings that are combined must be given the same pictures, or maps would mix."""
        if cond["uuid"] in self._given:
            return
        pictures: list[Tensor] = list(cond.get("reference_latents") or ())
        self.reference_latents = self.reference_latents or tuple(pictures)
        for name in sorted(_VIDEO_REFERENCES & cond["model_conds"].keys()):
            given = cond["model_conds"][name].cond
            pictures += given if isinstance(given, list) else [given]
        for tokens in forward.image_tokens:
            text: Tensor = cond["model_conds"]["c_crossattn"].cond
            pictures.append(text[:, tokens.start : tokens.start + tokens.height * tokens.width])
        first = next(filter(None, self._given.values()), pictures)
        self._given[cond["uuid"]] = pictures
        if pictures and (
            len(first) != len(pictures)
            or not all(a is b or torch.equal(a, b) for a, b in zip(first, pictures, strict=True))
        ):
            raise I2AMError(
                "The references changed while sampling: conditionings that are combined hold "
                "different reference pictures. Give all of them the same ones."
            )


def _same(known: Tensor, encoding: Tensor | None) -> bool:
    return encoding is not None and torch.equal(known, encoding)


def _sides(shape: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in shape)
