"""i2am_01_demo: look at a picture from all sides."""

from __future__ import annotations

from tools.workflows.catalog.parts import G2R, PICTURE, R2G, SEED, Group, Node

NOTE = """# Which part of the reference made which part of the picture?

A small model fills the **grey hole** of the scene with the **object of the reference picture**. \
To do that it has to *look* at the reference, and this workflow watches it look.

**Press Run.** Then point at a place in the **Attribution Viewer**: the other picture shows where \
it came from. Click to keep it, drag for a region. And look at the two maps:

- **Where it was used** lies over the result. Bright places drew on the reference: the hole should \
glow, the rest stay dark.
- **What was used** lies over the reference. The object should glow, its surroundings stay dark.

**IMACS** puts the second look into numbers: 1 is best, below 0 the model looked past the object.

**Try this**
- Change the seed, or swap the two reference pictures' loaders: do the maps follow?
- Set *reference* of a map to 1: that is the scene itself.
- Set *level* to *time*: early steps look around, late steps look sharply.

**With your own model** put *Capture Attention* right before your sampler and give the sampler's \
LATENT to *Collect Attribution*. Your picture does not change by a bit. The model here is tiny and \
made for this demo; it is no editor.
"""
MODELS = Group(
    "1 · Models",
    "#3f5159",
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
    "#3f789e",
    (
        (
            Node(
                "scene",
                "LoadImage",
                "The scene, with a hole",
                widgets={"image": "i2am_demo_scene.png"},
                height=PICTURE,
            ),
            Node(
                "hole",
                "LoadImageMask",
                "Where the hole is",
                widgets={"image": "i2am_demo_hole_mask.png", "channel": "red"},
                height=PICTURE,
            ),
        ),
        (
            Node(
                "object",
                "LoadImage",
                "The reference, with the object",
                widgets={"image": "i2am_demo_reference.png"},
                height=PICTURE,
            ),
            Node(
                "shape",
                "LoadImageMask",
                "Where the object is",
                widgets={"image": "i2am_demo_object_mask.png", "channel": "red"},
                height=PICTURE,
            ),
        ),
    ),
)
GIVEN = Group(
    "3 · What the model is given",
    "#88A",
    (
        (
            Node("blank", "I2AM_BlankPrompt"),
            Node(
                "encode_scene",
                "VAEEncode",
                "Encode the scene",
                {"pixels": ("scene", 0), "vae": ("vae", 0)},
            ),
            Node(
                "encode_object",
                "VAEEncode",
                "Encode the reference",
                {"pixels": ("object", 0), "vae": ("vae", 0)},
            ),
            Node(
                "reference_1",
                "ReferenceLatent",
                "Reference 1: the scene",
                {"conditioning": ("blank", 0), "latent": ("encode_scene", 0)},
            ),
            Node(
                "reference_2",
                "ReferenceLatent",
                "Reference 2: the object",
                {"conditioning": ("reference_1", 0), "latent": ("encode_object", 0)},
            ),
            Node(
                "empty",
                "EmptySD3LatentImage",
                widgets={"width": 128, "height": 128, "batch_size": 1},
            ),
        ),
    ),
)
SAMPLE = Group(
    "4 · Sample, watched",
    "#8A8",
    (
        (
            Node("capture", "I2AM_Capture", wires={"model": ("unet", 0)}, width=300),
            Node(
                "sampler",
                "KSampler",
                wires={
                    "model": ("capture", 0),
                    "positive": ("reference_2", 0),
                    "negative": ("blank", 0),
                    "latent_image": ("empty", 0),
                },
                widgets={
                    "seed": SEED,
                    "control_after_generate": "fixed",
                    "steps": 20,
                    "cfg": 1.0,
                    "sampler_name": "euler",
                    "scheduler": "simple",
                    "denoise": 1.0,
                },
            ),
            Node("decode", "VAEDecode", wires={"samples": ("sampler", 0), "vae": ("vae", 0)}),
            Node(
                "collect",
                "I2AM_Collect",
                wires={
                    "samples": ("sampler", 0),
                    "image": ("decode", 0),
                    "references.reference_1": ("scene", 0),
                    "references.reference_2": ("object", 0),
                    "mask": ("hole", 0),
                },
            ),
            Node(
                "save_result",
                "SaveImage",
                "The result",
                {"images": ("decode", 0)},
                {"filename_prefix": "i2am/demo_result"},
                height=PICTURE,
            ),
        ),
    ),
)
ASK = Group(
    "5 · Point at a place",
    "#7a5c9e",
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
    "#b58b2a",
    (
        (
            Node(
                "r2g",
                "I2AM_Map",
                "Where it was used (R2G)",
                {"attribution": ("collect", 0)},
                {"direction": R2G, "reference": 2},
                width=340,
                height=660,
            ),
        ),
        (
            Node(
                "g2r",
                "I2AM_Map",
                "What was used (G2R)",
                {"attribution": ("collect", 0)},
                {"direction": G2R, "reference": 2},
                width=340,
                height=660,
            ),
        ),
    ),
)
NUMBERS = Group(
    "7 · Numbers and files",
    "#A88",
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
            Node(
                "save_r2g",
                "SaveImage",
                "Save where it was used",
                {"images": ("r2g", 0)},
                {"filename_prefix": "i2am/demo_r2g"},
                height=PICTURE,
            ),
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
            Node(
                "save_g2r",
                "SaveImage",
                "Save what was used",
                {"images": ("g2r", 0)},
                {"filename_prefix": "i2am/demo_g2r"},
                height=PICTURE,
            ),
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


# Columns of groups.
DEMO = ((MODELS,), (PICTURES, GIVEN), (SAMPLE,), (ASK,), (MAPS, NUMBERS))
