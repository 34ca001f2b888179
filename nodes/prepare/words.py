"""Load Word Model: a small model that reads words and a reference, for stock nodes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import comfy.model_patcher
import comfy.sd
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer, SDClipModel
from comfy_api.latest import io
from torch import Tensor

from ...i2am.errors import I2AMError
from .demo import MODELS, small_unet, weights_of

WORD_MODEL = MODELS / "i2am_demo_words.safetensors"
VOCABULARY = 49408  # tokens of CLIP
WIDTH = 80  # of a token
TEXT_MODEL = {
    "num_hidden_layers": 1,
    "hidden_size": WIDTH,
    "num_attention_heads": 4,
    "intermediate_size": 1,  # the MLP is left out
    "hidden_act": "quick_gelu",
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
LAYER = "text_model.encoder.layers.0"
SPECIAL = r"<\|\w+\|>"  # the tokens that are no words


class LoadWordModel(io.ComfyNode):
    """The demo model that reads words, alone or with a reference, by cross-attention."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_LoadWords",
            display_name="Load Word Model (I2AM demo)",
            category="I2AM",
            description="Loads the small model of this pack that fills boxes of a picture with "
            'coloured shapes from a prompt, such as "a red circle", and with an object from a '
            "reference: a Stable Diffusion UNet at a fraction of its size, with its text encoder. "
            "It is for learning and testing, not for real work.",
            search_aliases=["demo model", "inpainting", "prompt words", "clip", "I2AM"],
            inputs=[],
            outputs=[
                io.Model.Output(
                    display_name="model",
                    tooltip="The model. It needs Inpaint Model Conditioning, and the demo VAE.",
                ),
                io.Clip.Output(
                    display_name="clip",
                    tooltip="Its text encoder, for CLIP Text Encode. It knows eight colours, eight "
                    "shapes and a few small words, and names any other word as an error.",
                ),
            ],
        )

    @classmethod
    def execute(cls) -> io.NodeOutput:
        return io.NodeOutput(*load_word_model(WORD_MODEL))


class WordEncoder(SDClipModel):
    """CLIP's text model with attention alone; zeros behind the end of the text."""

    def __init__(self, device: Any = "cpu", dtype: Any = None, model_options: Any = None) -> None:
        super().__init__(
            device=device,
            dtype=dtype,
            textmodel_json_config=TEXT_MODEL,
            zero_out_masked=True,
            model_options=model_options or {},
        )


class WordTokenizer(SD1Tokenizer):
    """ComfyUI's own for CLIP, which lets only words through that the model knows."""

    def __init__(self, words: Collection[str], **options: Any) -> None:
        super().__init__(**options)
        self.words = words

    def tokenize_with_weights(
        self, text: str, return_word_ids: bool = False, **options: Any
    ) -> dict[str, Any]:
        tokens = super().tokenize_with_weights(text, return_word_ids, **options)
        pieces = (
            getattr(self, self.clip).inv_vocab[token[0]] for part in tokens["l"] for token in part
        )
        read = re.sub(SPECIAL, "", "".join(pieces)).replace("</w>", " ").split()
        unknown = [word for word in dict.fromkeys(read) if word not in self.words]
        if unknown:
            raise I2AMError(
                f"The demo word model does not know {', '.join(map(repr, unknown))}. "
                f"Its words are: {' '.join(self.words)}."
            )
        return tokens


def load_word_model(path: Path) -> tuple[comfy.model_patcher.ModelPatcher, comfy.sd.CLIP]:
    """A file → the word model and its text encoder."""
    weights = weights_of(path)
    unet, text = (
        {name.removeprefix(part): value for name, value in weights.items() if name.startswith(part)}
        for part in ("unet.", "text.")
    )
    return small_unet(unet), text_encoder(text)


def text_encoder(weights: Mapping[str, Tensor]) -> comfy.sd.CLIP:
    """The CLIP object. weights: a vector for each word, positions, an attention layer, a norm."""
    known = {
        name.removeprefix("words."): vector.float()
        for name, vector in weights.items()
        if name.startswith("words.")
    }
    words = tuple(word for word in known if not re.fullmatch(SPECIAL, word))
    clip = comfy.sd.CLIP(
        SimpleNamespace(
            params={},
            clip=partial(SD1ClipModel, clip_model=cast(Any, WordEncoder)),
            tokenizer=partial(WordTokenizer, words),
        ),
        model_options={"dtype": torch.float32},
    )
    number: dict[str, int] = clip.tokenizer.clip_l.tokenizer.get_vocab()
    table = torch.zeros(VOCABULARY, WIDTH)
    for word, vector in known.items():
        table[number[word if re.fullmatch(SPECIAL, word) else f"{word}</w>"]] = vector
    clip.load_sd(
        {
            "text_model.embeddings.token_embedding.weight": table,
            "text_model.embeddings.position_embedding.weight": weights["position"].float(),
            "text_model.final_layer_norm.weight": weights["norm.weight"].float(),
            "text_model.final_layer_norm.bias": weights["norm.bias"].float(),
            "text_projection.weight": torch.eye(WIDTH),
        }
        | {
            name.replace("layer.", f"{LAYER}.", 1): value.float()
            for name, value in weights.items()
            if name.startswith("layer.")
        }
        | {
            f"{LAYER}.layer_norm2.weight": torch.ones(WIDTH),
            f"{LAYER}.layer_norm2.bias": torch.zeros(WIDTH),
            f"{LAYER}.mlp.fc1.weight": torch.zeros(1, WIDTH),
            f"{LAYER}.mlp.fc1.bias": torch.zeros(1),
            f"{LAYER}.mlp.fc2.weight": torch.zeros(WIDTH, 1),
            f"{LAYER}.mlp.fc2.bias": torch.zeros(WIDTH),
        }
    )
    return clip
