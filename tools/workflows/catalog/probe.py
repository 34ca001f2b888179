"""i2am_15_probe: which reference, and where, for a picture that exists already."""

from __future__ import annotations

from typing import Any

from tools.workflows.catalog.parts import (
    BLUE,
    G2R,
    GOLD,
    GREEN,
    LILAC,
    R2G,
    RED,
    Group,
    Node,
    Workflow,
    encoded,
    load_picture,
    mapped,
    models,
    reference,
)

PROBE_NOTE = """# Where did this picture come from?

The picture is **finished**. Nobody watched it being made, and nothing is generated here. *Probe a \
Picture* adds noise to it, asks the model once at each noise level, and records where it looks.

**Press Run.** Then:

- **Point at the object** in the viewer: its origin in the reference lights up.
- The two maps show **where the reference was used**, and **what of it**.
- **Which reference was it?** The same picture is probed with another reference. Compare the two \
*fits*: the reference that made the picture has the higher one. The map alone would not tell, \
because the model looks for a place to use any reference it is given.

**With your own picture**: connect your model, the prompt and references it was made with, and the \
picture through *VAE Encode*, at its own size.

**Try this**: more *levels*; another *seed*; the two references swapped.
"""


def probed(key: str, title: str, positive: str) -> Node:
    wires: dict[str, tuple[str, int]] = {
        "model": ("unet", 0),
        "positive": (positive, 0),
        "latent_image": ("encode_picture", 0),
        "vae": ("vae", 0),
    }
    widgets: dict[str, Any] = {"seed": 0, "control_after_generate": "fixed"}
    return Node(key, "I2AM_Probe", title, wires, widgets, width=330)


def said(key: str, title: str, source: tuple[str, int], height: int = 110) -> Node:
    return Node(key, "PreviewAny", title, {"source": source}, width=330, height=height)


PROBE = Workflow(
    "i2am_15_probe",
    (
        (models(PROBE_NOTE, 500),),
        (
            Group(
                "2 · The picture, and what it was made from",
                BLUE,
                (
                    (
                        load_picture("picture", "The finished picture", "i2am_demo_target.png"),
                        load_picture("scene", "The scene, with a hole", "i2am_demo_scene.png"),
                    ),
                    (
                        load_picture("object", "The reference", "i2am_demo_reference.png"),
                        load_picture("other", "Another one", "i2am_try_on_reference.png"),
                    ),
                ),
            ),
            Group(
                "3 · What the model is given",
                "#88A",
                (
                    (
                        Node("blank", "I2AM_BlankPrompt"),
                        encoded("encode_picture", "picture", "Encode the picture"),
                        encoded("encode_scene", "scene", "Encode the scene"),
                        reference("reference_1", "blank", "encode_scene", "Reference 1: the scene"),
                    ),
                    (
                        encoded("encode_object", "object", "Encode the reference"),
                        reference("reference_2", "reference_1", "encode_object", "Reference 2"),
                        encoded("encode_other", "other", "Encode the other one"),
                        reference(
                            "reference_other", "reference_1", "encode_other", "Reference 2: other"
                        ),
                    ),
                ),
            ),
        ),
        (
            Group(
                "4 · Probe it",
                GREEN,
                (
                    (
                        probed("probe", "Probe with the reference", "reference_2"),
                        said("report", "What was recorded", ("probe", 2), 260),
                    ),
                ),
            ),
            Group(
                "5 · Which reference was it?",
                RED,
                (
                    (
                        probed("probe_other", "Probe with another one", "reference_other"),
                        said("fit", "Fit with the reference", ("probe", 1)),
                        said("fit_other", "Fit with the other one", ("probe_other", 1)),
                    ),
                ),
            ),
        ),
        (
            Group(
                "6 · Point at a place",
                LILAC,
                (
                    (
                        Node(
                            "viewer",
                            "I2AM_Viewer",
                            wires={"attribution": ("probe", 0)},
                            properties={"i2am_view": {"reference": 1}},
                            width=820,
                            height=650,
                        ),
                    ),
                ),
            ),
        ),
        (
            Group(
                "7 · Where, and what",
                GOLD,
                (
                    (mapped("r2g", "Where it was used (R2G)", R2G, "probe"),),
                    (mapped("g2r", "What was used (G2R)", G2R, "probe"),),
                ),
            ),
        ),
    ),
    ("picture", "object", "r2g", "g2r"),
)
