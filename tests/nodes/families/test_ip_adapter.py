"""IP-Adapter on SD 1.5 and SDXL UNets, by the calling convention of ComfyUI_IPAdapter_plus."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import pytest
import tiny
import torch
from oracle import Place, Seen, asking, expected, largest_deviation, left_out, points, resampled
from proof import (
    TOLERANCE,
    arm_model,
    point_queries,
    recording,
    refusal_reason,
    rows_of,
    step_finder,
)
from tiny_adapters import SD15_PLACES, SIZE, TEXT, pack_module
from tiny_unets import (
    SD15,
    SDXL,
    SDXL_SITES,
    TWO_LEVEL_SITES,
    assert_no_map_over_the_reference,
)
from torch import Tensor

SDXL_PLACES = {
    ("middle", 1, place[2]) if place[0] == "middle" else place: 32 * cell
    for place, cell in SDXL_SITES.items()
}


@dataclass(frozen=True)
class Adapted(Seen):
    """Cross-attention with adapters beside it: each one's keys and values by head, its weight."""

    adapters: tuple[tuple[Tensor, Tensor, Tensor] | None, ...] = ()


@dataclass(frozen=True)
class Adapter:
    """Written by hand: pictures, tokens of each, and how many of those come before its grid."""

    pictures: int
    tokens: int
    before: int
    grid: tuple[int, int]


BASE, PLUS = Adapter(1, 4, 0, (1, 4)), Adapter(1, 16, 0, (1, 16))
FULL = Adapter(2, 257, 1, (16, 16))


def tokens(seed: int, adapter: Adapter) -> dict[str, Tensor]:
    shape = (adapter.pictures, adapter.tokens, 12)
    return {"cond": tiny.latent(seed, *shape), "uncond": tiny.latent(seed + 1, *shape)}


def dense(
    adapters: tuple[Adapter, ...], marks: list[tuple[int, int, int]]
) -> Callable[..., dict[str, Tensor]]:
    """All of one call. Text and each adapter have their own softmax; their results are added, the
    text's once and an adapter's times its weight at each place."""

    def of_one_call(
        call: Any, rows: slice, place: Place, grid: tuple[int, int], latent: tuple[int, int]
    ) -> dict[str, Tensor]:
        q = call.q[rows]
        area, scale = q.shape[2], q.shape[-1] ** -0.5
        nothing = torch.zeros(q.shape[0], area).double()
        weights = [nothing if a is None else a[2][rows] for a in call.adapters]
        total = 1 + torch.stack(weights).sum(0)
        arrays: dict[str, Tensor] = {}
        shares: list[Tensor] = []
        outputs: list[Tensor] = []  # of each softmax, times its weight
        text = torch.zeros(q.shape[:3]).double()

        def over_result(values: Tensor, mass: bool = True) -> Tensor:
            maps = values.unflatten(-1, place.grid)
            return resampled(maps, place.cell, grid, latent)[0 if mass else 1]

        def one_softmax(
            k: Tensor, v: Tensor, weight: Tensor, pictures: list[tuple[slice, Any]]
        ) -> None:
            """The text and each picture of one softmax."""
            weight = weight[:, None]  # the same for every head
            logits = q @ k.transpose(-1, -2) * scale
            outputs.append(weight[..., None] * (logits.softmax(-1) @ v))
            attended = logits.softmax(-1) * (weight / total[:, None])[..., None]
            text.add_(attended.sum(-1))
            on_average = weight.mean(-1, keepdim=True)
            counts = torch.where(on_average > 0, weight / on_average, 0)[..., None]
            for own, cells in pictures:
                r = len(shares)
                m_g = logits[..., own].softmax(-2).mean(-1) * weight
                norm = m_g.sum(-1, keepdim=True)
                m_r = logits[..., own].softmax(-1) * counts
                mass = attended[..., own]
                moved, whole, _ = left_out(logits, v, (own.start, own.stop))
                moved, whole = moved * weight[..., None] ** 2, whole * weight**2
                arrays[f"effect.r2g.{r}"] = over_result(whole / area)
                arrays[f"effect.g2r.{r}"] = moved.mean(-2).unflatten(-1, cells)
                shares.append(mass.sum(-1))
                text.sub_(shares[-1])
                arrays[f"paper.r2g.{r}"] = over_result(torch.where(norm > 0, m_g / norm, 0))
                arrays[f"paper.g2r.{r}"] = m_r.mean(-2).unflatten(-1, cells)
                arrays[f"model.r2g.{r}"] = over_result(mass.sum(-1) / area)
                arrays[f"model.g2r.{r}"] = mass.mean(-2).unflatten(-1, cells)
                for kind, values in (("", m_r), ("model.", mass), ("effect.", moved)):
                    pairs = over_result(values.transpose(-1, -2), mass=False).movedim(2, -1)
                    arrays[f"correspondence.{kind}{r}"] = pairs.unflatten(-1, cells)
                columns = logits[..., own].softmax(-2) * weight.unsqueeze(-1)
                norms = columns.sum(-2, keepdim=True)
                columns = torch.where(norms > 0, columns / norms, 0)
                arrays.update(points(r, place, over_result, (m_r, columns, mass, moved), cells))

        in_context = [(slice(start, start + h * w), (h, w)) for start, h, w in marks]
        k, v = (x[rows][..., :TEXT, :] for x in (call.k, call.v))
        one_softmax(k, v, torch.ones_like(nothing), in_context)
        for seen, weight, adapter in zip(call.adapters, weights, adapters, strict=True):
            count, before = adapter.pictures * adapter.tokens, adapter.before
            k, v = (torch.zeros(*q.shape[:2], count, q.shape[3]).double(),) * 2
            if seen is not None:
                k, v, _ = (x[rows] for x in seen)
            firsts = range(0, count, adapter.tokens)
            own = [(slice(f + before, f + adapter.tokens), adapter.grid) for f in firsts]
            one_softmax(k, v, weight, own)
        every = torch.stack((text, torch.zeros_like(text), *shares), dim=2)
        output = torch.stack(outputs).sum(0).square().sum(-1)
        arrays["output"], arrays["output.map"] = output.mean(-1), over_result(output, mass=False)
        arrays["share"] = every.mean(-1)
        arrays["share.map"] = over_result(every, mass=False)
        return arrays

    return of_one_call


