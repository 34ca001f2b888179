"""A small Flux, written for training, that ComfyUI's own Flux class can load.

The architecture is the published one (Black Forest Labs, Flux.1: double-stream blocks, then
single-stream blocks with parallel attention and MLP, rotary positions, modulation by the time),
with the parameter names of its checkpoints. What so small a model does not need is left out: there
is no pooled text vector and no guidance. The last block computes only what the generated tokens
need; every Flux throws the rest of its output away. `python -m tools.demo.train_model --prove`
compares it with ComfyUI's class.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

HEAD = 128  # width of one head; ComfyUI derives the number of heads from it
ROTARY_AXES = (16, 56, 56)  # channels of a head that carry (picture index, row, column)
ROTARY_THETA = 10_000
TIME_CHANNELS = 256
PATCH = 2  # latent pixels along one side of a token


class MLP(nn.Sequential):
    """Widen four times, GELU, narrow."""

    def __init__(self, width: int) -> None:
        super().__init__(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )


class TimeMLP(nn.Module):
    """The embedding of the time, (B, 256) to (B, width)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.in_layer = nn.Linear(TIME_CHANNELS, width)
        self.out_layer = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.out_layer(F.silu(self.in_layer(x)))


class Modulation(nn.Module):
    """Time to `parts` vectors (B, 1, width): shift, scale, gate, once or twice."""

    def __init__(self, width: int, parts: int) -> None:
        super().__init__()
        self.lin = nn.Linear(width, parts * width)
        self.parts = parts

    def forward(self, time: Tensor) -> tuple[Tensor, ...]:
        return self.lin(F.silu(time))[:, None].chunk(self.parts, dim=-1)


class HeadNorm(nn.RMSNorm):
    """RMS norm of one head, in the precision of what comes in: the fast path needs it."""

    def __init__(self) -> None:
        super().__init__(HEAD, eps=1e-6)

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (HEAD,), self.weight.to(x.dtype), self.eps)


class QKNorm(nn.Module):
    """RMS norms of queries and keys."""

    def __init__(self) -> None:
        super().__init__()
        self.query_norm, self.key_norm = HeadNorm(), HeadNorm()


class SelfAttention(nn.Module):
    """The projections of one stream of a double block."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.norm = QKNorm()
        self.proj = nn.Linear(width, width)


class DoubleBlock(nn.Module):
    """Text and pictures with weights of their own, one attention over both."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.img_mod, self.txt_mod = Modulation(width, 6), Modulation(width, 6)
        self.img_attn, self.txt_attn = SelfAttention(width), SelfAttention(width)
        self.img_mlp, self.txt_mlp = MLP(width), MLP(width)

    def forward(
        self, img: Tensor, txt: Tensor, time: Tensor, rotation: Tensor
    ) -> tuple[Tensor, Tensor]:
        streams = (
            (txt, self.txt_mod(time), self.txt_attn, self.txt_mlp),
            (img, self.img_mod(time), self.img_attn, self.img_mlp),
        )
        parts = []
        for x, (shift, scale, *_), attn, _ in streams:
            q, k, v = split_heads(attn.qkv(modulate(x, shift, scale)), 3)
            parts.append((attn.norm.query_norm(q), attn.norm.key_norm(k), v))
        q, k, v = (torch.cat(part, dim=2) for part in zip(*parts, strict=True))
        mixed = attend(q, k, v, rotation).split((txt.shape[1], img.shape[1]), dim=1)
        results = []
        for (x, mod, attn, mlp), attended in zip(streams, mixed, strict=True):
            _, _, gate, mlp_shift, mlp_scale, mlp_gate = mod
            x = x + gate * attn.proj(attended)
            results.append(x + mlp_gate * mlp(modulate(x, mlp_shift, mlp_scale)))
        return results[1], results[0]


