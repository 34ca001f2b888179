"""i2am_10_super_resolution: what an upscaler reads of the low resolution."""

from __future__ import annotations

from tools.workflows.catalog.parts import (
    BLUE,
    G2R,
    GOLD,
    GREEN,
    R2G,
    TEAL,
    Group,
    Node,
    Workflow,
    capture,
    decoded,
    encoded,
    load_picture,
    mapped,
    reference,
    sampler,
    saved,
)

UPSCALE_NOTE = """# Super-resolution: how is the low resolution used?

This is the paper's other task. The reference is the picture at an eighth of its size, enlarged \
again; a small model adds the detail back.

**Press Run.**

- **Over time** shows where the result reads the low resolution, from the noisiest steps to the \
cleanest.
- **What was read** lies over the low resolution. Do not expect it to follow the picture's detail: \
on average over 64 pictures these maps hardly do. See docs/tasks.md.

This is a small upscaler, made to be studied: its edges are sharper and its errors smaller than \
those of the enlarged picture, but fine texture does not come back.
"""
UPSCALE = Workflow(
    "i2am_10_super_resolution",
    (
        (
            Group(
                "1 · Read me, and the models",
                TEAL,
                (
                    (
                        Node(
                            "note",
                            "MarkdownNote",
                            "Read me",
                            widgets={"0": UPSCALE_NOTE},
                            width=440,
                            height=440,
                        ),
                        Node(
                            "unet",
                            "UNETLoader",
                            widgets={"unet_name": "i2am_demo_upscale.safetensors"},
                        ),
                        Node("vae", "VAELoader", widgets={"vae_name": "i2am_demo_vae.safetensors"}),
                    ),
                ),
            ),
        ),
        (
            Group(
                "2 · The low resolution, as reference",
                BLUE,
                (
                    (
                        load_picture("scene", "The low resolution", "i2am_upscale_low.png"),
                        Node("blank", "I2AM_BlankPrompt"),
                        encoded("encode", "scene", "Encode it"),
                        reference("reference_1", "blank", "encode", "Reference 1"),
                        Node(
                            "empty",
                            "EmptySD3LatentImage",
                            "The empty canvas",
                            widgets={"width": 128, "height": 128, "batch_size": 1},
                        ),
                    ),
                    (load_picture("true", "The true picture", "i2am_upscale_true.png"),),
                ),
            ),
        ),
        (
            Group(
                "3 · Sample and record",
                GREEN,
                (
                    (
                        capture(),
                        sampler(positive="reference_1"),
                        decoded(),
                        Node(
                            "collect",
                            "I2AM_Collect",
                            wires={
                                "samples": ("sampler", 0),
                                "image": ("decode", 0),
                                "references.reference_1": ("scene", 0),
                            },
                        ),
                        saved("save", "The result", ("decode", 0), "upscaled"),
                    ),
                ),
            ),
        ),
        (
            Group(
                "4 · What is read, and when?",
                GOLD,
                (
                    (mapped("time", "Over time", R2G, reference=1, level="time"),),
                    (mapped("g2r", "What was read", G2R, reference=1),),
                ),
            ),
        ),
    ),
    ("scene", "save", "time", "g2r"),
)
