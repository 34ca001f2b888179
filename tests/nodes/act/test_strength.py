"""Reference Strength: sampling as if the logits had the bias; afterwards the model is as before."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from graph import changed, filled, flux_graph, given
from oracle import ARGUMENTS
from proof import recording
from torch import Tensor

START = tiny.latent(22, 2, 16, 12, 10)
REFERENCES = (tiny.latent(10, 1, 16, 7, 14), tiny.latent(11, 1, 16, 6, 5))
TEXT, RESULT, FIRST, SECOND = (0, 7), (7, 37), (37, 65), (65, 74)
POSITIVE = tiny.conditioning(20, 7, 16, REFERENCES)
NEGATIVE = tiny.conditioning(21, 7, 16)
Matrix = Callable[[dict[str, Any], int, int], Tensor | None]

pytestmark = pytest.mark.usefixtures("tiny_nodes")


class Dense:
    """An independent attention: full matrices in float64, with an explicit bias."""

    def __init__(self, matrix: Matrix) -> None:
        self.matrix = matrix

    def __call__(self, func: Any, *args: Any, **kwargs: Any) -> Tensor:
        given = dict(zip(ARGUMENTS, args, strict=False)) | kwargs
        q, k, v = given["q"], given["k"], given["v"]
        if not given.get("skip_reshape"):
            dim = q.shape[-1] // given["heads"]
            q, k, v = (x.reshape(*x.shape[:2], -1, dim).transpose(1, 2) for x in (q, k, v))
        k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], dim=1) for x in (k, v))
        logits = q.double() @ k.double().mT * q.shape[-1] ** -0.5
        bias = self.matrix(given["transformer_options"], q.shape[2], k.shape[2])
        if bias is not None:
            logits = logits + bias
        output = (logits.softmax(-1) @ v.double()).to(v)
        if given.get("skip_output_reshape"):
            return output
        return output.transpose(1, 2).flatten(2)

    def on(self, model: Any) -> Any:
        biased = model.clone()
        biased.model_options["transformer_options"]["optimized_attention_override"] = self
        return biased


def block(rows: Any, columns: Any, value: float, tokens: int = 74) -> Tensor:
    """A bias matrix for these logits."""
    bias = torch.zeros(tokens, tokens, dtype=torch.float64)
    bias[torch.as_tensor(rows)[:, None], torch.as_tensor(columns)] = value
    return bias


def span(of: tuple[int, int]) -> list[int]:
    return list(range(*of))


def in_flux(*matrices: Tensor) -> Matrix:
    """The same bias matrix in every call with the references."""
    return lambda options, queries, keys: sum(matrices) if keys == 74 else None  # type: ignore[return-value]


def model() -> Any:
    return tiny.flux(0)


@pytest.fixture
def steer(comfy: Any) -> Callable[..., Any]:
    """Reference Strength's work: steer(model, reference, strength, …)."""
    execute = comfy.node("I2AM_Steer").execute
    return lambda model, reference, strength, steps="", **masks: execute(
        model, reference, strength, steps, **masks
    ).args[0]


def close(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() < 2e-4 * other.abs().max())


def sampled(model: Any, positive: Any = POSITIVE, negative: Any = NEGATIVE, **options: Any):
    settings: dict[str, Any] = {"cfg": 2.0} | options
    return tiny.sample(model, positive, negative, START, **settings)


@pytest.mark.parametrize("strength", [4.0, 0.3, 0.0])
def test_whole_reference(steer: Callable[..., Any], strength: float) -> None:
    bias = math.log(strength) if strength else -1e9
    wanted = sampled(Dense(in_flux(block(span(RESULT), span(SECOND), bias))).on(model()))
    found = sampled(steer(model(), 2, strength))
    assert close(found, wanted)
    assert not close(found, sampled(model()))


def test_parts(steer: Callable[..., Any]) -> None:
    """The left of the result (6×5 tokens) towards the lower half of the second reference (3×3)."""
    result_mask, reference_mask = torch.zeros(1, 96, 80), torch.zeros(1, 10, 10)
    result_mask[:, :, :32] = 1  # two columns
    reference_mask[:, 6:] = 1  # rows 1.8 to 3: the last one but not the middle one
    rows = [RESULT[0] + 5 * y + x for y in range(6) for x in range(2)]
    wanted = Dense(in_flux(block(rows, range(SECOND[0] + 6, SECOND[1]), math.log(5)))).on(model())
    masks = {"result_mask": result_mask, "reference_mask": reference_mask}
    assert close(sampled(steer(model(), 2, 5.0, **masks)), sampled(wanted))


def test_a_mask_for_each_result(steer: Callable[..., Any]) -> None:
    """Of two results, only the second."""
    mask = torch.zeros(2, 96, 80)
    mask[0, :16, :16] = 1
    mask[1] = 1
    whole, corner = block(span(RESULT), span(FIRST), 1.0), block([7], span(FIRST), 1.0)
    wanted = Dense(in_flux(torch.stack((corner, whole))[:, None])).on(model())
    found = sampled(steer(model(), 1, math.e, result_mask=mask))
    assert close(found, sampled(wanted, negative=NEGATIVE))


