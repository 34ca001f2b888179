"""The example workflows: what is in each of them, in the words of the people who open them.

`make_workflows.py` has ComfyUI's own page build and arrange them. Every workflow here runs as it is
on the models that come with the pack; those for other models are in `model_workflows.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

SEED = 20240712

R2G, G2R = "reference to generated", "generated to reference"


@dataclass(frozen=True)
class Node:
    """A node to make. `wires`: input name to (node key, output slot)."""

    key: str
    type: str
    title: str | None = None
    wires: dict[str, tuple[str, int]] = field(default_factory=dict)
    widgets: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Group:
    """Stacks of nodes side by side, in a frame with a title."""

    title: str
    color: str
    stacks: tuple[tuple[Node, ...], ...]


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

PICTURE = 268  # height of a node that shows a small picture

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


@dataclass(frozen=True)
class Workflow:
    """One file: groups in columns.

    shown: the nodes whose pictures make its thumbnail, at most four. runs: whether it runs here,
    on the models that come with the pack. packs: others' packs whose nodes it uses.
    """

    name: str
    columns: tuple[tuple[Group, ...], ...]
    shown: tuple[str, ...] = ()
    runs: bool = True
    packs: tuple[str, ...] = ()

    def node(self, key: str) -> Node:
        """The node of this key."""
        nodes = (
            node
            for column in self.columns
            for group in column
            for stack in group.stacks
            for node in stack
        )
        return next(node for node in nodes if node.key == key)


# What the workflows share. A key ends in what tells it from its kind, such as "_2".

BLUE, GREEN, GOLD, RED, TEAL, LILAC = "#3f789e", "#8A8", "#b58b2a", "#A88", "#3f5159", "#7a5c9e"
MAP_SIZE: dict[str, Any] = {"width": 340, "height": 660}


def load_picture(key: str, title: str, file: str) -> Node:
    return Node(key, "LoadImage", title, widgets={"image": file}, height=PICTURE)


def load_mask(key: str, title: str, file: str) -> Node:
    widgets = {"image": file, "channel": "red"}
    return Node(key, "LoadImageMask", title, widgets=widgets, height=PICTURE)


def pictures(prefix: str, scene: str, thing: str) -> Group:
    """A scene with a hole and an object to fill it, each with its mask."""
    return Group(
        "2 · Pictures and masks",
        BLUE,
        (
            (
                load_picture("scene", f"The {scene}, with a hole", f"{prefix}_scene.png"),
                load_mask("hole", "Where the hole is", f"{prefix}_hole_mask.png"),
            ),
            (
                load_picture("object", f"The {thing}", f"{prefix}_reference.png"),
                load_mask("shape", f"Where the {thing} is", f"{prefix}_object_mask.png"),
            ),
        ),
    )


def models(note: str, height: int = 560) -> Group:
    """The words that explain a workflow, and the demo's models."""
    return Group(
        "1 · Read me, and the models",
        TEAL,
        (
            (
                Node(
                    "note", "MarkdownNote", "Read me", widgets={"0": note}, width=440, height=height
                ),
                Node("unet", "UNETLoader", widgets={"unet_name": "i2am_demo_inpaint.safetensors"}),
                Node("vae", "VAELoader", widgets={"vae_name": "i2am_demo_vae.safetensors"}),
            ),
        ),
    )


def encoded(key: str, picture: str, title: str) -> Node:
    return Node(key, "VAEEncode", title, {"pixels": (picture, 0), "vae": ("vae", 0)})


def reference(key: str, conditioning: str, latent: str, title: str) -> Node:
    wires = {"conditioning": (conditioning, 0), "latent": (latent, 0)}
    return Node(key, "ReferenceLatent", title, wires)


def given(batch: int = 1) -> Group:
    """Scene and object as the model is given them."""
    return Group(
        "3 · What the model is given",
        "#88A",
        (
            (
                Node("blank", "I2AM_BlankPrompt"),
                encoded("encode_scene", "scene", "Encode the scene"),
                encoded("encode_object", "object", "Encode the reference"),
            ),
            (
                reference("reference_1", "blank", "encode_scene", "Reference 1: the scene"),
                reference("reference_2", "reference_1", "encode_object", "Reference 2: the object"),
                Node(
                    "empty",
                    "EmptySD3LatentImage",
                    "The empty canvas",
                    widgets={"width": 128, "height": 128, "batch_size": batch},
                ),
            ),
        ),
    )


