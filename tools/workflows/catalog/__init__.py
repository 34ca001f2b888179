"""The example workflows, one file each: their nodes, wires, titles and notes.

`tools.workflows.make` has ComfyUI's own page build and arrange them. WORKFLOWS run as they are, on
the models that come with the pack. MODEL_WORKFLOWS need the files of large models; tests check
their nodes, inputs and wires against ComfyUI's.
"""

from __future__ import annotations

from .auto_mask import AUTO_MASK
from .best_of_eight import BEST
from .demo import DEMO
from .flux_fill_redux import FILL
from .flux_kontext import KONTEXT
from .inpaint_debug import DEBUG
from .locate_object import LOCATE
from .parts import Workflow
from .probe import PROBE
from .qwen_image_edit import QWEN
from .reference_strength import STRENGTH
from .sdxl_ip_adapter import SDXL
from .super_resolution import UPSCALE
from .truth_test import TRUTH
from .try_on import TRY_ON
from .two_references import TWO_REFERENCES
from .which_word import WHICH_WORD

__all__ = ["MODEL_WORKFLOWS", "WORKFLOWS", "Workflow"]

WORKFLOWS = (
    DEMO,
    DEBUG,
    TRY_ON,
    TWO_REFERENCES,
    AUTO_MASK,
    BEST,
    STRENGTH,
    TRUTH,
    LOCATE,
    UPSCALE,
    PROBE,
    WHICH_WORD,
)
MODEL_WORKFLOWS = (KONTEXT, QWEN, FILL, SDXL)