def test_several_add_up(steer: Callable[..., Any]) -> None:
    steered = steer(steer(steer(model(), 1, 2.0), 2, 0.0), 1, 3.0)
    up = block(span(RESULT), span(FIRST), math.log(6))
    off = block(span(RESULT), span(SECOND), -1e9)
    assert close(sampled(steered), sampled(Dense(in_flux(up, off)).on(model())))


def test_steps(steer: Callable[..., Any]) -> None:
    """Only at the chosen step: the bias of the middle one of three."""
    schedule: list[float] = []

    def middle(options: dict[str, Any], queries: int, keys: int) -> Tensor | None:
        schedule[:] = options["sample_sigmas"].tolist()
        now = float(options["sigmas"][0]) == pytest.approx(schedule[1])
        return block(span(RESULT), span(FIRST), math.log(8)) if now and keys == 74 else None

    wanted = sampled(Dense(middle).on(model()))
    assert close(sampled(steer(model(), 1, 8.0, "1")), wanted)
    plain = sampled(model())
    assert torch.equal(sampled(steer(model(), 1, 8.0, "7-9")), plain)


@pytest.mark.parametrize("backend", ["basic", "sub_quad", "split", "pytorch"])
def test_every_backend(steer: Callable[..., Any], backend: str) -> None:
    import comfy.ldm.modules.attention as attention

    chosen = getattr(attention, f"attention_{backend}")
    other = model().clone()
    other.model_options["transformer_options"]["optimized_attention_override"] = (
        lambda func, *args, **kwargs: chosen(*args, **kwargs)
    )
    wanted = sampled(Dense(in_flux(block(span(RESULT), span(FIRST), math.log(3)))).on(model()))
    assert close(sampled(steer(other, 1, 3.0)), wanted)


def test_cross_attention_of_a_repeated_context(comfy: Any, steer: Callable[..., Any]) -> None:
    """UNet: image tokens 3×4 marked in a context that is repeated to match a longer one."""
    positive = tiny.conditioning(30, 20, 24, i2am_image_tokens=[(5, 3, 4)])
    negative = tiny.conditioning(31, 40, 24)
    start = tiny.latent(32, 2, 4, 8, 8)
    mask = torch.zeros(1, 3, 4)
    mask[:, 0] = 1

    def matrix(options: dict[str, Any], queries: int, keys: int) -> Tensor | None:
        if keys != 40 or queries == keys:
            return None
        bias = torch.zeros(len(options["cond_or_uncond"]), 2, 1, 1, keys, dtype=torch.float64)
        row = options["cond_or_uncond"].index(0)
        for copy in (0, 20):
            bias[row, ..., copy + 5 : copy + 9] = math.log(7)
        return bias.flatten(0, 1)

    def sample(made: Any) -> Tensor:
        return tiny.sample(made, positive, negative, start, cfg=3.0, scheduler="normal")

    wanted = sample(Dense(matrix).on(tiny.unet(0)))
    found = sample(steer(tiny.unet(0), 1, 7.0, reference_mask=mask))
    assert close(found, wanted)
    assert not close(found, sample(tiny.unet(0)))


def test_shared_key_heads(steer: Callable[..., Any]) -> None:
    """OmniGen2: fewer key heads than query heads; references (28, 9) before the result (30)."""
    import tiny_omnigen2 as family

    def matrix(options: dict[str, Any], queries: int, keys: int) -> Tensor | None:
        return block(range(44, 74), range(7, 35), math.log(6)) if keys == 74 else None

    def sample(made: Any) -> Tensor:
        positive, negative = family.conditioning(50, 7), family.conditioning(51, 7, False)
        return tiny.sample(made, positive, negative, family.START, steps=2, cfg=2.0)

    wanted = sample(Dense(matrix).on(family.omnigen2()))
    found = sample(steer(family.omnigen2(), 1, 6.0))
    assert close(found, wanted)
    assert not close(found, sample(family.omnigen2()))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("strength", [0.0, 0.25, 8.0])
def test_low_precision(comfy: Any, dtype: torch.dtype, strength: float) -> None:
    """The bias on the logits is accurate to a thousandth; muted keys have no weight at all."""
    steering = comfy.pack("i2am.attention")
    q, k = (tiny.latent(seed, 1, 2, 6, 128).to(dtype) for seed in (1, 2))
    keys = torch.tensor([[0.0, 0, 1, 1, 0, 0]])
    bias = steering.Bias(steering.Steer(0, strength).bias, torch.ones(1, 6), keys)
    longer, others = steering.biased_query_key(q, k, [(slice(0, 1), bias)])
    assert longer.shape[-1] % 8 == 0
    logits = longer.double() @ others.double().mT / math.sqrt(longer.shape[-1])
    exact = longer[..., :128].double() @ k.double().mT / math.sqrt(longer.shape[-1])
    added = (logits - exact)[..., 2:4]
    if strength:
        assert torch.allclose(added, torch.full_like(added, math.log(strength)), atol=1e-3)
    products = longer @ others.mT  # like a backend with this precision
    assert products.isfinite().all()
    weights = (products * longer.shape[-1] ** -0.5).softmax(-1)
    assert (weights[..., 2:4] == 0).all() == (strength == 0)


