"""The support report: what one needs to know to help, and nothing that is the artist's own.

Versions, kind of system, device, attention backend, the model's class, how completely it was
recorded and what went wrong. No paths, no prompts, no names; of errors that are not ours their kind
and the line they came from, since their messages may quote any of these.

It comes with what Collect Attribution shows (`i2am_support`), and where a node of ours fails as the
message `i2am.support` to the page: `node`, its id as prompts name it, and `text`.
"""

from __future__ import annotations

import platform
import sys
from types import TracebackType

import comfyui_version
import torch
from comfy import model_management
from comfy.ldm.modules.attention import optimized_attention

from ..i2am import __version__
from ..i2am.display import support_lines
from ..i2am.errors import I2AMError, fault_of
from ..i2am.recording import Refusal
from ..i2am.recording.recorder import Recording
from .host.page import to_page

MESSAGE = "i2am.support"


class Support:
    """Stands around what a node does: its report, and the page told of it where that fails.

    node: the id of the node as prompts name it. model: the class of the model, where it is at hand.
    record: what is known of the run, as soon as it is.
    """

    def __init__(self, node: str, model: str = "") -> None:
        self._node = node
        self._model = model
        self.record: Recording | Refusal | None = None

    def __enter__(self) -> Support:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        send = to_page()
        if send and isinstance(error, Exception):
            send(MESSAGE, {"node": self._node, "text": self.report(error)})

    def report(self, error: Exception | None = None) -> str:
        """The report; `error`: what the node is about to raise."""
        lines = [*_surroundings(), *self._run()]
        if error is not None:
            fault = self.record.fault if isinstance(self.record, Refusal) else ""
            ours = not fault and isinstance(error, I2AMError)
            lines.append(f"Failed: {error if ours else fault or fault_of(error)}")
        return "\n".join(lines)

    def _run(self) -> list[str]:
        if isinstance(self.record, Recording):
            return support_lines(self.record)
        if isinstance(self.record, Refusal):
            return [f"Model: {self.record.model} ({self.record.architecture}), not recorded"]
        return [f"Model: {self._model}"] if self._model else []


def _surroundings() -> list[str]:
    """Where all of this runs."""
    device = model_management.get_torch_device()
    memory = model_management.vram_state.name.lower().replace("_", " ")
    return [
        f"ComfyUI-I2AM {__version__}, ComfyUI {comfyui_version.__version__}, "
        f"Python {platform.python_version()}, torch {torch.__version__}",
        f"System: {sys.platform}; device: {model_management.get_torch_device_name(device)}; "
        f"memory: {memory}; attention: {optimized_attention.__name__}",
    ]
