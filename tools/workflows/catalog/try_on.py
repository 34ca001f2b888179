"""i2am_03_try_on: score both sides with IMACS."""

from __future__ import annotations

from tools.workflows.catalog.parts import (
    G2R,
    GOLD,
    GREEN,
    R2G,
    RED,
    Group,
    Node,
    Workflow,
    capture,
    collected,
    decoded,
    given,
    mapped,
    models,
    pictures,
    sampler,
    saved,
    scored,
)

TRY_ON_NOTE = """# Did it put on the right thing?

Try-on is inpainting from a reference: a person with a hole where the garment goes, and a picture \
of the garment. Here the person is a figure, the garment a T-shirt, and the hole has its shape.

**Press Run.** *IMACS* scores **both sides**:

- **over the result**: did the garment go where it should, and nowhere else?
- **over the reference**: did the model look at the garment, and not at what is around it?

1 is best. Above 0, the map is more than three times as high inside the mask as outside. Scores of \
the paper's preset can be compared with published numbers; in the robust preset, no single bright \
cell decides the score.

**With a real try-on model**, the first mask is your inpainting mask and the second is the \
garment's own mask in its picture.
"""
TRY_ON = Workflow(
    "i2am_03_try_on",
    (
        (models(TRY_ON_NOTE),),
        (pictures("i2am_try_on", "person", "garment"), given()),
        (
            Group(
                "4 · Sample and record",
                GREEN,
                (
                    (
                        capture(),
                        sampler(),
                        decoded(),
                        collected(),
                        saved("save", "The result", ("decode", 0), "try_on"),
                    ),
                ),
            ),
        ),
        (
            Group(
                "5 · Over the result, and over the garment",
                GOLD,
                (
                    (mapped("r2g", "Where the garment went", R2G),),
                    (mapped("g2r", "What was looked at", G2R, within_mask=True),),
                ),
            ),
            Group(
                "6 · IMACS on both sides",
                RED,
                (
                    (
                        scored(
                            "imacs",
                            "As in the paper",
                            generated_mask=("hole", 0),
                            reference_mask=("shape", 0),
                        ),
                    ),
                    (
                        Node(
                            "robust",
                            "I2AM_IMACS",
                            "Robust",
                            {
                                "attribution": ("collect", 0),
                                "generated_mask": ("hole", 0),
                                "reference_mask": ("shape", 0),
                            },
                            {"reference": 2, "preset": "robust"},
                            width=380,
                        ),
                    ),
                ),
            ),
        ),
    ),
    ("scene", "object", "save", "r2g"),
)
