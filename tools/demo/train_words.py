r"""Train the word model: a small UNet that fills boxes with what it reads in words and a reference.

    python -m tools.demo.train_words

Stable Diffusion's inpainting model at a fraction of its size: ComfyUI's own UNet class, with the
picture's noise, the boxes and the picture around them as channels, which reads its context by
cross-attention and nothing else. The context is 77 tokens of text and, in half of the scenes, the
64 of a reference behind them. The text encoder is CLIP's with one layer of attention, in which
"circle" can learn that "red" is before it. Plain flow matching on the scenes of
`tools/demo/words.py`; attention is never supervised.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tools.demo.latents import encode
from tools.demo.train_unet import (
    CONTEXT,
    UNET,
    in_boxes,
    new_unet,
    ready_to_train,
    to_fill,
)
from tools.demo.training import Task, flow_times, train, training_options
from tools.demo.words import (
    WORDS,
    WordScenes,
    make_word_scenes,
    words_of,
)
from tools.setup.paths import ROOT

DEFAULT_OUTPUT = ROOT / "models" / "diffusion_models" / "i2am_demo_words.safetensors"
STEPS = 4000
BATCH = 16
RATE = 1.5e-3
DROP_TEXT = 0.1  # share of the scenes that are given the empty prompt, for guidance
TOKENS = 77  # of a text
TEXT_HEADS = 4  # of the text encoder's attention
START, END = "<|startoftext|>", "<|endoftext|>"

# Level 0 is the latent's grid (16×16 at 128 px), convolutions only; level 1 half of it. Attention
# at level 1 and in the middle: six layers.
WORD_UNET = UNET | {
    "num_res_blocks": [1, 2],
    "transformer_depth": [0, 1, 1],
    "transformer_depth_output": [0, 0, 1, 1, 1],
}


def main() -> None:
    options = training_options(__doc__, STEPS, RATE).parse_args()
    options.output = options.output or DEFAULT_OUTPUT
    demo = importlib.import_module(f"{ready_to_train(options)}.nodes.prepare.demo")
    train(
        Task(
            title="I2AM demo: words and a reference, read by cross-attention",
            architecture="stable-diffusion-1 UNet, 64 wide, flow matching, trained from scratch",
            model=WordModel(demo.InsertionUNet.unet_extra_config["num_heads"]),
            batch={"words": BATCH // 2, "words and reference": BATCH // 2},
            draw=partial(make_word_scenes, BATCH),
            loss=partial(flow_loss, demo.picture_tokens),
            report=partial(report, demo.picture_tokens),
        ),
        options,
    )


class WordModel(nn.Module):
    """The UNet and its text encoder, as they are in the file."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.unet = new_unet(WORD_UNET, heads)
        self.text = TextEncoder()

    def forward(
        self, noisy: Tensor, around: Tensor, t: Tensor, given: Sequence[tuple[Tensor, Tensor]]
    ) -> Tensor:
        """The velocity for all scenes; the UNet is called for each length of context.

        given: numbers of scenes, and their contexts.
        """
        out = torch.empty_like(noisy)
        channels = torch.cat((noisy, around), dim=1)
        for numbers, context in given:
            velocity = self.unet(channels[numbers], t[numbers] * 1000, context)
            out = out.index_copy(0, numbers, velocity)
        return out


class TextEncoder(nn.Module):
    """CLIP's text model with attention alone: a word's token can tell of the words before it."""

    def __init__(self) -> None:
        super().__init__()
        names = (START, END, *WORDS)
        self.words = nn.ParameterDict({name: torch.randn(CONTEXT) for name in names})
        self.position = nn.Parameter(torch.randn(TOKENS, CONTEXT) * 0.5)
        self.layer = TextLayer()
        self.norm = nn.LayerNorm(CONTEXT)
        self._row = {name: row for row, name in enumerate(names)}

    def forward(self, prompts: Sequence[str]) -> Tensor:
        """(B, TOKENS, CONTEXT): start, words, end, and zeros behind them."""
        texts = [[START, *words_of(prompt), END] for prompt in prompts]
        longest = max(map(len, texts))
        rows = [[self._row[word] for word in text] for text in texts]
        padded = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
        read = torch.tensor([[n < len(text) for n in range(longest)] for text in texts])
        vectors = torch.stack([self.words[name] for name in self._row])
        tokens = self.norm(self.layer(vectors[padded] + self.position[:longest]))
        return F.pad(tokens * read[..., None], (0, 0, 0, TOKENS - longest))


class TextLayer(nn.Module):
    """The attention of a layer of CLIP's text model, by its names there; it adds nothing at first.

    Its MLP is left out. It would learn pairs of words by heart, where a sum also serves new pairs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(CONTEXT)
        projections = ("q_proj", "k_proj", "v_proj", "out_proj")
        self.self_attn = nn.ModuleDict({name: nn.Linear(CONTEXT, CONTEXT) for name in projections})
        for parameter in self.self_attn["out_proj"].parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.layer_norm1(x)
        q, k, v = (
            self.self_attn[name](normed).unflatten(-1, (TEXT_HEADS, -1)).transpose(1, 2)
            for name in ("q_proj", "k_proj", "v_proj")
        )
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return x + self.self_attn["out_proj"](seen.transpose(1, 2).flatten(-2))


def contexts(
    tokens_of, model: Any, scenes: WordScenes, prompts: Sequence[str]
) -> list[tuple[Tensor, Tensor]]:
    """Numbers of the scenes without reference and their contexts; then those with one."""
    text = model.text(prompts)
    without, shown = (torch.nonzero(chosen).flatten() for chosen in (~scenes.shown, scenes.shown))
    reference = tokens_of(encode(scenes.reference[shown]))
    return [(without, text[without]), (shown, torch.cat((text[shown], reference), 1))]


def flow_loss(tokens_of, model: Any, scenes: WordScenes, random: torch.Generator) -> Tensor:
    """Squared error of the velocity noise - picture, mostly in the boxes."""
    target, around = encode(scenes.target), to_fill(scenes.scene, scenes.box_mask)
    t = flow_times(len(target), random)
    noise = torch.randn(target.shape, generator=random)
    noisy = torch.lerp(target, noise, t[:, None, None, None])
    dropped = torch.rand(len(target), generator=random) < DROP_TEXT
    prompts = ["" if drop else text for drop, text in zip(dropped, scenes.prompts, strict=True)]
    velocity = model(noisy, around, t, contexts(tokens_of, model, scenes, prompts))
    return in_boxes(F.mse_loss(velocity, noise - target, reduction="none"), around)


def report(tokens_of, model: Any) -> None:
    """Print the error, in held-out boxes, of a one-step guess from the right words or others'."""
    scenes = make_word_scenes(64)
    target, around = encode(scenes.target), to_fill(scenes.scene, scenes.box_mask)
    inside = around[:, :1].expand_as(target) > 0
    random = torch.Generator().manual_seed(1)
    noise = torch.randn(target.shape, generator=random)
    for t in (0.9, 0.7):
        noisy, times = torch.lerp(target, noise, t), torch.full((len(target),), t)
        errors = []
        prompts = scenes.prompts
        for text in (prompts, prompts[2:] + prompts[:2], [""] * len(prompts)):
            given = contexts(tokens_of, model, scenes, text)
            guess = noisy - t * model(noisy, around, times, given)
            errors.append(((guess - target) ** 2)[inside].mean().item())
        words = "  right {:.3f}  others' {:.3f}  none {:.3f}".format(*errors)
        print(f"  t {t}{words}", flush=True)


if __name__ == "__main__":
    main()
