"""A stand-in for the pack ComfyUI_IPAdapter_plus: its calling convention, not its code.

An object in place of cross-attention attends to the text, then calls each of its adapters, a
function of this module with its own settings. Both use the `optimized_attention` that this module
imported by name, and pass no options. What was attended to is recorded for the dense oracle.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from comfy.ldm.modules.attention import optimized_attention
from torch import Tensor


@dataclass
class Note:
    """One call of a patch: queries, keys and values (batch, tokens, width), and for each adapter
    that ran, its keys, values and weight."""

    options: dict[str, Any]
    q: Tensor
    k: Tensor
    v: Tensor
    adapters: dict[int, tuple[Tensor, Tensor, Tensor]] = field(default_factory=dict)


NOTES: list[Note] = []


class Attn2Replace:
    """Shared by all clones of a model; a second adapter is added to the object in place."""

    def __init__(self, callback: Any, **kwargs: Any) -> None:
        self.callback = [callback]
        self.kwargs = [kwargs]

    def add(self, callback: Any, **kwargs: Any) -> None:
        self.callback.append(callback)
        self.kwargs.append(kwargs)

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, extra_options: dict[str, Any]) -> Tensor:
        NOTES.append(Note(dict(extra_options), q, k, v))
        out = optimized_attention(q, k, v, extra_options["n_heads"])
        sigma = float(extra_options["sigmas"][0])
        for callback, kwargs in zip(self.callback, self.kwargs, strict=True):
            if kwargs["sigma_end"] <= sigma <= kwargs["sigma_start"]:
                out = out + callback(out, q, k, v, extra_options, **kwargs)
        return out


def adapter_attention(
    out: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    extra_options: dict[str, Any],
    number: int = 0,
    module_key: str = "",
    projections: Any = None,
    cond: Any = None,
    uncond: Any = None,
    weight: Any = 1.0,
    mask: Any = None,
    embeds_scaling: str = "V only",
    unfold_batch: bool = False,
    **_: Any,
) -> Any:
    if isinstance(weight, dict):  # by layer name; other layers are left out
        if extra_options["transformer_index"] not in weight:
            return 0
        weight = weight[extra_options["transformer_index"]]
    chunks = extra_options["cond_or_uncond"]
    batch = q.shape[0] // len(chunks)
    times = 1 if unfold_batch else batch  # unfolded, each item has its own picture
    to_k, to_v = projections[module_key]
    ip_k, ip_v = (
        torch.cat([(cond, uncond)[chunk].repeat(times, 1, 1) @ to for chunk in chunks])
        for to in (to_k, to_v)
    )
    if embeds_scaling == "K+V":
        ip_k, ip_v = ip_k * weight, ip_v * weight
    out_ip = optimized_attention(q, ip_k, ip_v, extra_options["n_heads"])
    counts = torch.ones(q.shape[0], q.shape[1], 1)
    if embeds_scaling != "K+V":
        counts = counts * weight
    if mask is not None:
        level = F.interpolate(
            mask[:, None], extra_options["activations_shape"][-2:], mode="bilinear"
        )
        counts = counts * level.flatten(1)[..., None]
    keys, values = (x.reshape(q.shape[0], -1, q.shape[2]) for x in (ip_k, ip_v))
    NOTES[-1].adapters[number] = (keys, values, counts[..., 0])
    return out_ip * counts


def apply(
    model: Any,
    places: dict[tuple[Any, ...], int],
    number: int,
    pack: Any = None,
    **settings: Any,
) -> Any:
    """A clone of the model with one more adapter at these places, each with its channels.

    settings: cond and uncond (pictures, tokens, width), and an adapter's options. pack: the real
    pack's module, to use instead of this one.
    """
    model = model.clone()
    patch = pack.Attn2Replace if pack else Attn2Replace
    attend = pack.ipadapter_attention if pack else adapter_attention
    generator = torch.Generator().manual_seed(100 + number)
    projections, width = {}, settings["cond"].shape[2]
    layers = SimpleNamespace(to_kvs={})  # the attribute that the real pack reads
    real = SimpleNamespace(ip_layers=layers)
    real.get_multigpu_clone = lambda device: real
    settings = {"sigma_start": 1e9, "sigma_end": 0.0} | settings
    replaced = dict(model.model_options["transformer_options"].get("patches_replace", {}))
    replaced["attn2"] = dict(replaced.get("attn2", {}))
    for key, (place, channels) in enumerate(places.items()):
        made = [torch.randn(width, channels, generator=generator) * 0.4 for _ in range(2)]
        projections[str(key)] = tuple(made)
        for kind, to in zip("kv", made, strict=True):
            layers.to_kvs[f"{key}_to_{kind}_ip"] = to.__rmatmul__
        own = settings | {"number": number, "module_key": str(key), "projections": projections}
        own |= {"ipadapter": real}
        if place in replaced["attn2"]:
            replaced["attn2"][place].add(attend, **own)
        else:
            replaced["attn2"][place] = patch(attend, **own)
    model.model_options["transformer_options"]["patches_replace"] = replaced
    return model
