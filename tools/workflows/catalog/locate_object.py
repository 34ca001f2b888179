"""i2am_09_locate_object: find the box an object was put into."""

from __future__ import annotations

from tools.workflows.catalog.parts import (
    BLUE,
    GOLD,
    GREEN,
    PICTURE,
    R2G,
    SAMPLING,
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

LOCATE_NOTE = """# Where did it go? A box from attention

The I2AM paper finds objects this way: put something into a picture, and the attention map shows \
where it went. No detector, no list of classes.

Here a small Stable Diffusion model fills the **cut-out box** with the object from the reference, \
which it reads by **cross-attention**, as the paper's models do.

**Press Run.** *Locate Object* draws the box it finds; *Crop Image* is ComfyUI's own node and cuts \
it out.

Over 64 held-out pictures, the box it finds overlaps the true one by 0.62 on average (a random \
box: 0.20). The model is given the box, so this shows that the map follows the object, not that \
anything was detected: see docs/tasks.md.
"""
LOCATE = Workflow(
    "i2am_09_locate_object",
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
                            widgets={"0": LOCATE_NOTE},
                            width=440,
                            height=500,
                        ),
                        Node("insertion", "I2AM_LoadInsertion"),
                        Node("vae", "VAELoader", widgets={"vae_name": "i2am_demo_vae.safetensors"}),
                    ),
                ),
            ),
        ),
        (
            Group(
                "2 · Pictures",
                BLUE,
                (
                    (
                        load_picture("scene", "The picture", "i2am_insertion_scene.png"),
                        load_mask("box", "Where to put the object", "i2am_insertion_box_mask.png"),
                    ),
                    (load_picture("object", "The object", "i2am_insertion_reference.png"),),
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
                            "tokens",
                            "I2AM_ReferenceTokens",
                            wires={"image": ("object", 0), "vae": ("vae", 0)},
                        ),
                        Node("blank", "ConditioningZeroOut", wires={"conditioning": ("tokens", 0)}),
                        Node(
                            "inpaint",
                            "InpaintModelConditioning",
                            wires={
                                "positive": ("tokens", 0),
                                "negative": ("blank", 0),
                                "vae": ("vae", 0),
                                "pixels": ("scene", 0),
                                "mask": ("box", 0),
                            },
                            widgets={"noise_mask": False},
                        ),
                    ),
                ),
            ),
        ),
        (
            Group(
                "4 · Sample and record",
                GREEN,
                (
                    (
                        capture(model="insertion"),
                        Node(
                            "sampler",
                            "KSampler",
                            wires={
                                "model": ("capture", 0),
                                "positive": ("inpaint", 0),
                                "negative": ("inpaint", 1),
                                "latent_image": ("inpaint", 2),
                            },
                            widgets=SAMPLING,
                        ),
                        decoded(),
                        Node(
                            "collect",
                            "I2AM_Collect",
                            wires={
                                "samples": ("sampler", 0),
                                "image": ("decode", 0),
                                "references.reference_1": ("object", 0),
                                "mask": ("box", 0),
                            },
                        ),
                        saved("save", "The result", ("decode", 0), "located"),
                    ),
                ),
            ),
        ),
        (
            Group(
                "5 · Where did it go?",
                GOLD,
                (
                    (
                        Node(
                            "locate",
                            "I2AM_Locate",
                            wires={"attribution": ("collect", 0)},
                            widgets={"threshold": 0.4},
                            width=360,
                            height=620,
                        ),
                        Node(
                            "crop",
                            "ImageCropV2",
                            "Cut out what was found",
                            {"image": ("decode", 0), "crop_region": ("locate", 3)},
                            height=PICTURE,
                        ),
                    ),
                    (mapped("r2g", "The map", R2G, reference=1),),
                ),
            ),
        ),
    ),
    ("scene", "object", "r2g", "locate"),
)
