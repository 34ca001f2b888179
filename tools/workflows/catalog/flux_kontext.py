"""i2am_11_flux_kontext: two references of FLUX.1 Kontext."""

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
    TEAL,
    Group,
    Node,
    Workflow,
)

KONTEXT_NOTE = """# FLUX.1 Kontext: two references, which gave what?

**You need** (ComfyUI's own names, in `models/`):
- `diffusion_models/flux1-dev-kontext_fp8_scaled.safetensors`
- `text_encoders/clip_l.safetensors`, `text_encoders/t5xxl_fp8_e4m3fn_scaled.safetensors`
- `vae/ae.safetensors`

Load two pictures, say what to do with them and **press Run**. *Reference Influence* colours each \
place by the reference it drew from and says how much each one was used. In the *Attribution \
Viewer*, point at a place to see where it came from.

*Collect Attribution* decodes the references with the VAE, so you see them as the model did, \
cropped to the sizes it knows.

If a reference is hardly used, put **Reference Strength** between *Load Diffusion Model* and \
*Capture Attention* and turn it up.
"""
KONTEXT = Workflow(
    "i2am_11_flux_kontext",
    (
        (
            Group(
                "Read me, and the models",
                TEAL,
                (
                    (
                        note(KONTEXT_NOTE, 540),
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
            recorded(
                "unetloader",
                ("guidance", 0),
                ("negative", 0),
                ("encode_1", 0),
            ),
        ),
        (viewer_group(), influence_and_maps(2)),
    ),
    runs=False,
)