def capture(key: str = "capture", model: str = "unet") -> Node:
    return Node(key, "I2AM_Capture", wires={"model": (model, 0)}, width=300)


def sampler(
    key: str = "sampler",
    title: str | None = None,
    model: str = "capture",
    positive: str = "reference_2",
    latent: str = "empty",
    **widgets: Any,
) -> Node:
    wires = {
        "model": (model, 0),
        "positive": (positive, 0),
        "negative": ("blank", 0),
        "latent_image": (latent, 0),
    }
    usual = {
        "seed": SEED,
        "control_after_generate": "fixed",
        "steps": 20,
        "cfg": 1.0,
        "sampler_name": "euler",
        "scheduler": "simple",
        "denoise": 1.0,
    }
    return Node(key, "KSampler", title, wires, usual | widgets)


def decoded(key: str = "decode", samples: str = "sampler") -> Node:
    return Node(key, "VAEDecode", wires={"samples": (samples, 0), "vae": ("vae", 0)})


def collected(
    key: str = "collect",
    samples: str = "sampler",
    image: str = "decode",
    thing: str = "object",
    mask: str | None = "hole",
) -> Node:
    wires = {
        "samples": (samples, 0),
        "image": (image, 0),
        "references.reference_1": ("scene", 0),
        "references.reference_2": (thing, 0),
    }
    if mask:
        wires["mask"] = (mask, 0)
    return Node(key, "I2AM_Collect", wires=wires)


def saved(key: str, title: str, image: tuple[str, int], name: str) -> Node:
    widgets = {"filename_prefix": f"i2am/{name}"}
    return Node(key, "SaveImage", title, {"images": image}, widgets, height=PICTURE)


def mapped(key: str, title: str, direction: str, attribution: str = "collect", **more: Any) -> Node:
    widgets = {"direction": direction, "reference": 2} | more
    return Node(key, "I2AM_Map", title, {"attribution": (attribution, 0)}, widgets, **MAP_SIZE)


def scored(key: str, title: str, attribution: str = "collect", **wires: tuple[str, int]) -> Node:
    wires = {"attribution": (attribution, 0)} | wires
    return Node(key, "I2AM_IMACS", title, wires, {"reference": 2}, width=380)


ONE_RUN = Group("4 · Sample, watched", GREEN, ((capture(), sampler(), decoded(), collected()),))

DEBUG_NOTE = """# Why does the model ignore my reference?

Two runs side by side. In **A** all is well. In **B** somebody wired the **scene to both \
references**: a typical mistake. The object's picture never reaches the model, and nothing says so.

**Press Run** and compare:

- **Where it was used**: in A the hole glows. In B the second reference glows nowhere in particular.
- **IMACS** puts that into a number: well above 0 in A, below 0 in B. The table on the node keeps \
your last runs, so change one setting at a time and watch the score.
- **What changed** subtracts A from B: blue is where B reads its second reference less.

**With your own inpainting**: put *Capture Attention* right before your sampler and *Collect \
Attribution* behind it. If your latent has an inpainting mask, IMACS uses it by itself.

The score tells *where* a reference was used. A wrong object that fits the hole scores well too: \
look at the picture.
"""

