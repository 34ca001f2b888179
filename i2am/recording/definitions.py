"""The definitions of a map, and which of them are recorded together."""

from __future__ import annotations

from enum import Enum


class Definition(str, Enum):
    """What a map is made from."""

    PAPER = "paper"  # softmax over one picture's tokens alone: M_g and M_r of I2AM, section 3
    MODEL = "model"  # the model's own softmax, over all keys
    EFFECT = "effect"  # how far the attention's output moves with the reference left out


# In the order that arrays hold them.
RECORDED = {
    "both": (Definition.PAPER, Definition.MODEL),
    "all": (Definition.PAPER, Definition.MODEL, Definition.EFFECT),
}


def first_definition(recorded: tuple[Definition, ...], joint: bool) -> Definition:
    """The one of the definitions recorded to show first.

    The effect predicts best what leaving a place out changes (docs/fidelity.md). Else the model's
    where all keys share one softmax (`joint`): there most layers hardly attend to the reference,
    and the few that do must weigh more, while the paper's would weigh all layers alike. Else the
    paper's.
    """
    if Definition.EFFECT in recorded:
        return Definition.EFFECT
    return Definition.MODEL if joint else Definition.PAPER


def attention_definition(definition: Definition, joint: bool) -> Definition:
    """The definition itself if it is one of attention; for the effect, the one to show first."""
    if definition is not Definition.EFFECT:
        return definition
    return first_definition((Definition.PAPER, Definition.MODEL), joint)
