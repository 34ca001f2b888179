"""i2am_12_qwen_image_edit: is the second picture used?"""

from __future__ import annotations

from tools.workflows.catalog.model_parts import (
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

QWEN_NOTE = """# Qwen-Image-Edit: is my second picture used?

**You need** (ComfyUI's own names, in `models/`):
- `diffusion_models/qwen_image_edit_2509_fp8_e4m3fn.safetensors`
- `text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors`
- `vae/qwen_image_vae.safetensors`

Load two pictures, say what to do and **press Run**. *Reference Influence* shows how much of the \
model's attention each picture got.

The text encoder sees the pictures too. Whatever reaches the result through the text counts as text.
"""


def qwen_prompt(key: str, title: str, text: str) -> Node:
    wires = {
        "clip": ("cliploader", 0),
        "vae": ("vaeloader", 0),
        "image1": ("scale_1", 0),
        "image2": ("two", 0),
    }
    kind = "TextEncodeQwenImageEditPlus"
    return Node(key, kind, title, wires, {"prompt": text}, width=340, height=200)


QWEN = Workflow(
    "i2am_12_qwen_image_edit",
    (
        (
            Group(
                "Read me, and the models",
                TEAL,
                (
                    (
                        note(QWEN_NOTE, 400),
                        loader(
                            "UNETLoader",
                            unet_name="qwen_image_edit_2509_fp8_e4m3fn.safetensors",
                        ),
                        loader(
                            "CLIPLoader",
                            clip_name="qwen_2.5_vl_7b_fp8_scaled.safetensors",
                            type="qwen_image",
                        ),
                        loader("VAELoader", vae_name="qwen_image_vae.safetensors"),
                        Node(
                            "shift",
                            "ModelSamplingAuraFlow",
                            wires={"model": ("unetloader", 0)},
                            widgets={"shift": 3.0},
                        ),
                        Node("norm", "CFGNorm", wires={"model": ("shift", 0)}),
                    ),
                ),
            ),
        ),
        (
            Group(
                "Two pictures and what to do with them",
                BLUE,
                (
                    (
                        picture("one", "Picture 1"),
                        Node("scale_1", "FluxKontextImageScale", wires={"image": ("one", 0)}),
                        Node(
                            "encode",
                            "VAEEncode",
                            wires={"pixels": ("scale_1", 0), "vae": ("vaeloader", 0)},
                        ),
                    ),
                    (
                        picture("two", "Picture 2"),
                        qwen_prompt(
                            "text",
                            "What to do",
                            "Put the object of picture 2 into picture 1.",
                        ),
                        qwen_prompt("negative", "What to avoid", ""),
                    ),
                ),
            ),
        ),
        (
            recorded(
                "norm",
                ("text", 0),
                ("negative", 0),
                ("encode", 0),
                cfg=2.5,
            ),
        ),
        (viewer_group(), influence_and_maps(2)),
    ),
    runs=False,
)