DEBUG = Workflow(
    "i2am_inpaint_debug",
    (
        (models(DEBUG_NOTE, 640),),
        (
            pictures("i2am_demo", "scene", "object"),
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
                "4 · Sample both, watched by one Capture Attention",
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

TRY_ON_NOTE = """# Did it put on the right thing?

Try-on is inpainting from a reference: a person with a hole where the garment goes, and a picture \
of the garment. Here a small stand-in: the hole has the shape of the object.

**Press Run.** *IMACS* asks on **both sides**:

- **over the result**: did the garment go where it should, and nowhere else?
- **over the reference**: did the model look at the garment, and not at what is around it?

1 is best. Above 0 the map is over three times as high inside the mask as outside. The paper's \
preset can be compared with published numbers; the robust one does not let a single bright cell \
decide.

**With a real try-on model**: the first mask is your inpainting mask, the second is the garment's \
own mask in its picture.
"""

TRY_ON = Workflow(
    "i2am_try_on",
    (
        (models(TRY_ON_NOTE),),
        (pictures("i2am_try_on", "person", "garment"), given()),
        (
            Group(
                "4 · Sample, watched",
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
                            "As the paper has it",
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

TWO_NOTE = """# Two references: who gave what?

The model has two references here: the **scene** around the hole, and the **object** that goes in.

**Press Run.**

- **Reference Influence** colours every place by the reference it drew from, and says in plain \
words how much each was used. The hole should have the object's colour.
- **One against the other** subtracts the object's map from the scene's: orange is where the \
object gave more, blue where the scene did.
- The two maps below show each reference alone.

**With your own model**: as many references as you like, in the order the model is given them.
"""

INFLUENCE: dict[str, Any] = {"width": 420, "height": 640}

TWO_REFERENCES = Workflow(
    "i2am_two_references",
    (
        (models(TWO_NOTE, 460),),
        (pictures("i2am_demo", "scene", "object"), given()),
        (ONE_RUN,),
        (
            Group(
                "5 · Who gave what?",
                GOLD,
                (
                    (
                        Node(
                            "influence",
                            "I2AM_Influence",
                            wires={"attribution": ("collect", 0), "region": ("hole", 0)},
                            **INFLUENCE,
                        ),
                    ),
                    (
                        Node(
                            "compare",
                            "I2AM_Compare",
                            "One against the other",
                            {"attribution": ("collect", 0), "other": ("collect", 0)},
                            {"reference": 1, "other_reference": 2},
                            **INFLUENCE,
                        ),
                    ),
                ),
            ),
            Group(
                "6 · Each alone",
                LILAC,
                (
                    (mapped("map_1", "From the scene", R2G, reference=1, scale="absolute"),),
                    (mapped("map_2", "From the object", R2G, scale="absolute"),),
                ),
            ),
        ),
    ),
    ("influence", "compare", "map_1", "map_2"),
)

MASK_NOTE = """# A mask made by attention, for a second pass

You do not have to paint a mask around what came from the reference: the model's attention knows.

**Press Run.**

1. The first pass fills the hole.
2. *Attribution to Mask* finds where the reference was used, grows it a little and softens its edge.
3. The second pass samples again **inside this mask only**, at half strength, with another seed. \
The rest of the picture stays.

The second mask cuts the object out of its **reference** picture.

**Try this**: another *method* or *value*; *grow* for a wider seam; the second pass' *denoise*.
"""

AUTO_MASK = Workflow(
    "i2am_auto_mask",
    (
        (models(MASK_NOTE, 480),),
        (pictures("i2am_demo", "scene", "object"), given()),
        (
            Group(
                "4 · First pass, watched",
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

BEST_NOTE = """# The best of eight

Eight tries from one seed, scored by attention, the best one kept. Nothing is lost: the other \
seven come out too, the better first.

**Press Run.** *IMACS* scores each try by how well the model's attention agrees with the masks, \
and *Pick Best* ranks them.

**Which score?** Here *inside_generated*: the part of the attention that lies in the hole. \
Measured on this model with 24 scenes it was never made for: the try it picks has **19 % less \
error** than the mean of the eight (IMACS over the reference: 12 %; a perfect judge: 27 %). On \
hard scenes the gain was within chance. With your model, look before you trust it.

**Try this**: connect another score; *count* 3; *better* lower, to see the worst.
"""

BEST = Workflow(
    "i2am_best_of_eight",
    (
        (models(BEST_NOTE, 500),),
        (pictures("i2am_demo", "scene", "object"), given(8)),
        (
            Group(
                "4 · Eight tries, watched",
                GREEN,
                ((capture(), sampler(steps=4), decoded(), collected()),),
            ),
        ),
        (
            Group(
                "5 · Score each",
                RED,
                (
                    (
                        Node(
                            "imacs",
                            "I2AM_IMACS",
                            "IMACS of each",
                            {
                                "attribution": ("collect", 0),
                                "generated_mask": ("hole", 0),
                                "reference_mask": ("shape", 0),
                            },
                            {"reference": 2},
                            width=420,
                        ),
                    ),
                ),
            ),
        ),
        (
            Group(
                "6 · Keep the best",
                GOLD,
                (
                    (
                        Node(
                            "pick",
                            "I2AM_PickBest",
                            wires={
                                "scores": ("imacs", 3),
                                "images": ("decode", 0),
                                "samples": ("sampler", 0),
                            },
                            width=380,
                            height=480,
                        ),
                        saved("save_best", "The best", ("pick", 0), "best"),
                    ),
                    (
                        Node(
                            "rest",
                            "PreviewImage",
                            "The other seven, the better first",
                            {"images": ("pick", 4)},
                            width=420,
                            height=420,
                        ),
                    ),
                ),
            ),
        ),
    ),
    ("save_best", "rest"),
)

STRENGTH_NOTE = """# Turn a reference up or down, and see it

**Before** is the model as it is. **After** goes through *Reference Strength*: here the object's \
reference is turned down to a tenth.

**Press Run.** *Reference Influence* tells in both runs how much of the model's attention the \
reference really got: the dial is measured, not guessed. *What changed* shows where.

**Try this**
- *strength* 0 mutes the reference: the hole stays without its object.
- *strength* 4 turns it up.
- Give *Reference Strength* the object's mask as *reference_mask*: then only that part counts.

1 changes nothing, to the last bit.
"""

STRENGTH = Workflow(
    "i2am_reference_strength",
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

TRUTH_NOTE = """# Does the map tell the truth?

A map is a claim: *this part of the reference made the result*. Here it is put to the test on your \
own picture.

**Press Run.** Three runs with the same seed:

1. as it is,
2. with the part **muted that the map points at**,
3. with an **equal part elsewhere** muted.

If the map is right, 2 changes much and 3 hardly anything. *Does the Map Tell the Truth?* says how \
many times more.

**Try this**: another *seed* of the random part; less *percent*; your own model.
"""


def muted(key: str, title: str, part: int) -> Node:
    wires = {"model": ("capture", 0), "reference_mask": ("part", part)}
    return Node(key, "I2AM_Steer", title, wires, {"reference": 2, "strength": 0.0})


TRUTH = Workflow(
    "i2am_truth_test",
    (
        (models(TRUTH_NOTE, 460),),
        (pictures("i2am_demo", "scene", "object"), given()),
        (
            Group(
                "4 · As it is, watched",
                GREEN,
                (
                    (
                        capture(),
                        sampler(title="1 · as it is"),
                        decoded(),
                        collected(),
                        saved("save", "1 · as it is", ("decode", 0), "truth_1"),
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
                            "As much elsewhere",
                            {"mask": ("part", 1)},
                            height=PICTURE,
                        ),
                    ),
                ),
            ),
        ),
        (
            Group(
                "6 · Each muted",
                GREEN,
                (
                    (
                        muted("mute_top", "Mute what the map points at", 0),
                        sampler("sampler_top", "2 · without it", "mute_top"),
                        decoded("decode_top", "sampler_top"),
                        saved("save_top", "2 · without it", ("decode_top", 0), "truth_2"),
                    ),
                    (
                        muted("mute_random", "Mute as much elsewhere", 1),
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


LOCATE_NOTE = """# Where did it go? A box from attention

The I2AM paper finds objects this way: put something into a picture, and the attention map tells \
where it went. No detector, no list of classes.

Here a small Stable Diffusion model fills the **cut-out box** with the object of the reference, \
which it reads by **cross-attention**, as the paper's models do.

**Press Run.** *Locate Object* draws the box it finds; *Crop Image* cuts it out with ComfyUI's own \
node.

Over 64 held-out pictures the box overlaps the true one by 0.62 on average (a random box: 0.20). \
The model is told the box, so this tells that the map follows the object, not that anything was \
detected: see docs/tasks.md.
"""

LOCATE = Workflow(
    "i2am_locate_object",
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
                "4 · Sample, watched",
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
                            widgets=sampler().widgets,
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

UPSCALE_NOTE = """# Super-resolution: what of the low resolution is used?

The paper's other task. The reference is the picture at an eighth of its size, enlarged again; a \
small model puts detail back.

**Press Run.**

- **Over time**: where the result reads the low resolution, from the noisiest steps to the cleanest.
- **What was read** of the low resolution. Do not look for the picture's detail in it: on average \
over 64 pictures these maps hardly follow it. See docs/tasks.md.

It is a small upscaler, made to watch: its edges are sharper and its errors smaller than those of \
the enlarged picture, but fine texture does not come back.
"""

UPSCALE = Workflow(
    "i2am_super_resolution",
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
                    (load_picture("true", "To compare: the truth", "i2am_upscale_true.png"),),
                ),
            ),
        ),
        (
            Group(
                "3 · Sample, watched",
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
                "4 · What is read, when?",
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

WORKFLOWS = (
    Workflow("i2am_demo", DEMO),
    DEBUG,
    TRY_ON,
    TWO_REFERENCES,
    AUTO_MASK,
    BEST,
    STRENGTH,
    TRUTH,
    LOCATE,
    UPSCALE,
)