def by_heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2).double()


def seen_by(pack: ModuleType, count: int) -> list[Seen]:
    """What the stand-in recorded, in the oracle's form."""
    calls: list[Seen] = []
    for note in pack.NOTES:
        heads = note.options["n_heads"]
        adapters: list[tuple[Tensor, Tensor, Tensor] | None] = []
        for number in range(count):
            if number not in note.adapters:
                adapters.append(None)
                continue
            k, v, weight = note.adapters[number]
            adapters.append((by_heads(k, heads), by_heads(v, heads), weight.double()))
        q, k, v = (by_heads(x, heads) for x in (note.q, note.k, note.v))
        calls.append(Adapted(note.options, q, k, v=v, adapters=tuple(adapters)))
    return calls


def place_of(
    sites: dict[tuple[str, int, int], int], grids: list[tuple[int, int]]
) -> Callable[[Seen], Place]:
    patched = [site for site in sites if site[0] != "middle"]

    def place(call: Seen) -> Place:
        site = (*call.options["block"], call.options["block_index"])
        grid = tuple(-(-side // sites[site]) for side in SIZE)
        layer = patched.index(site)
        return Place(layer, (0, 0), grid, None, (), tuple(grids), 0, sites[site])  # type: ignore[arg-type]

    return place


@pytest.fixture
def pack(comfy: Any) -> ModuleType:
    import adapter_pack

    adapter_pack.NOTES.clear()
    return adapter_pack


HALF = torch.linspace(-0.5, 1.5, 14).clamp(0, 1).expand(1, 9, 14).contiguous()
# Each adapter with its settings.
CASES: dict[str, list[tuple[Adapter, dict[str, Any]]]] = {
    "base": [(BASE, {"weight": 0.8})],
    "plus, K+V": [(PLUS, {"weight": 0.6, "embeds_scaling": "K+V"})],
    "full face, two pictures, masked": [(FULL, {"weight": 1.3, "mask": HALF})],
    "full face, beside a picture in the text": [(FULL, {"weight": 0.5, "mask": HALF})],
    "full face, a picture for each item": [
        (Adapter(1, 257, 1, (16, 16)), {"weight": 0.9, "unfold_batch": True, **tokens(80, FULL)}),
    ],
    "three, of which two come and go": [
        (PLUS, {"weight": 0.7, "sigma_end": 5.0}),
        (FULL, {"weight": 0.9, "mask": 1 - HALF}),
        (BASE, {"weight": {1: 0.5, 4: 0.4}}),
    ],
}


@pytest.mark.parametrize("family", ["SD15", "SDXL"])
@pytest.mark.parametrize("case", CASES)
def test_maps(comfy: Any, pack: ModuleType, case: str, family: str, record_property: Any) -> None:
    """A batch of two at an odd size with cfg; several adapters and pictures, masks and weights."""
    config, sites = (SD15, TWO_LEVEL_SITES) if family == "SD15" else (SDXL, SDXL_SITES)
    places = SD15_PLACES if family == "SD15" else SDXL_PLACES
    model = tiny.build(family, **config)
    for number, (adapter, settings) in enumerate(CASES[case]):
        model = pack.apply(model, places, number, **tokens(50 + 2 * number, adapter) | settings)
    start = tiny.latent(32, 2, 4, *SIZE)
    pooled: dict[str, Any] = {"pooled_output": tiny.latent(5, 1, 10)}
    marks = [(1, 2, 2)] if case.endswith("in the text") else []
    positive = tiny.conditioning(30, TEXT, 24, **pooled, i2am_image_tokens=marks)
    negative = tiny.conditioning(31, 2 * TEXT if marks else TEXT, 24, **pooled)
    options: dict[str, Any] = {"cfg": 3.0, "steps": 3, "scheduler": "normal"}

    plain = tiny.sample(model, positive, negative, start, **options)
    pack.NOTES.clear()
    armed = arm_model(comfy, model, places=point_queries(comfy, 8), definitions="all")
    sampled = tiny.sample(armed, positive, negative, start, **options)
    assert torch.equal(sampled, plain)

    ran = {tuple(note.adapters) for note in pack.NOTES}
    assert len(ran) == (4 if len(CASES[case]) == 3 else 1)  # both on, either one off, both off
    record = recording(comfy, sampled)
    adapters = tuple(adapter for adapter, _ in CASES[case])
    grids = [(height, width) for _, height, width in marks]
    grids += [adapter.grid for adapter in adapters for _ in range(adapter.pictures)]
    cell = 1 if family == "SD15" else 2
    wanted = expected(
        seen_by(pack, len(adapters)),
        rows_of(0, 2),
        asking(place_of(sites, grids), SIZE),
        step_finder(record.header.run.schedule),
        (-(-SIZE[0] // cell), -(-SIZE[1] // cell)),
        heads=8 if family == "SD15" else 2,
        latent=SIZE,
        dense=dense(adapters, marks),
    )
    deviations = largest_deviation(dict(record.arrays), wanted)
    record_property("largest deviation", max(deviations.values()))
    assert max(deviations.values()) < TOLERANCE, deviations
    seen = len(record.header.layers), record.header.expected_layers
    assert seen == ((6, 7) if family == "SD15" else (9, 11))  # the pack never calls the middle
    has_places = [picture.has_places for picture in record.header.references]
    assert has_places[len(marks) :] == [
        a.tokens == 257 for a in adapters for _ in range(a.pictures)
    ]
    if not has_places[0]:
        assert_no_map_over_the_reference(comfy, record)


def test_nothing_is_left(comfy: Any, pack: ModuleType) -> None:
    """After success, an error in an adapter, and an interrupt, the pack's objects are as before."""
    from comfy.ldm.modules.attention import optimized_attention
    from comfy.model_management import InterruptProcessingException

    model = pack.apply(tiny.build("SD15", **SD15), SD15_PLACES, 0, **tokens(50, BASE))
    armed = arm_model(comfy, model)
    patches = armed.model_options["transformer_options"]["patches_replace"]["attn2"]
    before = dict(patches)
    inside = {place: dict(vars(patch)) for place, patch in patches.items()}
    callbacks = {place: list(patch.callback) for place, patch in patches.items()}

    def unchanged() -> None:
        assert patches == before
        assert all(patches[place] is before[place] for place in before)
        for place, patch in patches.items():
            assert vars(patch) == inside[place]
            assert patch.callback == callbacks[place] == [pack.adapter_attention]
        assert pack.optimized_attention is optimized_attention
        assert armed.model_options.keys() == model.model_options.keys()
        options = armed.model_options["transformer_options"]
        assert options.keys() == model.model_options["transformer_options"].keys()

    positive, negative = (tiny.conditioning(seed, TEXT, 24) for seed in (30, 31))
    start = tiny.latent(32, 1, 4, *SIZE)
    tiny.sample(armed, positive, negative, start, steps=1)
    unchanged()
    settings = patches["output", 2].kwargs[0]
    for error in (RuntimeError("out of memory"), InterruptProcessingException()):

        class Failing(dict[int, float]):
            def __contains__(self, key: object, error: BaseException = error) -> bool:
                raise error

        settings["weight"] = Failing()
        with pytest.raises(type(error)):
            tiny.sample(armed, positive, negative, start, steps=1)
        del settings["weight"]
        unchanged()
    assert torch.equal(
        tiny.sample(armed, positive, negative, start, steps=1),
        tiny.sample(model, positive, negative, start, steps=1),
    )


def test_adapters_that_differ_between_layers(comfy: Any, pack: ModuleType) -> None:
    """They cannot be told apart: the picture is unharmed, a request for maps gives the reason."""
    model = pack.apply(tiny.build("SD15", **SD15), SD15_PLACES, 0, **tokens(50, BASE))
    some = {place: SD15_PLACES[place] for place in (("input", 1), ("output", 2))}
    both = pack.apply(model, some, 1, **tokens(52, PLUS))
    armed = arm_model(comfy, both)
    positive, negative = (tiny.conditioning(seed, TEXT, 24) for seed in (30, 31))
    start = tiny.latent(32, 1, 4, *SIZE)
    sampled = tiny.sample(armed, positive, negative, start, steps=1)
    assert torch.equal(sampled, tiny.sample(both, positive, negative, start, steps=1))
    assert "differ from layer to layer" in refusal_reason(comfy, sampled)


@pytest.mark.parametrize("case", CASES)
def test_like_the_pack(comfy: Any, pack: ModuleType, case: str) -> None:
    """Where the real pack is beside ComfyUI, it gives the same latent and the same recording."""
    folder = comfy.path / "custom_nodes" / "ComfyUI_IPAdapter_plus"
    if not folder.is_dir():
        pytest.skip("ComfyUI_IPAdapter_plus is not installed")
    real = pack_module(folder, "CrossAttentionPatch")
    records = []
    for used in (None, real):
        model = tiny.build("SD15", **SD15)
        for number, (adapter, settings) in enumerate(CASES[case]):
            inputs = tokens(50 + 2 * number, adapter) | settings
            model = pack.apply(model, SD15_PLACES, number, used, **inputs)
        armed = arm_model(comfy, model)
        positive, negative = (tiny.conditioning(seed, TEXT, 24) for seed in (30, 31))
        start = tiny.latent(32, 2, 4, *SIZE)
        options: dict[str, Any] = {"cfg": 3.0, "steps": 3, "scheduler": "normal"}
        plain = tiny.sample(model, positive, negative, start, **options)
        sampled = tiny.sample(armed, positive, negative, start, **options)
        assert torch.equal(sampled, plain)
        records.append((sampled, recording(comfy, sampled)))
    (ours, ours_recorded), (theirs, theirs_recorded) = records
    assert (ours - theirs).abs().max() < 1e-4 * ours.abs().max()  # rounded differently
    deviations = largest_deviation(dict(theirs_recorded.arrays), dict(ours_recorded.arrays))
    assert max(deviations.values()) < TOLERANCE, deviations