class TestWithCapture:
    @pytest.mark.parametrize("order", ["steer first", "capture first"])
    def test_recorded_as_steered(self, comfy: Any, steer: Callable[..., Any], order: str) -> None:
        """The recording has the attention with the bias, in either order of the nodes."""
        plan = comfy.pack("i2am.recording").Plan()
        arm = comfy.pack("nodes.host.hook").arm
        plain = recording(comfy, sampled(arm(model(), plan))).arrays["share.step_layer"]
        if order == "steer first":
            both = arm(steer(model(), 2, 0.0), plan)
        else:
            both = steer(arm(model(), plan), 2, 0.0)
        latent = sampled(both)
        assert torch.equal(latent, sampled(steer(model(), 2, 0.0)))
        record = recording(comfy, latent)
        shares = record.arrays["share.step_layer"]
        assert shares[..., 3].max() == 0
        assert plain[..., 3].min() > 0
        assert torch.allclose(shares.sum(-1), torch.ones(()))
        assert record.header.run.steering == ("reference 2 × 0",)

    def test_in_a_graph(self, run_graph: Any) -> None:
        """The report mentions it; strength 1 is the unchanged model."""
        graph = flux_graph(
            steer=filled("I2AM_Steer", model=["capture", 0], strength=0.5, steps="0-1"),
        )
        graph = changed(graph, "sampler", model=["steer", 0])
        run = run_graph(graph, ["collect"])
        assert "Steered while it was sampled: reference 1 × 0.5, steps 0-1" in run.value(
            "collect", 2
        )
        plain = run_graph(flux_graph(), ["collect"])
        same = run_graph(changed(graph, "steer", strength=1.0), ["collect"])
        assert torch.equal(
            same.value("collect", 1)["samples"], plain.value("collect", 1)["samples"]
        )
        assert "Steered" not in same.value("collect", 2)


def test_the_model_is_left_as_it_was(steer: Callable[..., Any]) -> None:
    one = model()
    before = sampled(one)
    options = repr(one.model_options)
    steered = steer(one, 1, 4.0)
    assert not torch.equal(sampled(steered), before)
    assert torch.equal(sampled(one), before)
    assert repr(one.model_options) == options
    assert torch.equal(sampled(steer(one, 1, 1.0)), before)


class TestErrors:
    def test_compiled(self, steer: Callable[..., Any]) -> None:
        """Compiled code would keep the steering for runs that do not ask for it."""
        one = model()
        before = sampled(one)
        compiled = steer(one, 1, 4.0)
        block = torch.compile(one.model.diffusion_model.double_blocks[0], backend="eager")
        compiled.add_object_patch("diffusion_model.double_blocks.0", block)
        with pytest.raises(ValueError, match="cannot steer a compiled model"):
            sampled(compiled)
        compiled.unpatch_model()
        assert torch.equal(sampled(one), before)

    def test_reference_that_is_not_there(self, run_graph: Any) -> None:
        graph = flux_graph(
            steer=filled("I2AM_Steer", model=["capture", 0], reference=2, strength=2.0)
        )
        run = run_graph(changed(graph, "sampler", model=["steer", 0]), ["collect"])
        assert "set for reference 2, but the model was given 1" in run.errors["sampler"]

    def test_unknown_model(self, steer: Callable[..., Any]) -> None:
        stranger = tiny.flux(0).clone()

        class Stranger:
            diffusion_model = torch.nn.Linear(1, 1)

        stranger.model = Stranger()
        with pytest.raises(ValueError, match="Reference Strength needs to read"):
            steer(stranger, 1, 2.0)

    def test_masks(self, run_graph: Any, steer: Callable[..., Any]) -> None:
        empty = given("empty", torch.zeros(1, 8, 8))
        graph = flux_graph(
            empty=empty,
            steer=filled(
                "I2AM_Steer", model=["capture", 0], strength=2.0, reference_mask=["empty", 0]
            ),
        )
        run = run_graph(changed(graph, "sampler", model=["steer", 0]), ["collect"])
        assert "reference_mask is empty" in run.errors["steer"]
        with pytest.raises(ValueError, match="holds 3 masks, but 2 pictures"):
            sampled(steer(model(), 1, 2.0, result_mask=torch.ones(3, 8, 8)))

    def test_nothing_competes(self, steer: Callable[..., Any]) -> None:
        """In a context that is only the reference, a bias on all of it has no effect."""
        positive = tiny.conditioning(30, 12, 24, i2am_image_tokens=[(0, 3, 4)])
        with pytest.raises(ValueError, match="a softmax of its own"):
            tiny.sample(
                *(steer(tiny.unet(0), 1, 2.0), positive, positive, tiny.latent(32, 1, 4, 8, 8))
            )
