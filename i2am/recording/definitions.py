"""The definitions of a map, and which of them are recorded together."""

from __future__ import annotations

from enum import Enum


class Definition(str, Enum):
    """What a map is made of."""

    PAPER = "paper"  # softmax over one picture's tokens alone: M_g and M_r of I2AM, section 3
    MODEL = "model"  # the model's own softmax, over all keys
    EFFECT = "effect"  # how far the attention's output moves with the reference left out


RECORDED = {
    "both": (Definition.PAPER, Definition.MODEL),
    "all": (Definition.PAPER, Definition.MODEL, Definition.EFFECT),
    "model": (Definition.MODEL,),
    "paper": (Definition.PAPER,),
}


def number_of(definition: Definition) -> int:
    """A definition → its place among the sums of a call: paper, model, effect."""
    return tuple(Definition).index(definition)


def first_definition(recorded: tuple[Definition, ...], joint: bool) -> Definition:
    """The recorded definitions → the one to show first.

    The effect, if recorded: it predicts best what leaving a place out changes (docs/fidelity.md).
    Otherwise the model's, if all keys share one softmax (`joint`). There most layers hardly attend
    to the reference, and the few that do must weigh more; the paper's weighs all layers the same.
    Otherwise the paper's.
    """
    if Definition.EFFECT in recorded:
        return Definition.EFFECT
    wanted = Definition.MODEL if joint else Definition.PAPER
    return wanted if wanted in recorded else recorded[0]


def attention_definition(definition: Definition, joint: bool) -> Definition:
    """A definition → itself; the effect → the definition of attention to show first."""
    if definition is not Definition.EFFECT:
        return definition
    return first_definition((Definition.PAPER, Definition.MODEL), joint)
