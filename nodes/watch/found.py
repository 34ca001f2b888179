"""LATENT → the recording of the run that sampled it, for its whole batch or for some items."""

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
    """The record that was found for a latent.

    items: the items of its run's batch, of `batch` items, that the latent holds, from 0; empty if
    it is the run's whole latent.
    """

    record: Recording | Refusal | None
    items: tuple[int, ...] = ()
    batch: int = 0

    def readable(self, giver: Taker | None) -> Recording:
        """The recording of these items. Raises I2AMError with the reason if there is none.

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
        """Pictures or masks → those of the items, if given for the whole batch; else unchanged."""
        if given is None or not self.items or len(given) != self.batch:
            return given
        return given[list(self.items)]

    def text(self) -> str:
        """A line for the report; empty for a whole batch."""
        if not self.items:
            return ""
        numbers = ", ".join(str(item + 1) for item in self.items)
        whose = f"pictures {numbers}" if len(self.items) > 1 else f"picture {numbers}"
        return f"\nTaken from a batch: {whose} of {self.batch}"


def _whose(giver: Taker | None) -> str:
    """A latent's node → why it may be the reason that there is no recording."""
    if giver is None:
        return ""
    if not {"model", "guider"} & set(giver.links):
        return f"It comes out of {giver.name}, which may have changed it. "
    return (
        f"It comes out of {giver.name}. If that samples in tiles, or a part at a time (detailers, "
        "tiled upscalers), each part was a run of its own, and no map lies over all of it. "
    )


def find_run(latent: Tensor, plans: tuple[Plan, ...]) -> FoundRun:
    """A latent → the run that sampled it, alone or as part of a batch.

    plans: of the Capture Attention nodes above it, the nearest first. Raises I2AMError for latents
    that no single run can have recorded.
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
