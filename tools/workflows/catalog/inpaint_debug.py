"""i2am_02_inpaint_debug: find out why an inpainting went wrong."""

from __future__ import annotations

from tools.workflows.catalog.parts import (
    GOLD,
    GREEN,
    LILAC,
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
    reference,
    sampler,
    saved,
    scored,
)

DEBUG_NOTE = """# Why does the model ignore my reference?

Two runs side by side. **A** is right. In **B** somebody connected the **scene to both \
references**, a common mistake: the object's picture never reaches the model, and nothing tells \
you.

**Press Run** and compare:

- **Where it was used**: in A the hole glows. In B the second reference glows nowhere in particular.
- **IMACS** puts that into a number: well above 0 in A, about 0 in B. The table on the node keeps \
your last runs, so change one setting at a time and watch the score.
- **What changed** subtracts A from B: blue is where B reads its second reference less.

**With your own inpainting workflow**, put *Capture Attention* right before your sampler and \
*Collect Attribution* after it. If your latent has an inpainting mask, IMACS uses it on its own.

The score tells you *where* a reference was used. A wrong object that fits the hole scores well \
too, and in photographs this model reads the scene's own hole when it is given the scene twice. So \
look at the picture.
"""
DEBUG = Workflow(
    "i2am_02_inpaint_debug",
    (
        (models(DEBUG_NOTE, 640),),
        (
            pictures("i2am_debug", "scene", "object"),
            given(),
            Group(
                "3b · The mistake",
                "#88A",
                (
                    (
                        reference(
                            "reference_wrong",
                            "reference_1",
                            "encode_scene",
                            "Reference 2: the scene again",
                        ),
                    ),
                ),
            ),
        ),
        (
            Group(
                "4 · Sample both, with one Capture Attention",
                GREEN,
                (
                    (capture(), sampler(title="A · the object"), decoded(), collected()),
                    (
                        sampler("sampler_b", "B · the mistake", positive="reference_wrong"),
                        decoded("decode_b", "sampler_b"),
                        collected("collect_b", "sampler_b", "decode_b", "scene"),
                        saved("save_b", "B · the result", ("decode_b", 0), "debug_b"),
                    ),
                ),
            ),
        ),
        (
            Group(
                "5 · Was it used where it should be?",
                GOLD,
                (
                    (mapped("r2g", "A · where it was used", R2G, scale="absolute"),),
                    (mapped("r2g_b", "B · where it was used", R2G, "collect_b", scale="absolute"),),
                ),
            ),
            Group(
                "6 · In numbers",
                RED,
                (
                    (scored("imacs", "A · IMACS"),),
                    (scored("imacs_b", "B · IMACS", "collect_b"),),
                ),
            ),
        ),
        (
            Group(
                "7 · What changed from A to B",
                LILAC,
                (
                    (
                        Node(
                            "compare",
                            "I2AM_Compare",
                            wires={"attribution": ("collect", 0), "other": ("collect_b", 0)},
                            widgets={"reference": 2},
                            width=380,
                            height=660,
                        ),
                    ),
                ),
            ),
        ),
    ),
    ("r2g", "r2g_b", "save_b", "compare"),
)
