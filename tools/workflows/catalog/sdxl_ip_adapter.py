"""i2am_14_sdxl_ip_adapter: what did the adapter bring in?"""

from __future__ import annotations

from tools.workflows.catalog.model_parts import (
    PROMPT,
    influence_and_maps,
    loader,
    note,
    picture,
    recorded,
    viewer_group,
)
from tools.workflows.catalog.parts import (
    BLUE,
    TEAL,
    Group,
    Node,
    Workflow,
)

SDXL_NOTE = """# SDXL with IP-Adapter: what did the adapter bring in?

**You need** the pack **ComfyUI_IPAdapter_plus** (in the Manager), and in `models/`:
- `checkpoints/sd_xl_base_1.0.safetensors`
- `ipadapter/ip-adapter-plus_sdxl_vit-h.safetensors`
- `clip_vision/CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors`

Load a reference, say what to draw and **press Run**. *Reference Influence* shows how much the \
adapter contributed and where in the result. An adapter of weight 1 counts for half, the text for \
the other half.

This adapter's tokens stand for the whole picture, so there is a map over the result but none over \
the reference. **Trace Adapter Tokens** follows the tokens back into it.
"""


def words(key: str, title: str, text: str) -> Node:
    wires = {"clip": ("checkpointloadersimple", 1)}
    return Node(key, "CLIPTextEncode", title, wires, {"text": text}, width=340, height=PROMPT)


SDXL = Workflow(
    "i2am_14_sdxl_ip_adapter",
    (
        (
            Group(
                "Read me, and the models",
                TEAL,
                (
                    (
                        note(SDXL_NOTE, 460),
                        loader("CheckpointLoaderSimple", ckpt_name="sd_xl_base_1.0.safetensors"),
                        Node(
                            "adapter",
                            "IPAdapterUnifiedLoader",
                            wires={"model": ("checkpointloadersimple", 0)},
                            widgets={"preset": "PLUS (high strength)"},
                            width=340,
                        ),
                    ),
                ),
            ),
        ),
        (
            Group(
                "The reference, and the words",
                BLUE,
                (
                    (
                        picture("one", "The reference"),
                        Node(
                            "apply",
                            "IPAdapterAdvanced",
                            wires={
                                "model": ("adapter", 0),
                                "ipadapter": ("adapter", 1),
                                "image": ("one", 0),
                            },
                            widgets={"weight": 1.0, "weight_type": "linear"},
                        ),
                    ),
                    (
                        words("text", "What to draw", "a photograph of a garden"),
                        words("negative", "What to avoid", "blurry"),
                        Node(
                            "empty",
                            "EmptyLatentImage",
                            widgets={"width": 1024, "height": 1024, "batch_size": 1},
                        ),
                    ),
                ),
            ),
        ),
        (
            recorded(
                "apply",
                ("text", 0),
                ("negative", 0),
                ("empty", 0),
                "one",
                vae=("checkpointloadersimple", 2),
                cfg=6.0,
                steps=30,
            ),
        ),
        (viewer_group(), influence_and_maps(over=None)),
    ),
    runs=False,
    packs=("ComfyUI_IPAdapter_plus",),
)
