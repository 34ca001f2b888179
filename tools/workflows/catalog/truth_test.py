"""i2am_08_truth_test: does the map tell the truth?"""

from __future__ import annotations

from tools.workflows.catalog.parts import (
    GOLD,
    GREEN,
    PICTURE,
    RED,
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

TRUTH_NOTE = """# Does the map tell the truth?

A map is a claim: *this part of the reference made the result*. This workflow tests that claim on \
your own picture.

**Press Run.** It samples three times with the same seed:

1. unchanged,
2. with the part **the map points at** muted,
3. with an **equal part elsewhere** muted.

If the map is right, 2 changes a lot and 3 hardly anything. *Does the Map Tell the Truth?* says \
how many times more.

**Try this**: another *seed* for the random part; a smaller *percent*; your own model.
"""


def muted(key: str, title: str, part: int) -> Node:
    wires = {"model": ("capture", 0), "reference_mask": ("part", part)}
    return Node(key, "I2AM_Steer", title, wires, {"reference": 2, "strength": 0.0})


TRUTH = Workflow(
    "i2am_08_truth_test",
    (
        (models(TRUTH_NOTE, 460),),
        (pictures("i2am_demo", "scene", "object"), given()),
        (
            Group(
                "4 · Unchanged, recorded",
                GREEN,
                (
                    (
                        capture(),
                        sampler(title="1 · unchanged"),
                        decoded(),
                        collected(),
                        saved("save", "1 · unchanged", ("decode", 0), "truth_1"),
                    ),
                ),
            ),
        ),
        (
            Group(
                "5 · The two parts",
                GOLD,
                (
                    (
                        Node(
                            "part",
                            "I2AM_TopPart",
                            wires={"attribution": ("collect", 0), "region": ("hole", 0)},
                            widgets={
                                "reference": 2,
                                "seed": 0,
                                "control_after_generate": "fixed",
                            },
                            width=340,
                        ),
                        Node(
                            "show_top",
                            "MaskPreview",
                            "What the map points at",
                            {"mask": ("part", 0)},
                            height=PICTURE,
                        ),
                        Node(
                            "show_random",
                            "MaskPreview",
                            "An equal part elsewhere",
                            {"mask": ("part", 1)},
                            height=PICTURE,
                        ),
                    ),
                ),
            ),
        ),
        (
            Group(
                "6 · Each part muted",
                GREEN,
                (
                    (
                        muted("mute_top", "Mute what the map points at", 0),
                        sampler("sampler_top", "2 · without it", "mute_top"),
                        decoded("decode_top", "sampler_top"),
                        saved("save_top", "2 · without it", ("decode_top", 0), "truth_2"),
                    ),
                    (
                        muted("mute_random", "Mute an equal part elsewhere", 1),
                        sampler("sampler_random", "3 · without the other", "mute_random"),
                        decoded("decode_random", "sampler_random"),
                        saved(
                            "save_random",
                            "3 · without the other",
                            ("decode_random", 0),
                            "truth_3",
                        ),
                    ),
                ),
            ),
        ),
        (
            Group(
                "7 · The verdict",
                RED,
                (
                    (
                        Node(
                            "truth",
                            "I2AM_TruthTest",
                            wires={
                                "plain": ("decode", 0),
                                "top_muted": ("decode_top", 0),
                                "random_muted": ("decode_random", 0),
                                "region": ("hole", 0),
                            },
                            width=380,
                            height=240,
                        ),
                    ),
                ),
            ),
        ),
    ),
    ("save", "show_top", "save_top", "save_random"),
)
