"""Trace IP-Adapter Tokens: exact on a resampler of real shape, and refused on any other."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from proof import arm_model, recording
from tiny_adapters import SD15_PLACES, SIZE, TEXT, pack_module
from tiny_unets import SD15
from torch import Tensor, nn

TOKENS, PATCHES, WIDTH = 16, 16, 12


class Attention(nn.Module):
    """Tokens attend to [patches | tokens]; the attention is kept for the test."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.seen = heads, torch.zeros(())
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.to_q = nn.Linear(width, 8 * heads, bias=False)
        self.to_kv = nn.Linear(width, 16 * heads, bias=False)
        self.to_out = nn.Linear(8 * heads, width, bias=False)

    def forward(self, patches: Tensor, tokens: Tensor) -> Tensor:
        patches, tokens = self.norm1(patches), self.norm2(tokens)
        q = self.to_q(tokens)
        k, v = self.to_kv(torch.cat((patches, tokens), 1)).chunk(2, -1)
        q, k, v = (x.unflatten(-1, (self.heads, 8)).transpose(1, 2) for x in (q, k, v))
        self.seen = (q.double() @ k.double().mT / 8**0.5).softmax(-1)
        return self.to_out((self.seen.float() @ v).transpose(1, 2).flatten(2))


class Resampler(nn.Module):
    """Like IP-Adapter Plus: learned tokens, and layers of attention and a small network."""

    def __init__(self, depth: int = 3) -> None:
        super().__init__()
        self.latents = nn.Parameter(torch.randn(1, TOKENS, 16))
        self.proj_in, self.proj_out = nn.Linear(10, 16), nn.Linear(16, WIDTH)
        self.looks = [Attention(16, 2) for _ in range(depth)]
        self.feeds = [nn.Linear(16, 16) for _ in range(depth)]
        self.layers = nn.ModuleList(nn.ModuleList([look, nn.Linear(16, 16)]) for look in self.looks)

    def forward(self, x: Tensor) -> Tensor:
        x, tokens = self.proj_in(x), self.latents.repeat(len(x), 1, 1)
        for look, feed in zip(self.looks, self.feeds, strict=True):
            tokens = look(x, tokens) + tokens
            tokens = feed(tokens) + tokens
        return self.proj_out(tokens)


@pytest.fixture
def resampler() -> Resampler:
    torch.manual_seed(4)
    made = Resampler()
    for value in made.parameters():
        nn.init.normal_(value, std=0.6)
    return made.requires_grad_(False)


def clip(seed: int, pictures: int = 1, tokens: int = 257) -> Any:
    return {"penultimate_hidden_states": tiny.latent(seed, pictures, tokens, 10)}


def adapted(projector: Any, cond: Tensor, **settings: Any) -> Any:
    """SD 1.5 with an adapter whose tokens come from the projector."""
    import adapter_pack

    model = tiny.build("SD15", **SD15)
    uncond = tiny.latent(90, *cond.shape)
    model = adapter_pack.apply(model, SD15_PLACES, 0, cond=cond, uncond=uncond, **settings)
    patches = model.model_options["transformer_options"]["patches_replace"]["attn2"]
    for patch in patches.values():
        patch.kwargs[0]["ipadapter"] = SimpleNamespace(image_proj_model=projector)
    return model


def recorded(comfy: Any, model: Any, batch: int = 2) -> Any:
    armed = arm_model(comfy, model)
    text = tiny.conditioning(30, TEXT, 24)
    sampled = tiny.sample(armed, text, text, tiny.latent(32, batch, 4, *SIZE), steps=2)
    return comfy.pack("i2am.recording").Attribution(recording(comfy, sampled))


def trace(comfy: Any, *inputs: Any) -> Any:
    (found,) = comfy.node("I2AM_TraceAdapter").execute(*inputs).args
    return found


def by_hand(resampler: Resampler, picture: int = 0) -> Tensor:
    """Each token's dependence on each of the 256 patches, from the resampler's own attention."""
    step = torch.eye(257 + TOKENS).double()
    for attention in resampler.looks:
        layer = torch.eye(257 + TOKENS).double()
        layer[257:] = (layer[257:] + attention.seen[picture].mean(0)) / 2
        step = layer @ step
    owed = step[257:, 1:257]
    return owed / owed.sum(-1, keepdim=True)


