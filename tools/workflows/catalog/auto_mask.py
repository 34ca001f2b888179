"""i2am_05_auto_mask: the attention of the first pass makes the mask for the second."""

from __future__ import annotations

from tools.workflows.catalog.parts import (
    G2R,
    GOLD,
    GREEN,
    R2G,
    SEED,
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

MASK_NOTE = """# A mask made from attention, for a second pass

You do not have to paint a mask around what came from the reference: the model's attention already \
shows where it is.

**Press Run.**

1. The first pass fills the hole.
2. *Attribution to Mask* finds where the reference was used, grows that area a little and softens \
its edge.
3. The second pass samples again **inside this mask only**, at half strength and with another \
seed. The rest of the picture stays as it is.

The second mask cuts the object out of its **reference** picture.

**Try this**: another *method* or *value*; a larger *grow* for a wider seam; another *denoise* for \
the second pass.
"""
AUTO_MASK = Workflow(
    "i2am_05_auto_mask",
    (
        (models(MASK_NOTE, 480),),
        (pictures("i2am_demo", "scene", "object"), given()),
        (
            Group(
                "4 · First pass, recorded",
                GREEN,
                (
                    (
                        capture(),
                        sampler(),
                        decoded(),
                        collected(),
                        saved("save_1", "After the first pass", ("decode", 0), "mask_1"),
                    ),
                ),
            ),
        ),
        (
            Group(
                "5 · Masks from attention",
                GOLD,
                (
                    (
                        Node(
                            "mask",
                            "I2AM_ToMask",
                            "Where the object went",
                            {"attribution": ("collect", 0)},
                            {"direction": R2G, "reference": 2, "grow": 6, "feather": 6.0},
                            width=360,
                            height=560,
                        ),
                        Node(
                            "cut",
                            "I2AM_ToMask",
                            "The object in its picture",
                            {"attribution": ("collect", 0)},
                            {"direction": G2R, "reference": 2, "within_mask": True},
                            width=360,
                            height=560,
                        ),
                    ),
                ),
            ),
        ),
        (
            Group(
                "6 · Second pass, inside the mask",
                GREEN,
                (
                    (
                        Node(
                            "masked",
                            "SetLatentNoiseMask",
                            wires={"samples": ("sampler", 0), "mask": ("mask", 0)},
                        ),
                        sampler(
                            "sampler_2",
                            "Second pass",
                            "unet",
                            latent="masked",
                            seed=SEED + 1,
                            denoise=0.5,
                        ),
                        decoded("decode_2", "sampler_2"),
                        saved("save_2", "After the second pass", ("decode_2", 0), "mask_2"),
                    ),
                ),
            ),
        ),
    ),
    ("save_1", "mask", "cut", "save_2"),
)
