"""The example workflows for models that people have: they need only the model files.

They are built by the page from the same nodes as the others, but cannot run where the files are
not; tests hold their nodes, inputs and wires against what ComfyUI knows.
"""

from __future__ import annotations

from typing import Any

from tools.workflows.examples import (
    BLUE,
    G2R,
    GOLD,
    GREEN,
    INFLUENCE,
    LILAC,
    MAP_SIZE,
    R2G,
    RED,
    SEED,
    TEAL,
    Group,
    Node,
    Workflow,
)

PICTURE, PROMPT = 320, 140  # heights


def note(text: str, height: int) -> Node:
    return Node("note", "MarkdownNote", "Read me", widgets={"0": text}, width=460, height=height)


def loader(kind: str, **files: str) -> Node:
    return Node(kind.lower(), kind, widgets=dict(files), width=340)


def picture(key: str, title: str) -> Node:
    # The picture every ComfyUI has.
    return Node(key, "LoadImage", title, widgets={"image": "example.png"}, height=PICTURE)


def prompt(key: str, title: str, text: str) -> Node:
    wires = {"clip": ("dualcliploader", 0)}
    return Node(key, "CLIPTextEncode", title, wires, {"text": text}, width=340, height=PROMPT)


Wire = tuple[str, int]


def sampler(positive: Wire, negative: Wire, latent: Wire, **widgets: Any) -> Node:
    wires = {
        "model": ("capture", 0),
        "positive": positive,
        "negative": negative,
        "latent_image": latent,
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
    return Node("sampler", "KSampler", wires=wires, widgets=usual | widgets)


def watched(
    model: str,
    positive: Wire,
    negative: Wire,
    latent: Wire,
    *shown: str,
    vae: Wire = ("vaeloader", 0),
    **widgets: Any,
) -> Group:
    """From the model to the attribution; `shown`: the references' pictures, in their order."""
    references = {f"references.reference_{n}": (key, 0) for n, key in enumerate(shown, start=1)}
    return Group(
        "Sample, watched",
        GREEN,
        (
            (
                Node("capture", "I2AM_Capture", wires={"model": (model, 0)}, width=320),
                sampler(positive, negative, latent, **widgets),
                Node(
                    "decode",
                    "VAEDecode",
                    wires={"samples": ("sampler", 0), "vae": vae},
                ),
                Node(
                    "collect",
                    "I2AM_Collect",
                    wires={"samples": ("sampler", 0), "image": ("decode", 0)} | references,
                ),
                Node(
                    "save",
                    "SaveImage",
                    "The result",
                    {"images": ("decode", 0)},
                    {"filename_prefix": "i2am/result"},
                    height=PICTURE,
                ),
            ),
        ),
    )


def viewed() -> Group:
    viewer = Node(
        "viewer", "I2AM_Viewer", wires={"attribution": ("collect", 0)}, width=820, height=700
    )
    return Group("Point at a place", LILAC, ((viewer,),))


def asked(reference: int = 1, over: str | None = G2R) -> Group:
    """Influence, and the maps of one reference."""
    maps = [
        Node(
            key,
            "I2AM_Map",
            title,
            {"attribution": ("collect", 0)},
            {"direction": direction, "reference": reference},
            **MAP_SIZE,
        )
        for key, title, direction in (
            ("r2g", "Where it was used", R2G),
            ("g2r", "What of it was used", over),
        )
        if direction
    ]
    influence = Node(
        "influence", "I2AM_Influence", wires={"attribution": ("collect", 0)}, **INFLUENCE
    )
    return Group("Who gave what, and where?", GOLD, ((influence,), *((map,) for map in maps)))


KONTEXT_NOTE = """# FLUX.1 Kontext: two references, who gave what

**You need** (ComfyUI's own names, in `models/`):
- `diffusion_models/flux1-dev-kontext_fp8_scaled.safetensors`
- `text_encoders/clip_l.safetensors`, `text_encoders/t5xxl_fp8_e4m3fn_scaled.safetensors`
- `vae/ae.safetensors`

Load two pictures, say what to do with them, and **press Run**. *Reference Influence* colours each \
place by the reference it drew from and says how much each was used. In the *Attribution Viewer*, \
point at a place to see where it came from.

If a reference is hardly used, put **Reference Strength** between *Load Diffusion Model* and \
*Capture Attention* and turn it up.
"""

KONTEXT = Workflow(
    "i2am_flux_kontext",
    (
        (
            Group(
                "Read me, and the models",
                TEAL,
                (
                    (
                        note(KONTEXT_NOTE, 480),
                        loader("UNETLoader", unet_name="flux1-dev-kontext_fp8_scaled.safetensors"),
                        loader(
                            "DualCLIPLoader",
                            clip_name1="clip_l.safetensors",
                            clip_name2="t5xxl_fp8_e4m3fn_scaled.safetensors",
                            type="flux",
                        ),
                        loader("VAELoader", vae_name="ae.safetensors"),
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
                        picture("one", "Reference 1"),
                        Node("scale_1", "FluxKontextImageScale", wires={"image": ("one", 0)}),
                        Node(
                            "encode_1",
                            "VAEEncode",
                            wires={"pixels": ("scale_1", 0), "vae": ("vaeloader", 0)},
                        ),
                        prompt(
                            "text",
                            "What to do",
                            "Place the object of the second picture into the first picture.",
                        ),
                    ),
                    (
                        picture("two", "Reference 2"),
                        Node("scale_2", "FluxKontextImageScale", wires={"image": ("two", 0)}),
                        Node(
                            "encode_2",
                            "VAEEncode",
                            wires={"pixels": ("scale_2", 0), "vae": ("vaeloader", 0)},
                        ),
                        Node(
                            "negative",
                            "ConditioningZeroOut",
                            wires={"conditioning": ("text", 0)},
                        ),
                    ),
                    (
                        Node(
                            "reference_1",
                            "ReferenceLatent",
                            "Reference 1",
                            {"conditioning": ("text", 0), "latent": ("encode_1", 0)},
                        ),
                        Node(
                            "reference_2",
                            "ReferenceLatent",
                            "Reference 2",
                            {"conditioning": ("reference_1", 0), "latent": ("encode_2", 0)},
                        ),
                        Node(
                            "guidance",
                            "FluxGuidance",
                            wires={"conditioning": ("reference_2", 0)},
                            widgets={"guidance": 2.5},
                        ),
                    ),
                ),
            ),
        ),
        (
            watched(
                "unetloader",
                ("guidance", 0),
                ("negative", 0),
                ("encode_1", 0),
                "scale_1",
                "scale_2",
            ),
        ),
        (viewed(), asked(2)),
    ),
    runs=False,
)

QWEN_NOTE = """# Qwen-Image-Edit: is my second picture used?

**You need** (ComfyUI's own names, in `models/`):
- `diffusion_models/qwen_image_edit_2509_fp8_e4m3fn.safetensors`
- `text_encoders/qwen_2.5_vl_7b_fp8_scaled.safetensors`
- `vae/qwen_image_vae.safetensors`

Load two pictures, say what to do, and **press Run**. *Reference Influence* tells for each picture \
how much of the model's attention it got.

The text encoder sees the pictures too. What reaches the result by way of the text counts as text.
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
    "i2am_qwen_image_edit",
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
            watched(
                "norm",
                ("text", 0),
                ("negative", 0),
                ("encode", 0),
                "scale_1",
                "two",
                cfg=2.5,
            ),
        ),
        (viewed(), asked(2)),
    ),
    runs=False,
)

FILL_NOTE = """# FLUX.1 Fill with Redux: did the hole get my reference?

**You need** (ComfyUI's own names, in `models/`):
- `diffusion_models/flux1-fill-dev.safetensors`
- `style_models/flux1-redux-dev.safetensors`
- `clip_vision/sigclip_vision_patch14_384.safetensors`
- `text_encoders/clip_l.safetensors`, `text_encoders/t5xxl_fp8_e4m3fn_scaled.safetensors`
- `vae/ae.safetensors`

Load the picture and paint the hole into it (right click, *Open in Mask Editor*), load the \
reference, and **press Run**. *Mark Redux Tokens* names the reference's tokens, so that they can \
be watched. *IMACS* scores over the result inside the very hole that was sampled: connect no mask.
"""

FILL = Workflow(
    "i2am_flux_fill_redux",
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
            watched("soft", ("inpaint", 0), ("inpaint", 1), ("inpaint", 2), "two"),
            Group(
                "Did it go into the hole?",
                RED,
                ((Node("imacs", "I2AM_IMACS", wires={"attribution": ("collect", 0)}, width=380),),),
            ),
        ),
        (viewed(), asked()),
    ),
    runs=False,
)

SDXL_NOTE = """# SDXL with IP-Adapter: what did the adapter bring in?

**You need** the pack **ComfyUI_IPAdapter_plus** (in the Manager), and in `models/`:
- `checkpoints/sd_xl_base_1.0.safetensors`
- `ipadapter/ip-adapter-plus_sdxl_vit-h.safetensors`
- `clip_vision/CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors`

Load a reference, say what to draw, and **press Run**. *Reference Influence* tells how much the \
adapter gave and where in the result; an adapter of weight 1 has half beside the text's own half.

This adapter's tokens stand for the whole picture, so there is a map over the result and none over \
the reference. **Trace Adapter Tokens** follows them back into it.
"""


def words(key: str, title: str, text: str) -> Node:
    wires = {"clip": ("checkpointloadersimple", 1)}
    return Node(key, "CLIPTextEncode", title, wires, {"text": text}, width=340, height=PROMPT)


SDXL = Workflow(
    "i2am_sdxl_ip_adapter",
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
            watched(
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
        (viewed(), asked(over=None)),
    ),
    runs=False,
    packs=("ComfyUI_IPAdapter_plus",),
)

MODEL_WORKFLOWS: tuple[Workflow, ...] = (KONTEXT, QWEN, FILL, SDXL)