def test_maps_over_the_reference(comfy: Any, resampler: Resampler, tmp_path: Any) -> None:
    """Each token's attention is passed on to the patches it was made from, in the file too."""
    seen = clip(1)
    model = adapted(resampler, resampler(seen["penultimate_hidden_states"]), weight=0.7)
    before = recorded(comfy, model)
    after = trace(comfy, before, model, seen, 1)
    owed = by_hand(resampler)
    for definition in ("paper", "model"):
        for table in ("step_layer", "layer_head"):
            name = f"{definition}.g2r.0.{table}"
            wanted = before.recording.arrays[name].double().squeeze(-2) @ owed
            found = after.recording.arrays[name].flatten(-2).double()
            assert torch.allclose(found, wanted, atol=1e-6)
    pairs = after.recording.arrays["correspondence.model.0"]
    assert pairs.shape[3:] == (PATCHES, PATCHES)
    (picture,) = after.recording.header.references
    assert picture.has_places
    maps = comfy.pack("i2am.maps.levels")
    over = maps.Direction.GENERATED_TO_REFERENCE
    assert maps.attribution_map(after.recording, maps.Definition.PAPER, over).grid == picture.grid
    files = comfy.pack("i2am.recording")
    files.save_attribution(tmp_path / "traced.safetensors", after)
    again = files.load_attribution(tmp_path / "traced.safetensors").recording
    assert again.header.references == after.recording.header.references
    assert not any(attention._forward_hooks for attention in resampler.looks)


def test_a_picture_for_each_item(comfy: Any, resampler: Resampler) -> None:
    """Unfolded, each batch item has its own tokens; the last are repeated."""
    seen = clip(2, pictures=2)
    cond = resampler(seen["penultimate_hidden_states"])
    model = adapted(resampler, cond, weight=0.7, unfold_batch=True)
    before = recorded(comfy, model)
    after = trace(comfy, before, model, seen, 1)
    for item in range(2):
        name = "paper.g2r.0.step_layer"
        wanted = before.recording.arrays[name][item].double().squeeze(-2) @ by_hand(resampler, item)
        assert torch.allclose(after.recording.arrays[name][item].flatten(-2).double(), wanted)


def test_the_second_of_two_pictures(comfy: Any, resampler: Resampler) -> None:
    """Each picture of an adapter is its own reference, found by its tokens."""
    seen = clip(3, pictures=2)
    model = adapted(resampler, resampler(seen["penultimate_hidden_states"]), weight=0.7)
    before = recorded(comfy, model, batch=1)
    second = {name: value[1:] for name, value in seen.items()}
    after = trace(comfy, before, model, second, 2)
    assert [p.has_places for p in after.recording.header.references] == [False, True]
    name = "paper.g2r.1.step_layer"
    wanted = before.recording.arrays[name].double().squeeze(-2) @ by_hand(resampler)
    assert torch.allclose(after.recording.arrays[name].flatten(-2).double(), wanted, atol=1e-6)


def test_what_cannot_be_traced(comfy: Any, resampler: Resampler) -> None:
    """Another picture, projector or model, or a missing reference: each gives its own message."""
    seen = clip(1)
    cond = resampler(seen["penultimate_hidden_states"])
    model = adapted(resampler, cond, weight=0.7)
    before = recorded(comfy, model, batch=1)
    plain = tiny.build("SD15", **SD15)
    linear = adapted(nn.Linear(4, 4), cond)
    wide = clip(1, tokens=200)
    error = comfy.pack("i2am.errors").I2AMError
    for inputs, message in (
        ((before, model, clip(5), 1), "makes other tokens than those it was used with"),
        ((before, model, wide, 1), "no square of patches"),
        ((before, linear, seen, 1), "has no resampler"),
        ((before, plain, seen, 1), "no IP-Adapter that could have given reference 1"),
        ((before, model, seen, 2), "Reference 2 does not exist"),
        ((trace(comfy, before, model, seen, 1), model, seen, 1), "no tokens to trace"),
    ):
        with pytest.raises(error, match=message):
            trace(comfy, *inputs)


def test_the_real_resampler(comfy: Any) -> None:
    """Where the pack is installed beside ComfyUI, its own resampler is read as well."""
    folder = comfy.path / "custom_nodes" / "ComfyUI_IPAdapter_plus"
    if not folder.is_dir():
        pytest.skip("ComfyUI_IPAdapter_plus is not installed")
    torch.manual_seed(5)
    made = pack_module(folder, "image_proj_models").Resampler(
        dim=16, depth=4, dim_head=8, heads=2, num_queries=16, embedding_dim=10, output_dim=WIDTH
    )
    seen = clip(1)
    with torch.inference_mode():
        cond = made(seen["penultimate_hidden_states"])
    model = adapted(made, cond, weight=0.7)
    after = trace(comfy, recorded(comfy, model, batch=1), model, seen, 1)
    sums = after.recording.arrays["paper.g2r.0.step_layer"].sum((-2, -1))
    assert float((sums - 1).abs().max()) < 1e-5
