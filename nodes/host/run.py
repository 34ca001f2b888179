"""One sampling run's recording, from its start until it is filed, or until something ends it.

Nothing here raises: what goes wrong ends the recording and not the picture, and is told by the node
that asks for the recording.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from torch import Tensor

from ...i2am.display import Live
from ...i2am.errors import I2AMError, LayoutMismatch, fault_of
from ...i2am.recording import (
    HostCopy,
    Plan,
    Recorder,
    Recording,
    Refusal,
    fingerprints,
    item_fingerprints,
    with_reference_latents,
)
from ...i2am.tokens import Picture
from ..sockets import RECORDINGS
from .page import live_maps

_log = logging.getLogger(__name__)


class RecordedRun:
    """Holds the recorder of one run, alone: what it gives up is free memory at once.

    node: the Capture Attention node that shows live maps; "" for none. asked: the plan as Capture
    Attention's settings say it, by which the recording is found. take: is given the record instead
    of the store.
    """

    def __init__(
        self,
        recorder: Recorder,
        node: str,
        asked: Plan,
        take: Callable[[Recording | Refusal], None] | None = None,
    ) -> None:
        self.recorder: Recorder | None = recorder
        self.plan = recorder.plan
        self._asked = asked
        self._take = take
        self.architecture = recorder.architecture
        self._model = recorder.run.model
        self._live = live_maps(recorder, node) if node else None
        self._reason = self._fault = ""

    def stop(self, reason: str, fault: str = "") -> None:
        """Give up recording, and say why when asked."""
        self._reason, self._fault, self.recorder, self._live = reason, fault, None, None

    def stop_for(self, error: Exception) -> None:
        """Give up recording because of an error."""
        if isinstance(error, LayoutMismatch):
            self.stop(
                f"The tokens of this {self._model} model are not where "
                f"{self.architecture.name} models keep them: {error}. Please report it; a patch "
                "of another node that adds or removes tokens can be the cause."
            )
        elif isinstance(error, I2AMError):
            self.stop(str(error))
        else:
            _log.warning("I2AM: recording stopped, the picture is not affected", exc_info=error)
            self.stop(
                f"Recording stopped with {type(error).__name__}: {error}. The picture is not "
                "affected. If memory ran out, record fewer layers or steps.",
                fault_of(error),
            )

    def begin_evaluation(self, timestep: Tensor) -> bool:
        """The model is about to be evaluated; whether to record it. Shows the page what is new."""
        wanted = False
        try:
            if self.recorder is not None:
                sigma = HostCopy([timestep.flatten()[:1]])
                wanted = self.recorder.begin_evaluation(sigma)
        except Exception as error:
            self.stop_for(error)
        self._show(Live.look)
        return wanted

    def publish(
        self,
        latents: Callable[[], list[Tensor]],
        references: tuple[Picture, ...],
        given: tuple[Tensor, ...],
        encodings: Sequence[Tensor],
        seconds: float,
    ) -> None:
        """File the recording, or why there is none, under the latents the run gave.

        given: the reference latents of the conditioning. encodings: of its prompts.
        """
        try:
            if self.recorder is not None:
                try:
                    record = self.recorder.finish(references, seconds, encodings)
                    self._file(with_reference_latents(record, given), latents)
                    self._show(Live.finish)
                    return
                except Exception as error:
                    self.stop_for(error)
            self._file(
                Refusal(self.plan, self._reason, self._model, self.architecture.name, self._fault),
                latents,
            )
        except Exception as error:
            _log.warning("I2AM: the recording was lost, the picture is not", exc_info=error)

    def _file(self, record: Recording | Refusal, latents: Callable[[], list[Tensor]]) -> None:
        if self._take is not None:
            self._take(record)
            return
        made = latents()
        names = tuple(name for latent in made for name in fingerprints(latent))
        RECORDINGS.put(names, record, item_fingerprints(made), self._asked)

    def _show(self, what: Callable[[Live], None]) -> None:
        """Tell the page; if that fails it is told nothing more, and all else goes on."""
        if self._live is None or self.recorder is None:
            return
        try:
            what(self._live)
        except Exception as error:
            _log.warning("I2AM: the page is not told of this run any more", exc_info=error)
            self._live = None
