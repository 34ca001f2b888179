"""A LATENT → the recording of the run that sampled it, whole or taken out of its batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from torch import Tensor

from ...i2am.errors import I2AMError
from ...i2am.recording import Plan, Recording, Refusal, fingerprint, take_items
from ..sockets import RECORDINGS
from .upstream import Taker

_Given = TypeVar("_Given", Tensor, Tensor | None)


@dataclass(frozen=True)
class FoundRun:
    """What was found for a latent.

    items: which of the `batch` items of its run it holds, from 0; empty if it is the run's own
    latent, all of it.
    """

    record: Recording | Refusal | None
    items: tuple[int, ...] = ()
    batch: int = 0

    def readable(self, giver: Taker | None) -> Recording:
        """The recording of these items. Raises I2AMError where there is none, and says why.

        giver: the node that the latent comes from.
        """
        if isinstance(self.record, Recording):
            return take_items(self.record, self.items) if self.items else self.record
        if isinstance(self.record, Refusal):
            raise I2AMError(self.record.reason)
        raise I2AMError(
            f"No recording belongs to this latent. {_whose(giver)}It must come straight from a "
            "sampler whose model went through Capture Attention: connect the sampler's own LATENT, "
            "and put Capture Attention before the sampler. If it was sampled before ComfyUI was "
            f"restarted or its recording was lost to newer ones ({len(RECORDINGS)} are kept), "
            "sample it again, for instance with another seed and back."
        )

    def own(self, given: _Given) -> _Given:
        """Of pictures or masks given for the whole batch, those of the items; all else as it is."""
        if given is None or not self.items or len(given) != self.batch:
            return given
        return given[list(self.items)]

    def text(self) -> str:
        """A line of the report."""
        if not self.items:
            return ""
        numbers = ", ".join(str(item + 1) for item in self.items)
        whose = f"pictures {numbers}" if len(self.items) > 1 else f"picture {numbers}"
        return f"\nTaken from a batch: {whose} of {self.batch}"


def _whose(giver: Taker | None) -> str:
    """Why the node that gives a latent may be the reason that it has no recording."""
    if giver is None:
        return ""
    if not {"model", "guider"} & set(giver.links):
        return f"It comes out of {giver.name}, which may have changed it. "
    return (
        f"It comes out of {giver.name}. If that samples in tiles, or a part at a time (detailers, "
        "tiled upscalers), each part was a run of its own, and no map lies over all of it. "
    )


def find_run(latent: Tensor, plans: tuple[Plan, ...]) -> FoundRun:
    """The run that sampled this latent, alone or as a part of its batch.

    plans: of the Capture Attention nodes above it, the nearest first. Raises I2AMError for what
    cannot be found by its nature.
    """
    if latent.is_nested:
        raise I2AMError("This latent mixes picture and sound, which cannot be read so far.")
    record = RECORDINGS.get(fingerprint(latent), plans)
    if record is not None:
        return FoundRun(record)
    names = [fingerprint(latent[item : item + 1]) for item in range(len(latent))]
    record, items = RECORDINGS.get_items(names, plans)
    if isinstance(record, Recording):
        return FoundRun(record, items, record.header.run.batch)
    if record is None and len(names) > 1 and all(_is_known(name, plans) for name in names):
        raise I2AMError(
            f"The {len(names)} pictures of this latent were sampled in different runs, and each "
            "run has a recording of its own. Connect the latent of one sampler, or take out one "
            "picture with Latent From Batch."
        )
    return FoundRun(record)


def _is_known(name: str, plans: tuple[Plan, ...]) -> bool:
    """Whether a single latent was sampled in any run."""
    alone = RECORDINGS.get(name, plans)
    return alone is not None or RECORDINGS.get_items([name], plans)[0] is not None
