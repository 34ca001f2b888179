"""i2am_01_demo: every view of one result: viewer, maps, scores, files."""

from __future__ import annotations

from tools.workflows.catalog.parts import (
    BLUE,
    G2R,
    GOLD,
    GREEN,
    LILAC,
    R2G,
    RED,
    TEAL,
    Group,
    Node,
    Workflow,
    capture,
    collected,
    decoded,
    encoded,
    load_mask,
    load_picture,
    mapped,
    reference,
    sampler,
    saved,
)

NOTE = """# Which part of the reference made which part of the picture?

A small model fills the **grey hole** in the scene with the **object from the reference picture**. \
To do that it has to *look* at the reference, and this workflow records where it looks.

**Press Run.** Then point at a place in the **Attribution Viewer**: the other picture shows where \
it came from. Click to keep a point, drag to mark a region. Then look at the two maps:

- **Where it was used** lies over the result. Bright places drew on the reference: the hole should \
glow, the rest should stay dark.
- **What was used** lies over the reference. The object should glow, its surroundings should stay \
dark.

**IMACS** turns the second map into a number: 1 is best; below 0, the model looked past the object.

**Try this**
- Change the seed, or swap the pictures in the two loaders. Do the maps follow?
- Set *reference* to 1 on a map: that is the scene itself.
- Set *level* to *time*: early steps look around, late steps focus.

**With your own model**, put *Capture Attention* right before your sampler and connect the \
sampler's LATENT to *Collect Attribution*. Your picture does not change by a single bit. The model \
here is tiny and made for this demo; it is no image editor.
"""
MODELS = Group(
    "1 · Models",
    TEAL,
    (
        (
            Node("note", "MarkdownNote", "Read me", widgets={"0": NOTE}, width=420, height=700),
            Node("unet", "UNETLoader", widgets={"unet_name": "i2am_demo_inpaint.safetensors"}),
            Node("vae", "VAELoader", widgets={"vae_name": "i2am_demo_vae.safetensors"}),
        ),
    ),
)
PICTURES = Group(
    "2 · Pictures and masks",
    BLUE,
    (
        (
            load_picture("scene", "The scene, with a hole", "i2am_demo_scene.png"),
            load_mask("hole", "Where the hole is", "i2am_demo_hole_mask.png"),
        ),
        (
            load_picture("object", "The reference, with the object", "i2am_demo_reference.png"),
            load_mask("shape", "Where the object is", "i2am_demo_object_mask.png"),
        ),
    ),
)
GIVEN = Group(
    "3 · What the model is given",
    "#88A",
    (
        (
            Node("blank", "I2AM_BlankPrompt"),
            encoded("encode_scene", "scene", "Encode the scene"),
            encoded("encode_object", "object", "Encode the reference"),
            reference("reference_1", "blank", "encode_scene", "Reference 1: the scene"),
            reference("reference_2", "reference_1", "encode_object", "Reference 2: the object"),
            Node(
                "empty",
                "EmptySD3LatentImage",
                widgets={"width": 128, "height": 128, "batch_size": 1},
            ),
        ),
    ),
)
SAMPLE = Group(
    "4 · Sample and record",
    GREEN,
    (
        (
            capture(),
            sampler(),
            decoded(),
            collected(),
            saved("save_result", "The result", ("decode", 0), "demo_result"),
        ),
    ),
)
POINT = Group(
    "5 · Point at a place",
    LILAC,
    (
        (
            Node(
                "viewer",
                "I2AM_Viewer",
                wires={"attribution": ("collect", 0)},
                # The object's picture is the second reference.
                properties={"i2am_view": {"reference": 1}},
                width=820,
                height=650,
            ),
        ),
    ),
)
MAPS = Group(
    "6 · Where did it come from?",
    GOLD,
    (
        (mapped("r2g", "Where it was used (R2G)", R2G),),
        (mapped("g2r", "What was used (G2R)", G2R),),
    ),
)
NUMBERS = Group(
    "7 · Scores and files",
    RED,
    (
        (
            Node(
                "imacs",
                "I2AM_IMACS",
                wires={
                    "attribution": ("collect", 0),
                    "generated_mask": ("hole", 0),
                    "reference_mask": ("shape", 0),
                },
                widgets={"reference": 2},
                width=340,
            ),
            saved("save_r2g", "Save where it was used", ("r2g", 0), "demo_r2g"),
            Node(
                "save_record",
                "I2AM_Save",
                wires={"attribution": ("collect", 0)},
                widgets={"filename_prefix": "i2am/demo"},
            ),
        ),
        (
            Node(
                "scores",
                "PreviewAny",
                "The scores in words",
                {"source": ("imacs", 2)},
                width=340,
                height=172,
            ),
            saved("save_g2r", "Save what was used", ("g2r", 0), "demo_g2r"),
            Node(
                "report",
                "PreviewAny",
                "What was recorded",
                {"source": ("collect", 2)},
                height=260,
            ),
        ),
    ),
)
# Groups in columns, from left to right. The thumbnail is made by the demo run.
DEMO = Workflow(
    "i2am_01_demo", ((MODELS,), (PICTURES, GIVEN), (SAMPLE,), (POINT,), (MAPS, NUMBERS))
)
