"""i2am_13_flux_fill_redux: did the hole get my reference?"""

from __future__ import annotations

from tools.workflows.catalog.model_parts import (
    influence_and_maps,
    loader,
    note,
    picture,
    prompt,
    recorded,
    viewer_group,
)
from tools.workflows.catalog.parts import (
    BLUE,
    RED,
    TEAL,
    Group,
    Node,
    Workflow,
)

FILL_NOTE = """# FLUX.1 Fill with Redux: did the hole get my reference?

**You need** (ComfyUI's own names, in `models/`):
- `diffusion_models/flux1-fill-dev.safetensors`
- `style_models/flux1-redux-dev.safetensors`
- `clip_vision/sigclip_vision_patch14_384.safetensors`
- `text_encoders/clip_l.safetensors`, `text_encoders/t5xxl_fp8_e4m3fn_scaled.safetensors`
- `vae/ae.safetensors`

Load the picture and paint the hole into it (right-click, *Open in Mask Editor*), load the \
reference and **press Run**. *Mark Redux Tokens* tells Capture Attention which tokens belong to \
the reference. *IMACS* scores the result inside the very hole that was sampled, so you need not \
connect a mask.
"""
FILL = Workflow(
    "i2am_13_flux_fill_redux",
    (
        (
            Group(
                "Read me, and the models",
                TEAL,
                (
                    (
                        note(FILL_NOTE, 470),
                        loader("UNETLoader", unet_name="flux1-fill-dev.safetensors"),
                        loader(
                            "DualCLIPLoader",
                            clip_name1="clip_l.safetensors",
                            clip_name2="t5xxl_fp8_e4m3fn_scaled.safetensors",
                            type="flux",
                        ),
                        loader("VAELoader", vae_name="ae.safetensors"),
                        loader(
                            "CLIPVisionLoader", clip_name="sigclip_vision_patch14_384.safetensors"
                        ),
                        loader("StyleModelLoader", style_model_name="flux1-redux-dev.safetensors"),
                        Node("soft", "DifferentialDiffusion", wires={"model": ("unetloader", 0)}),
                    ),
                ),
            ),
        ),
        (
            Group(
                "The picture with its hole, the reference, the words",
                BLUE,
                (
                    (
                        picture("one", "The picture: paint the hole here"),
                        picture("two", "The reference"),
                        prompt("text", "What it is", ""),
                    ),
                    (
                        Node(
                            "guidance",
                            "FluxGuidance",
                            wires={"conditioning": ("text", 0)},
                            widgets={"guidance": 30.0},
                        ),
                        Node(
                            "vision",
                            "CLIPVisionEncode",
                            wires={"clip_vision": ("clipvisionloader", 0), "image": ("two", 0)},
                            widgets={"crop": "none"},
                        ),
                        Node(
                            "style",
                            "StyleModelApply",
                            wires={
                                "conditioning": ("guidance", 0),
                                "style_model": ("stylemodelloader", 0),
                                "clip_vision_output": ("vision", 0),
                            },
                        ),
                        Node(
                            "mark",
                            "I2AM_MarkRedux",
                            wires={
                                "conditioning": ("style", 0),
                                "style_model": ("stylemodelloader", 0),
                                "clip_vision_output": ("vision", 0),
                            },
                        ),
                        Node("zero", "ConditioningZeroOut", wires={"conditioning": ("text", 0)}),
                        Node(
                            "inpaint",
                            "InpaintModelConditioning",
                            wires={
                                "positive": ("mark", 0),
                                "negative": ("zero", 0),
                                "vae": ("vaeloader", 0),
                                "pixels": ("one", 0),
                                "mask": ("one", 1),
                            },
                        ),
                    ),
                ),
            ),
        ),
        (
            recorded("soft", ("inpaint", 0), ("inpaint", 1), ("inpaint", 2), "two"),
            Group(
                "Did it go into the hole?",
                RED,
                ((Node("imacs", "I2AM_IMACS", wires={"attribution": ("collect", 0)}, width=380),),),
            ),
        ),
        (viewer_group(), influence_and_maps()),
    ),
    runs=False,
)
