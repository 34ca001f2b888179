"""i2am_16_which_word: words and a reference beside each other: which of them made what?"""

from __future__ import annotations

from dataclasses import replace

from tools.workflows.catalog.parts import (
    BLUE,
    GOLD,
    GREEN,
    LILAC,
    R2G,
    TEAL,
    Group,
    Node,
    Workflow,
    capture,
    decoded,
    load_mask,
    load_picture,
    mapped,
    saved,
)
from tools.workflows.catalog.parts import sampler as sampled

PROMPT = "a red circle"
NOTE = """# Which word won?

A small model fills the two **boxes**. The prompt names one thing, a **reference** shows the \
other. Both compete for the same attention: which word did what, and where did the reference do \
more?

**Press Run.** Then:

- **Word Attribution** draws where each word was attended to, and ranks words and reference by \
their share of the attention.
- **Point at a word** under the viewer's picture to see its map; **point at a place** of the \
result to see who was attended to most right there.
- **Where the reference was used** should glow in the other box.

**Try this**
- Other words: red, orange, yellow, green, turquoise, blue, purple, pink; circle, square, \
triangle, star, heart, ring, cross, moon. The prompt is written in one place.
- By-pass *Reference Tokens* and name two things: *a red circle and a blue star*.
- Paint a box into *region* of Word Attribution.

**With your own model**, turn on *words* in *Capture Attention* and give *Word Attribution* the \
CLIP and the prompt. Models with text alone can be watched, too.
"""
WHICH_WORD = Workflow(
    "i2am_16_which_word",
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
                            widgets={"0": NOTE},
                            width=440,
                            height=680,
                        ),
                        Node("words_model", "I2AM_LoadWords"),
                        Node("vae", "VAELoader", widgets={"vae_name": "i2am_demo_vae.safetensors"}),
                    ),
                ),
            ),
        ),
        (
            Group(
                "2 · What to fill, and with what",
                BLUE,
                (
                    (
                        load_picture("scene", "The picture to fill", "i2am_words_scene.png"),
                        load_mask("boxes", "The two boxes", "i2am_words_box_mask.png"),
                    ),
                    (
                        Node(
                            "text",
                            "PrimitiveStringMultiline",
                            "The prompt",
                            widgets={"value": PROMPT},
                            width=320,
                            height=110,
                        ),
                        load_picture("object", "The reference", "i2am_words_reference.png"),
                    ),
                ),
            ),
        ),
        (
            Group(
                "3 · What the model is given",
                "#88A",
                (
                    (
                        Node(
                            "prompt",
                            "CLIPTextEncode",
                            "The words",
                            {"clip": ("words_model", 1), "text": ("text", 0)},
                            width=320,
                        ),
                        Node(
                            "nothing",
                            "CLIPTextEncode",
                            "No words",
                            {"clip": ("words_model", 1)},
                            {"text": ""},
                            width=320,
                        ),
                        Node(
                            "tokens",
                            "I2AM_ReferenceTokens",
                            wires={
                                "image": ("object", 0),
                                "vae": ("vae", 0),
                                "conditioning": ("prompt", 0),
                            },
                        ),
                        Node(
                            "inpaint",
                            "InpaintModelConditioning",
                            wires={
                                "positive": ("tokens", 0),
                                "negative": ("nothing", 0),
                                "vae": ("vae", 0),
                                "pixels": ("scene", 0),
                                "mask": ("boxes", 0),
                            },
                            widgets={"noise_mask": False},
                        ),
                    ),
                ),
            ),
            Group(
                "4 · Sample and record",
                GREEN,
                (
                    (
                        replace(capture(model="words_model"), widgets={"words": True}),
                        replace(
                            sampled(cfg=2.0),
                            wires={
                                "model": ("capture", 0),
                                "positive": ("inpaint", 0),
                                "negative": ("inpaint", 1),
                                "latent_image": ("inpaint", 2),
                            },
                        ),
                        decoded(),
                        Node(
                            "collect",
                            "I2AM_Collect",
                            wires={
                                "samples": ("sampler", 0),
                                "image": ("decode", 0),
                                "references.reference_1": ("object", 0),
                            },
                        ),
                        saved("save", "The result", ("decode", 0), "which_word"),
                    ),
                ),
            ),
        ),
        (
            Group(
                "5 · Which word did what?",
                GOLD,
                (
                    (
                        Node(
                            "words",
                            "I2AM_Words",
                            wires={
                                "attribution": ("collect", 0),
                                "clip": ("words_model", 1),
                                "text": ("text", 0),
                            },
                            width=420,
                            height=700,
                        ),
                    ),
                ),
            ),
        ),
        (
            Group(
                "6 · Point at a word or a place",
                LILAC,
                (
                    (
                        Node(
                            "viewer",
                            "I2AM_Viewer",
                            wires={"attribution": ("words", 6)},
                            width=760,
                            height=640,
                        ),
                        mapped("r2g", "Where the reference was used", R2G, reference=1),
                    ),
                ),
            ),
        ),
    ),
    ("object", "save", "words", "r2g"),
)
