"""Inputs that several nodes share, and what their values mean."""

from __future__ import annotations

from comfy_api.latest import io
from torch import Tensor

from ..i2am.display import Colormap
from ..i2am.errors import I2AMError
from ..i2am.recording import Attribution, Definition, Direction, best_definition
from ..i2am.scores import fitting_mask

AUTO = "auto"
KEEP, REMOVE = "keep", "remove"

REFERENCE = io.Int.Input(
    "reference",
    default=1,
    optional=True,
    min=1,
    max=64,
    tooltip="Which reference, counted from 1 in the order the model was given them.",
)
COLORMAP = io.Combo.Input(
    "colormap",
    options=[colormap.value for colormap in Colormap],
    default=Colormap.INFERNO.value,
    optional=True,
    tooltip="The colours. Jet matches the figures of the paper; the others do not invent edges.",
)
OPACITY = io.Float.Input(
    "opacity",
    default=0.8,
    optional=True,
    min=0.0,
    max=1.0,
    step=0.05,
    tooltip="How strongly the colours cover the picture.",
)
WITHIN_MASK = io.Boolean.Input(
    "within_mask",
    default=False,
    optional=True,
    advanced=True,
    tooltip="For generated to reference: count only the attention of the masked part of the "
    "result. Uses the mask of Collect Attribution, or the inpainting mask the latent was sampled "
    "with.",
)
SINKS = io.Combo.Input(
    "sinks",
    options=[KEEP, REMOVE],
    default=KEEP,
    optional=True,
    advanced=True,
    tooltip="Sinks are places of the reference, often at its border, that nearly all of the result "
    "looks at whatever it shows. Remove leaves them out of maps over the reference; the label says "
    "how many there were and how much attention they took.",
)
DEFINITION = io.Combo.Input(
    "definition",
    options=[AUTO, *(definition.value for definition in Definition)],
    default=AUTO,
    optional=True,
    advanced=True,
    tooltip="Model: the model's own attention, in true shares. Paper: the definition of the I2AM "
    "paper, where every layer counts the same. Effect: how far the output of attention moves with "
    "the reference, or a place of it, left out; it needs definitions set to all in Capture "
    "Attention. Auto: effect if it was recorded; else model where text, result and references "
    "compete for attention (Flux), and paper elsewhere.",
)


def direction_input(tooltip: str) -> io.Combo.Input:
    """The picture a map lies over."""
    return io.Combo.Input(
        "direction",
        options=[direction.value for direction in Direction],
        default=Direction.REFERENCE_TO_GENERATED.value,
        optional=True,
        tooltip=tooltip,
    )


def choose_definition(attribution: Attribution, definition: str) -> Definition:
    """The definition a widget asks for; auto is the one to look at first for this model."""
    if definition == AUTO:
        return best_definition(attribution.recording)
    return Definition(definition)


def mask_within(attribution: Attribution, within_mask: bool) -> Tensor | None:
    """The mask over the result that G2R is limited to, if that is asked for."""
    if not within_mask:
        return None
    if attribution.mask is None:
        raise I2AMError(
            "within_mask needs a mask over the result, and there is none. Connect one to Collect "
            "Attribution, or turn within_mask off."
        )
    return attribution.mask


def fitted_mask(
    mask: Tensor, attribution: Attribution, direction: Direction, reference: int, name: str
) -> Tensor:
    """A mask held against the picture that maps of a direction lie over: (1 or batch, h, w).

    Of a reference whose picture the model saw a part of, it lies over all of it, and comes back for
    the part. reference: from 0. Raises I2AMError for one that does not fit.
    """
    batch, whole = attribution.recording.header.run.batch, attribution.whole(direction, reference)
    if whole is None:
        return fitting_mask(mask, batch, attribution.size(direction, reference), name)
    rows, columns = whole.part
    part = fitting_mask(mask, batch, whole.size, name)[:, rows, columns]
    if float(mask.max()) > 0 and float(part.max()) == 0:
        raise I2AMError(
            f"{name} lies where the model did not see reference {reference + 1}: it saw the "
            f"middle, {whole.width}×{whole.height} of {whole.size[1]}×{whole.size[0]} pixels. "
            "Paint it there, or give the model a picture that is not cropped."
        )
    return part
