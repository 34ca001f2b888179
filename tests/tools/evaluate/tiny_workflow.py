"""A workflow small enough to read, and what ComfyUI would say of its nodes."""

from __future__ import annotations

from typing import Any

OBJECT_INFO: dict[str, Any] = {
    "LoadImage": {
        "display_name": "Load Image",
        "input": {"required": {"image": [["a.png"], {"image_upload": True}]}},
    },
    "UNETLoader": {
        "display_name": "Load Diffusion Model",
        "input": {"required": {"unet_name": [["one.safetensors", "two.safetensors"]]}},
    },
    "KSampler": {
        "display_name": "KSampler",
        "input": {
            "required": {
                "model": ["MODEL"],
                "seed": ["INT", {"min": 0, "max": 1000}],
                "cfg": ["FLOAT", {"min": 0.0, "max": 100.0}],
                "add_noise": ["BOOLEAN", {}],
                "sampler_name": ["COMBO", {"options": ["euler", "heun"]}],
            }
        },
    },
    "I2AM_Collect": {
        "display_name": "Collect Attribution",
        "input": {"required": {"samples": ["LATENT"]}, "optional": {"image": ["IMAGE"]}},
    },
    "I2AM_IMACS": {
        "display_name": "IMACS",
        "input": {
            "required": {"attribution": ["I2AM_ATTRIBUTION"]},
            "optional": {"penalty": ["FLOAT", {}], "reference_mask": ["MASK"]},
        },
    },
    "SaveImage": {"input": {"required": {"images": ["IMAGE"]}}},
}


def prompt() -> dict[str, Any]:
    """The API prompt of a workflow: two pictures, a model, a sampler, Collect and IMACS."""
    return {
        "1": {
            "class_type": "LoadImage",
            "inputs": {"image": "a.png"},
            "_meta": {"title": "reference"},
        },
        "2": {"class_type": "LoadImage", "inputs": {"image": "a.png"}, "_meta": {"title": "mask"}},
        "3": {"class_type": "UNETLoader", "inputs": {"unet_name": "one.safetensors"}},
        "4": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["3", 0],
                "seed": 1,
                "cfg": 1.0,
                "add_noise": True,
                "sampler_name": "euler",
            },
        },
        "5": {"class_type": "I2AM_Collect", "inputs": {"samples": ["4", 0], "image": ["1", 0]}},
        "6": {
            "class_type": "I2AM_IMACS",
            "inputs": {"attribution": ["5", 0], "penalty": 3.0, "reference_mask": ["2", 1]},
        },
        "7": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}},
    }
