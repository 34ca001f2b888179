"""Pick Best: several tries → those with the best scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from comfy_api.latest import io, ui
from comfy_execution.graph_utils import ExecutionBlocker
from torch import Tensor

from ...i2am.errors import I2AMError

_HIGHER, _LOWER = "higher", "lower"

Latent = dict[str, Any]


class PickBest(io.ComfyNode):
    """Images and latents, with scores → the best and the rest, in the order of their scores."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_PickBest",
            display_name="Pick Best",
            category="I2AM",
            description="Keeps the best of several tries by any score, such as IMACS. The tries "
            "can be a batch, or a list made with several seeds. The others come out as well.",
            search_aliases=["best of n", "rank", "sort", "select", "filter", "gate", "I2AM"],
            is_input_list=True,
            is_output_node=True,
            inputs=[
                io.Float.Input(
                    "scores",
                    force_input=True,
                    tooltip="One number for each picture, for example imacs_reference of IMACS.",
                ),
                io.Int.Input(
                    "count",
                    default=1,
                    optional=True,
                    min=1,
                    max=4096,
                    tooltip="How many to keep. If there are fewer, all are kept.",
                ),
                io.Combo.Input(
                    "better",
                    options=[_HIGHER, _LOWER],
                    default=_HIGHER,
                    optional=True,
                    tooltip="Whether a higher or a lower score is better.",
                ),
                io.Image.Input(
                    "images", optional=True, tooltip="The pictures: a batch, or a list of them."
                ),
                io.Latent.Input(
                    "samples", optional=True, tooltip="Their latents: a batch, or a list of them."
                ),
            ],
            outputs=[
                io.Image.Output(
                    display_name="images",
                    is_output_list=True,
                    tooltip="The best pictures, best first. A batch comes back as a batch, a list "
                    "as a list.",
                ),
                io.Latent.Output(
                    display_name="samples",
                    is_output_list=True,
                    tooltip="The best latents, best first, each with its own mask and number.",
                ),
                io.Int.Output(
                    display_name="indices",
                    is_output_list=True,
                    tooltip="Which ones were picked, counted from 0, best first.",
                ),
                io.Float.Output(
                    display_name="scores",
                    is_output_list=True,
                    tooltip="The scores of the picked ones, best first.",
                ),
                io.Image.Output(
                    display_name="rest_images",
                    is_output_list=True,
                    tooltip="All other pictures, best first. If none is left, the nodes after it "
                    "do not run.",
                ),
                io.Latent.Output(
                    display_name="rest_samples",
                    is_output_list=True,
                    tooltip="All other latents, best first.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls,
        scores: list[Any],
        count: Sequence[int] = (1,),
        better: Sequence[str] = (_HIGHER,),
        images: list[Tensor] | None = None,
        samples: list[Latent] | None = None,
    ) -> io.NodeOutput:
        numbers = _flat(scores)
        order = rank(numbers, better[0])
        best, rest = order[: count[0]], order[count[0] :]
        pictures = [one for batch in images or () for one in batch.split(1)]
        latents = [one for latent in samples or () for one in _split(latent)]
        for name, found in (("images", pictures), ("samples", latents)):
            if found and len(found) != len(numbers):
                raise I2AMError(
                    f"Pick Best was given {len(numbers)} scores for {len(found)} {name}. Each "
                    "needs one score: connect the scores of these very pictures."
                )
        outputs: list[list[Any]] = []
        for chosen in (best, rest):
            outputs += [
                _joined(pictures, chosen, len(images or ()) == 1, "images", torch.cat),
                _joined(latents, chosen, len(samples or ()) == 1, "samples", _join),
            ]
        shown: dict[str, Any] = {"images": []}
        for number in best if pictures else ():
            shown["images"] += ui.PreviewImage(pictures[number], cls=cls).as_dict()["images"]
        text = "Best first: " + ", ".join(f"number {n} ({numbers[n]:.4g})" for n in order)
        return io.NodeOutput(
            outputs[0],
            outputs[1],
            best,
            [numbers[number] for number in best],
            outputs[2],
            outputs[3],
            ui={**shown, "i2am_text": [f"{text}\nNumbered from 0; {len(best)} kept."]},
        )


def rank(scores: Sequence[float], better: str) -> list[int]:
    """Scores → their numbers from 0, the best first; equal scores keep their order.

    Raises I2AMError for a score that is not a number.
    """
    for number, score in enumerate(scores):
        if math.isnan(score):
            raise I2AMError(
                f"Score {number} (from 0) is not a number, so it cannot be ranked. IMACS gives no "
                "number for a side without a mask: connect that mask, or use its other score."
            )
    return sorted(range(len(scores)), key=lambda n: scores[n], reverse=better == _HIGHER)


def _flat(scores: list[Any]) -> list[float]:
    """Scores → a flat list: other packs may send lists of scores over one wire."""
    return [
        float(number)
        for score in scores
        for number in (score if isinstance(score, (list, tuple)) else (score,))
    ]


def _split(latent: Latent) -> list[Latent]:
    """A latent → one latent for each picture, with its own mask and its number in the batch.

    The number makes a sampler draw the same noise for it as in the batch.
    """
    values = latent["samples"]
    if values.is_nested:
        raise I2AMError("These latents mix picture and sound, which cannot be picked from so far.")
    batch = len(values)
    numbers = latent.get("batch_index", range(batch))
    mask = latent.get("noise_mask")
    split: list[Latent] = []
    for number in range(batch):
        one = {**latent, "samples": values[number : number + 1], "batch_index": [numbers[number]]}
        if mask is not None:  # fewer masks than latents are repeated over the batch
            place = number % len(mask)
            one["noise_mask"] = mask[place : place + 1]
        split.append(one)
    return split


def _join(latents: list[Latent]) -> Latent:
    """Latents of one batch → one batch again."""
    joined = {**latents[0]}
    joined["samples"] = torch.cat([latent["samples"] for latent in latents])
    joined["batch_index"] = [number for latent in latents for number in latent["batch_index"]]
    if "noise_mask" in joined:
        joined["noise_mask"] = torch.cat([latent["noise_mask"] for latent in latents])
    return joined


def _joined(items: list[Any], chosen: list[int], batch: bool, name: str, join: Any) -> list[Any]:
    """The value of one output; if it is empty, a blocker keeps the nodes after it from running."""
    if not items:
        message = f"Pick Best has no {name} to give: its input {name} is not connected."
        return [ExecutionBlocker(message)]
    if not chosen:
        return [ExecutionBlocker(None)]
    picked = [items[number] for number in chosen]
    return [join(picked)] if batch else picked
