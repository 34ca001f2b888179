"""The support report: what someone needs to know to help, and nothing private.

It holds versions, system, device, attention backend, the class of the model, how completely it was
recorded and what went wrong. It holds no paths, prompts or names. Of an error that is not ours, it
gives only the kind and the line it came from: the message may quote any of these.

Collect Attribution shows the report (`i2am_support`). When a node fails, the page gets it as the
message `i2am.support`: `node`, the node's id in the prompt, and `text`.
"""

from __future__ import annotations

import platform
import sys
from types import TracebackType

import comfyui_version
import torch
from comfy import model_management
from comfy.ldm.modules.attention import optimized_attention

from ...i2am import __version__
from ...i2am.display import support_lines
from ...i2am.errors import I2AMError, fault_of
from ...i2am.recording import Recording, Refusal
from ..host.page import page_sender

MESSAGE = "i2am.support"


class SupportReport:
    """A context around a node's work: makes the report, and sends it to the page on failure.

    node: the node's id in the prompt. model: the class of the model, if known. record: set it once
    the run's record is found.
    """

    def __init__(self, node: str, model: str = "") -> None:
        self._node = node
        self._model = model
        self.record: Recording | Refusal | None = None

    def __enter__(self) -> SupportReport:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        send = page_sender()
        if send and isinstance(error, Exception):
            send(MESSAGE, {"node": self._node, "text": self.text(error)})

    def text(self, error: Exception | None = None) -> str:
        """The report, one fact a line. error: the one that the node is about to raise."""
        lines = [*_environment(), *self._run()]
        if error is not None:
            fault = self.record.fault if isinstance(self.record, Refusal) else ""
            ours = not fault and isinstance(error, I2AMError)
            lines.append(f"Failed: {error if ours else fault or fault_of(error)}")
        return "\n".join(lines)

    def _run(self) -> list[str]:
        """The model, and how completely its run was recorded."""
        if isinstance(self.record, Recording):
            return support_lines(self.record)
        if isinstance(self.record, Refusal):
            return [f"Model: {self.record.model} ({self.record.architecture}), not recorded"]
        return [f"Model: {self._model}"] if self._model else []


def _environment() -> list[str]:
    """Versions, system, device, memory and attention backend."""
    device = model_management.get_torch_device()
    memory = model_management.vram_state.name.lower().replace("_", " ")
    return [
        f"ComfyUI-I2AM {__version__}, ComfyUI {comfyui_version.__version__}, "
        f"Python {platform.python_version()}, torch {torch.__version__}",
        f"System: {sys.platform}; device: {model_management.get_torch_device_name(device)}; "
        f"memory: {memory}; attention: {optimized_attention.__name__}",
    ]