class SingleBlock(nn.Module):
    """All tokens in one stream, attention and MLP side by side."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.linear1 = nn.Linear(width, 7 * width)  # q, k, v and the widened MLP
        self.linear2 = nn.Linear(5 * width, width)
        self.norm = QKNorm()
        self.modulation = Modulation(width, 3)

    def forward(
        self, x: Tensor, time: Tensor, rotation: Tensor, queries: int | None = None
    ) -> Tensor:
        """x: (B, tokens, width). With `queries`, only the first that many tokens come out."""
        w = self.width
        shift, scale, gate = self.modulation(time)
        inner = modulate(x, shift, scale)
        if queries is None:
            q, k, v, hidden = self.linear1(inner).split((w, w, w, 4 * w), dim=-1)
        else:
            weight, bias = self.linear1.weight, self.linear1.bias
            first = inner[:, :queries]
            k, v = F.linear(inner, weight[w : 3 * w], bias[w : 3 * w]).split(w, dim=-1)
            q = F.linear(first, weight[:w], bias[:w])
            hidden = F.linear(first, weight[3 * w :], bias[3 * w :])
            x = x[:, :queries]
        q, k, v = (split_heads(part, 1)[0] for part in (q, k, v))
        attended = attend(self.norm.query_norm(q), self.norm.key_norm(k), v, rotation)
        # one linear layer over both, without laying them side by side first
        weight, bias = self.linear2.weight, self.linear2.bias
        hidden = F.linear(F.gelu(hidden, approximate="tanh"), weight[:, w:], bias)
        return x + gate * (hidden + F.linear(attended, weight[:, :w]))


class LastLayer(nn.Module):
    """Tokens back to latent patches."""

    def __init__(self, width: int, out_channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, out_channels)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(time)[:, None].chunk(2, dim=-1)
        return self.linear(modulate(x, shift, scale))


class DemoFlux(nn.Module):
    """Latents, time, text and reference latents to the velocity of the latents."""

    def __init__(
        self,
        width: int = 128,
        doubles: int = 1,
        singles: int = 4,
        channels: int = 16,
        text: int = 16,
    ) -> None:
        super().__init__()
        self.img_in = nn.Linear(channels * PATCH**2, width)
        self.time_in = TimeMLP(width)
        self.txt_in = nn.Linear(text, width)
        self.double_blocks = nn.ModuleList(DoubleBlock(width) for _ in range(doubles))
        self.single_blocks = nn.ModuleList(SingleBlock(width) for _ in range(singles))
        self.final_layer = LastLayer(width, channels * PATCH**2)
        self.initialise()

    @classmethod
    def like(cls, weights: Mapping[str, Tensor]) -> DemoFlux:
        """An untrained model of the shape these weights are for."""
        blocks = {tuple(name.split(".")[:2]) for name in weights if "_blocks." in name}
        counts = Counter(kind for kind, _ in blocks)
        width = len(weights["img_in.bias"])
        return cls(width, counts["double_blocks"], counts["single_blocks"])

    def initialise(self) -> None:
        """Open gates, small modulation, silent output: gradients pass from the first step."""
        for name, module in self.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            nn.init.zeros_(module.bias)
            if "mod" in name:  # img_mod, txt_mod, modulation, adaLN_modulation
                nn.init.normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight)
            if name.endswith("mod.lin") or name.endswith("modulation.lin"):
                parts = module.bias.data.chunk(module.out_features // module.in_features)
                for gate in parts[2::3]:
                    gate.fill_(1.0)
        nn.init.zeros_(self.final_layer.linear.weight)

    def forward(self, x: Tensor, time: Tensor, text: Tensor, references: list[Tensor]) -> Tensor:
        """x: (B, C, h, w) latents; time: (B,), 1 is noise; text: (B, tokens, 16)."""
        tokens = to_tokens(x)
        generated = tokens.shape[1]
        tokens = torch.cat((tokens, *(to_tokens(reference) for reference in references)), dim=1)
        sizes = [(part.shape[2] // PATCH, part.shape[3] // PATCH) for part in (x, *references)]
        rotation = rotations(text.shape[1], sizes).to(x.device)
        img, txt = self.img_in(tokens), self.txt_in(text)
        vec = self.time_in(time_embedding(time))
        for block in self.double_blocks:
            img, txt = block(img, txt, vec, rotation)
        stream, kept = torch.cat((txt, img), dim=1), text.shape[1] + generated
        for block in self.single_blocks[:-1]:
            stream = block(stream, vec, rotation)
        stream = self.single_blocks[-1](stream, vec, rotation, queries=kept)
        return from_tokens(self.final_layer(stream[:, text.shape[1] :], vec), sizes[0])


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """Layer norm without weights of its own, then scale and shift."""
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def split_heads(x: Tensor, parts: int) -> Tensor:
    """(B, tokens, parts * heads * HEAD) to (parts, B, heads, tokens, HEAD)."""
    return rearrange(x, "b n (parts h d) -> parts b h n d", parts=parts, d=HEAD)


def attend(q: Tensor, k: Tensor, v: Tensor, rotation: Tensor) -> Tensor:
    """Rotate queries and keys to their positions, then attend: (B, queries, width)."""
    q, k = rotate(q, rotation[: q.shape[2]]), rotate(k, rotation)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary positions (Su et al. 2021): neighbouring channels are turned as complex numbers."""
    pairs = torch.view_as_complex(x.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * rotation).flatten(-2).to(x.dtype)


def rotations(text: int, sizes: list[tuple[int, int]]) -> Tensor:
    """Unit complex numbers, (tokens, HEAD / 2), for text, generated picture and references.

    Positions are (index, row, column): text and generated picture have index 0, references index 1.
    Each reference goes below or beside those before it, whichever keeps the whole more square: the
    "offset" placement that ComfyUI uses for Flux.
    """
    positions = [torch.zeros(text, 3)]
    height = width = 0
    for number, (rows, columns) in enumerate(sizes):
        top = left = 0
        if number:
            below = rows + height <= columns + width
            top, left = (height, 0) if below else (0, width)
            height, width = max(height, rows + top), max(width, columns + left)
        grid = torch.meshgrid(torch.arange(rows) + top, torch.arange(columns) + left, indexing="ij")
        index = torch.full((rows * columns,), min(number, 1))
        positions.append(torch.stack((index, grid[0].flatten(), grid[1].flatten()), dim=1).float())
    position = torch.cat(positions)
    angles = []
    for axis, channels in enumerate(ROTARY_AXES):
        exponents = torch.arange(0, channels, 2, dtype=torch.float64) / channels
        angles.append(position[:, axis, None] / ROTARY_THETA**exponents)
    angle = torch.cat(angles, dim=1)
    return torch.polar(torch.ones_like(angle), angle).to(torch.complex64)


def time_embedding(time: Tensor) -> Tensor:
    """Sines and cosines of the time in thousandths, (B,) to (B, 256)."""
    half = TIME_CHANNELS // 2
    rates = torch.exp(-math.log(10_000) * torch.arange(half, device=time.device) / half)
    angle = 1000 * time[:, None] * rates
    return torch.cat((angle.cos(), angle.sin()), dim=1)


def to_tokens(latents: Tensor) -> Tensor:
    """(B, C, h, w) to (B, h/2 * w/2, 4C)."""
    return rearrange(latents, "b c (h p) (w q) -> b (h w) (c p q)", p=PATCH, q=PATCH)


def from_tokens(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """(B, rows * columns, 4C) to (B, C, h, w)."""
    height, _ = grid
    return rearrange(tokens, "b (h w) (c p q) -> b c (h p) (w q)", h=height, p=PATCH, q=PATCH)
