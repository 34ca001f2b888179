"""i2am_07_reference_strength: turn a reference up and down, and measure the effect."""

from __future__ import annotations

from tools.workflows.catalog.parts import (
    GOLD,
    GREEN,
    INFLUENCE,
    Group,
    Node,
    Workflow,
    capture,
    collected,
    decoded,
    given,
    models,
    pictures,
    sampler,
    saved,
)

STRENGTH_NOTE = """# Turn a reference up or down, and see the effect

**Before** is the model as it is. **After** goes through *Reference Strength*, which turns the \
object's reference down to a tenth.

**Press Run.** *Reference Influence* measures in both runs how much of the model's attention the \
reference really got, so you need not guess what the dial does. *What changed* shows where.

**Try this**
- *strength* 0 mutes the reference: the hole stays without its object.
- *strength* 4 turns it up.
- Connect the object's mask to *reference_mask* on *Reference Strength*: then only that part is \
turned up or down.

A strength of 1 changes nothing, to the last bit.
"""
STRENGTH = Workflow(
    "i2am_07_reference_strength",
    (
        (models(STRENGTH_NOTE, 470),),
        (pictures("i2am_demo", "scene", "object"), given()),
        (
            Group(
                "4 · Before",
                GREEN,
                (
                    (
                        capture(),
                        sampler(title="Before"),
                        decoded(),
                        collected(),
                        saved("save", "Before", ("decode", 0), "before"),
                    ),
                ),
            ),
        ),
        (
            Group(
                "5 · After",
                GREEN,
                (
                    (
                        Node(
                            "steer",
                            "I2AM_Steer",
                            wires={"model": ("capture", 0)},
                            widgets={"reference": 2, "strength": 0.1},
                        ),
                        sampler("sampler_after", "After", "steer"),
                        decoded("decode_after", "sampler_after"),
                        collected("collect_after", "sampler_after", "decode_after"),
                        saved("save_after", "After", ("decode_after", 0), "after"),
                    ),
                ),
            ),
        ),
        (
            Group(
                "6 · How much was it used?",
                GOLD,
                (
                    (
                        Node(
                            "influence",
                            "I2AM_Influence",
                            "Before",
                            {"attribution": ("collect", 0), "region": ("hole", 0)},
                            **INFLUENCE,
                        ),
                    ),
                    (
                        Node(
                            "influence_after",
                            "I2AM_Influence",
                            "After",
                            {"attribution": ("collect_after", 0), "region": ("hole", 0)},
                            **INFLUENCE,
                        ),
                    ),
                    (
                        Node(
                            "compare",
                            "I2AM_Compare",
                            "What changed",
                            {"attribution": ("collect", 0), "other": ("collect_after", 0)},
                            {"reference": 2},
                            **INFLUENCE,
                        ),
                    ),
                ),
            ),
        ),
    ),
    ("save", "save_after", "influence", "compare"),
)
