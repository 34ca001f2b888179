"""A model made twice as wide computes what it did, and can learn more."""

from __future__ import annotations

import torch

from tools.demo.flux import DemoFlux
from tools.demo.training import optimisers_of
from tools.demo.widening import widened, without_single_block


def trained(singles: int = 2) -> DemoFlux:
    """A narrow model whose weights are all different from where training starts."""
    torch.manual_seed(0)
    model = DemoFlux(singles=singles)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)
    return model


def velocity(model: DemoFlux) -> torch.Tensor:
    random = torch.Generator().manual_seed(1)
    x, scene, reference = torch.randn(3, 2, 16, 8, 8, generator=random)
    return model(x, torch.tensor([0.3, 1.0]), torch.zeros(2, 1, 16), [scene, reference])


def wide(model: DemoFlux) -> DemoFlux:
    weights = widened(model.state_dict(), torch.Generator().manual_seed(2))
    twice = DemoFlux.like(weights)
    twice.load_state_dict(weights)
    return twice


def test_a_widened_model_computes_the_same():
    narrow = trained()
    twice = wide(narrow)
    assert len(twice.img_in.bias) == 2 * len(narrow.img_in.bias)
    assert len(twice.single_blocks) == len(narrow.single_blocks)
    with torch.no_grad():
        assert torch.allclose(velocity(twice), velocity(narrow), atol=1e-5)


def test_the_two_copies_of_a_channel_learn_differently():
    twice = wide(trained())
    velocity(twice).square().mean().backward()
    for number in range(len(twice.single_blocks)):
        gradient = twice.get_parameter(f"single_blocks.{number}.linear1.weight").grad
        assert gradient is not None
        first, copy = gradient.unflatten(0, (-1, 2, 128)).unbind(1)
        assert (first - copy).norm() > 0.1 * first.norm()


def test_a_block_is_taken_out_and_the_others_counted_anew():
    narrow = trained(singles=3)
    weights = without_single_block(narrow.state_dict(), 1)
    assert len(DemoFlux.like(weights).single_blocks) == 2
    for old, new in ((0, 0), (2, 1)):
        kept = narrow.single_blocks[old].state_dict()
        assert all(
            torch.equal(weights[f"single_blocks.{new}.{name}"], value)
            for name, value in kept.items()
        )


def test_muon_is_for_the_matrices_of_the_blocks_that_read_tokens():
    model = trained()
    muon, adam = optimisers_of(model, 1e-3, muon=True)
    of_muon = {id(p) for group in muon.param_groups for p in group["params"]}
    names = {name for name, p in model.named_parameters() if id(p) in of_muon}
    assert {name.split(".", 2)[2] for name in names if "single" in name} == {
        "linear1.weight",
        "linear2.weight",
    }
    assert not any("mod" in name or "bias" in name or "blocks" not in name for name in names)
    of_adam = {id(p) for group in adam.param_groups for p in group["params"]}
    assert of_muon.isdisjoint(of_adam)
    assert of_muon | of_adam == {id(p) for p in model.parameters()}
