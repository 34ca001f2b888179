"""All of Flux: reference methods, Redux, Fill, USO, Flux.2, cached references, LongCat, Chroma."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import tiny
import torch
from graph import changed, flux_graph, given, node
from oracle import Place, Seen
from proof import arm_model, prove, recording, refusal_reason
from tiny_joint import flux, flux2

START = tiny.latent(22, 2, 16, 12, 10)
REFERENCES = (tiny.latent(10, 1, 16, 7, 14), tiny.latent(11, 1, 16, 6, 5))
GRIDS = ((4, 7), (3, 3))
# [what it is, how many tokens], in order, written by hand.
Tokens = list[tuple[str, int]]
TWO_LATENTS: Tokens = [("text", 7), ("result", 30), ("0", 28), ("1", 9)]


def placed(
    tokens: Tokens, grids: tuple[tuple[int, int], ...], grid: tuple[int, int] = (6, 5)
) -> Callable[[Seen], Place | None]:
    """The layout of calls with so many keys; other calls have no reference."""
    spans: dict[str, tuple[int, int]] = {}
    end = 0
    for name, count in tokens:
        spans[name] = (end, end + count)
        end += count

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != end:
            return None
        return Place(
            layer=call.options["block_index"] + 2 * (call.options["block_type"] == "single"),
            generated=spans["result"],
            grid=grid,
            own=spans["result"],
            references=tuple(spans[str(number)] for number in range(len(grids))),
            reference_grids=grids,
            keys=end,
        )

    return place


def proven(comfy: Any, model: Callable[[], Any], *arguments: Any, **options: Any) -> Any:
    return prove(comfy, model, *arguments, **({"grid": (6, 5), "heads": 2} | options))


@pytest.mark.parametrize("both", [False, True], ids=["on positive", "on both"])
@pytest.mark.parametrize("method", ["offset", "index", "uxo"])
def test_reference_methods(comfy: Any, method: str, both: bool, record_property: Any) -> None:
    """Methods change the positions of references, not their order in the sequence."""
    positive = tiny.conditioning(20, 7, 16, REFERENCES, reference_latents_method=method)
    negative = tiny.conditioning(
        21, 7, 16, REFERENCES if both else (), reference_latents_method=method
    )
    place = placed(TWO_LATENTS, GRIDS)
    proven(comfy, flux, positive, negative, START, place, cfg=3.0, note=record_property)


def test_longcat(comfy: Any, record_property: Any) -> None:
    """A Flux whose text has counting positions, and whose pictures start where the text ends."""

    def longcat() -> Any:
        return flux(family="LongCatImage", context_in_dim=3584, txt_ids_dims=[1, 2])

    positive, negative = (tiny.conditioning(seed, 7, 3584, REFERENCES) for seed in (20, 21))
    place = placed(TWO_LATENTS, GRIDS)
    record, _ = proven(
        *(comfy, longcat, positive, negative, START, place), cfg=3.0, note=record_property
    )
    assert record.header.run.model == "LongCatImage"


def test_ovis(comfy: Any, record_property: Any) -> None:
    """A Flux with another MLP and a norm before the text."""

    def ovis() -> Any:
        return flux(yak_mlp=True, txt_norm=True, txt_ids_dims=[1, 2])

    positive, negative = (tiny.conditioning(seed, 7, 16, REFERENCES) for seed in (20, 21))
    place = placed(TWO_LATENTS, GRIDS)
    proven(comfy, ovis, positive, negative, START, place, cfg=3.0, note=record_property)


@pytest.mark.parametrize("guidance", [True, False], ids=["dev", "Klein"])
@pytest.mark.parametrize("both", [False, True], ids=["on positive", "on both"])
def test_flux2(comfy: Any, guidance: bool, both: bool, record_property: Any) -> None:
    """One token per latent pixel; the text is padded to 512 tokens."""
    references = (tiny.latent(10, 1, 128, 3, 7), tiny.latent(11, 1, 128, 5, 2))
    positive = tiny.conditioning(20, 7, 16, references)
    negative = tiny.conditioning(21, 7, 16, references if both else ())
    tokens = [("text", 512), ("result", 30), ("0", 21), ("1", 10)]
    proven(
        *(comfy, lambda: flux2(guidance), positive, negative),
        *(tiny.latent(22, 2, 128, 6, 5), placed(tokens, ((3, 7), (5, 2)))),
        steps=2,
        cfg=3.0,
        note=record_property,
    )


def test_cached_references(comfy: Any, record_property: Any) -> None:
    """After the first evaluation, reference keys come from a cache and references have no queries.

    Passes without references run in between.
    """
    cached = comfy.node("FluxKVCache").execute
    references = (tiny.latent(10, 1, 128, 3, 7), tiny.latent(11, 1, 128, 5, 2))
    positive = tiny.conditioning(20, 7, 16, references)
    tokens = [("text", 512), ("result", 30), ("0", 21), ("1", 10)]
    _, calls = proven(
        *(comfy, lambda: cached(flux2(False))[0], positive, tiny.conditioning(21, 7, 16)),
        *(tiny.latent(22, 2, 128, 6, 5), placed(tokens, ((3, 7), (5, 2)))),
        cfg=2.0,
        steps=2,
        note=record_property,
    )
    counts = [(call.q.shape[2], call.k.shape[2]) for call in calls]
    without = [(542, 542)] * 4
    assert counts == [(573, 573)] * 4 + without + [(542, 573)] * 4 + without


class TestRedux:
    """27×27 tokens of each picture at the end of the text are found and marked."""

    @pytest.fixture
    def style_model(self, comfy: Any) -> Any:
        import comfy.ldm.flux.redux
        import comfy.sd

        network = comfy.ldm.flux.redux.ReduxImageEncoder(redux_dim=8, txt_in_features=16)
        network.load_state_dict(tiny._random_weights(network, 3))
        return comfy.sd.StyleModel(network)

    @staticmethod
    def seen(seed: int, pictures: int = 1) -> Any:
        return SimpleNamespace(last_hidden_state=tiny.latent(seed, pictures, 729, 8))

    @staticmethod
    def applied(
        comfy: Any, conditioning: Any, style_model: Any, seen: Any, *strength: Any
    ) -> list[Any]:
        with torch.inference_mode():
            apply = comfy.node("StyleModelApply")().apply_stylemodel
            (applied,) = apply(conditioning, style_model, seen, *strength)
            return comfy.node("I2AM_MarkRedux").execute(applied, style_model, seen)[0]

    @pytest.mark.parametrize("strength", [(0.3, "multiply"), (0.5, "attn_bias")])
    def test_strengths(
        self, comfy: Any, style_model: Any, strength: Any, record_property: Any
    ) -> None:
        text = tiny.conditioning(20, 7, 16)
        positive = self.applied(comfy, text, style_model, self.seen(30), *strength)
        tokens = [("text", 7), ("0", 729), ("result", 30)]
        record, calls = proven(
            *(comfy, flux, positive, tiny.conditioning(21, 7, 16), START),
            placed(tokens, ((27, 27),)),
            steps=2,
            cfg=3.0,
            note=record_property,
        )
        masks = [call.mask for call in calls if call.k.shape[2] == 766]
        assert all((mask is not None) == (strength[1] == "attn_bias") for mask in masks)
        assert [picture.kind for picture in record.header.references] == ["image tokens"]

    def test_several_pictures_and_a_latent(
        self, comfy: Any, style_model: Any, record_property: Any
    ) -> None:
        """Two pictures in one output, then another Redux with a text after it, and Kontext."""
        text = tiny.conditioning(20, 7, 16, REFERENCES[1:])
        positive = self.applied(comfy, text, style_model, self.seen(30, 2), 1.0, "multiply")
        tokens = [("text", 7), ("0", 729), ("1", 729), ("result", 30), ("2", 9)]
        grids = ((27, 27), (27, 27), (3, 3))
        proven(
            *(comfy, flux, positive, positive, START, placed(tokens, grids)),
            steps=1,
            note=record_property,
        )

    def test_fill(self, comfy: Any, style_model: Any, record_property: Any) -> None:
        """Fill adds channels, not tokens."""
        mask = torch.ones(1, 1, 96, 80)
        text = tiny.conditioning(20, 7, 16, concat_latent_image=START, concat_mask=mask)
        positive = self.applied(comfy, text, style_model, self.seen(30), 1.0, "multiply")
        tokens = [("text", 7), ("0", 729), ("result", 30)]
        proven(
            *(comfy, lambda: flux(in_channels=96), positive, positive, START),
            placed(tokens, ((27, 27),)),
            steps=1,
            note=record_property,
        )

    def test_marking(self, comfy: Any, style_model: Any) -> None:
        """Marks in any order; each picture is found where it is, and each mark is made once."""
        one, two = self.seen(30), self.seen(31)
        apply = comfy.node("StyleModelApply")().apply_stylemodel
        mark = comfy.node("I2AM_MarkRedux").execute
        with torch.inference_mode():
            (first,) = apply(tiny.conditioning(20, 7, 16), style_model, one, 0.4, "multiply")
            (both,) = apply(first, style_model, two, 1.0, "multiply")
            (more,) = comfy.node("ConditioningConcat")().concat(both, tiny.conditioning(23, 5, 16))
            marked = mark(mark(more, style_model, two)[0], style_model, one)[0]
            assert marked[0][1]["i2am_image_tokens"] == [(7, 27, 27), (736, 27, 27)]
            assert torch.equal(marked[0][0], more[0][0])
            for wrong in (tiny.conditioning(20, 7, 16), first, marked):
                with pytest.raises(ValueError, match="does not hold the tokens"):
                    mark(wrong, style_model, two)

    @pytest.mark.usefixtures("tiny_nodes")
    def test_in_a_graph(self, run_graph: Any, style_model: Any) -> None:
        """Stock nodes before and after, connected as a user would."""
        links = {
            "style_model": given("style model", style_model),
            "seen": given("seen", self.seen(30)),
        }
        inputs = {"style_model": ["style_model", 0], "clip_vision_output": ["seen", 0]}
        graph = flux_graph(
            **links,
            redux=node(
                "StyleModelApply",
                **inputs,
                conditioning=["positive", 0],
                strength=0.7,
                strength_type="multiply",
            ),
            mark=node("I2AM_MarkRedux", **inputs, conditioning=["redux", 0]),
        )
        run = run_graph(changed(graph, "sampler", positive=["mark", 0]), ["collect"])
        assert run.ok, run.errors
        references = run.value("collect").recording.header.references
        assert [(one.kind, one.grid.sides) for one in references] == [
            ("image tokens", (27, 27)),
            ("reference latent", (3, 3)),
        ]

    def test_without_marks_there_is_no_guess(self, comfy: Any, style_model: Any) -> None:
        apply = comfy.node("StyleModelApply")().apply_stylemodel
        with torch.inference_mode():
            (text,) = apply(
                tiny.conditioning(20, 7, 16), style_model, self.seen(30), 1.0, "multiply"
            )
        latent = tiny.sample(arm_model(comfy, flux()), text, text, START, steps=1)
        reason = refusal_reason(comfy, latent)
        assert "marked Redux tokens" in reason


def test_uso(comfy: Any, record_property: Any) -> None:
    """192 style tokens before the text, and a latent: only a share and a map over the result."""
    import comfy_extras.nodes_model_patch as patches
    from comfy.model_patcher import ModelPatcher

    projector = patches.SigLIPMultiFeatProjModel(
        siglip_token_dims=8, hidden_size=256, operations=torch.nn
    )
    projector.load_state_dict(tiny._random_weights(projector, 4))
    seen = SimpleNamespace(
        all_hidden_states=tiny.latent(30, 1, 20, 729, 8),
        penultimate_hidden_states=tiny.latent(31, 1, 729, 8),
    )

    def styled() -> Any:
        cpu = torch.device("cpu")
        patch = ModelPatcher(projector, load_device=cpu, offload_device=cpu)
        model = flux().clone()
        encoded = torch.stack(
            (
                seen.all_hidden_states[:, -20],
                seen.all_hidden_states[:, -11],
                seen.penultimate_hidden_states,
            )
        )
        model.set_model_post_input_patch(patches.UsoStyleProjectorPatch(patch, encoded))
        return model

    positive = tiny.conditioning(20, 7, 16, REFERENCES[1:], reference_latents_method="uxo")
    tokens = [("0", 192), ("text", 7), ("result", 30), ("1", 9)]
    start = tiny.latent(22, 1, 16, 12, 10)
    record, _ = proven(
        *(comfy, styled, positive, positive, start, placed(tokens, ((12, 16), (3, 3)))),
        note=record_property,
    )
    attribution = comfy.pack("i2am.maps.levels")
    definition = attribution.Definition.MODEL
    over_result, over_reference = attribution.Direction
    shown = attribution.attribution_map(record, definition, over_result)
    assert shown.values.shape == (1, 1, 6, 5)
    assert attribution.attribution_map(record, definition, over_reference, reference=1)
    with pytest.raises(ValueError, match=r"no map over reference 1.*style tokens"):
        attribution.attribution_map(record, definition, over_reference)
    assert "(style tokens, no map over it)" in comfy.pack("i2am.display").recording_report(record)


@pytest.mark.parametrize("name", ["Chroma", "ChromaRadiance"])
def test_chroma_is_refused(comfy: Any, name: str) -> None:
    """Every class of Chroma ignores references, which the user is told before sampling."""
    import comfy.model_base as models

    architectures = comfy.pack("i2am.tokens.architectures")
    classes = [one.__name__ for one in getattr(models, name).__mro__]
    with pytest.raises(ValueError, match="no reference to watch: it ignores reference latents"):
        architectures.find(classes)


def test_every_class_that_derives_from_flux(comfy: Any) -> None:
    """A new class in ComfyUI must be examined before it is read as Flux."""
    import comfy.model_base as models

    def derived(base: type) -> set[str]:
        return {base.__name__}.union(*(derived(one) for one in base.__subclasses__()))

    known = {"Flux", "Flux2", "LongCatImage", "Chroma", "ChromaRadiance"}
    assert derived(models.Flux) == known


def test_different_references_are_not_mixed(comfy: Any) -> None:
    """Two conditionings of one branch with two pictures of one size: no map is right for both."""
    pictures = tiny.latent(10, 1, 16, 6, 5), tiny.latent(12, 1, 16, 6, 5)
    first, other, same = (tiny.conditioning(20, 7, 16, (pictures[i],)) for i in (0, 1, 0))
    armed = arm_model(comfy, flux())
    latent = tiny.sample(armed, first + other, first, START, steps=1)
    reason = refusal_reason(comfy, latent)
    assert "different reference pictures" in reason
    recording(comfy, tiny.sample(armed, first + same, first, START, steps=1))
