"""Probe a Picture: a picture that exists, noised as samplers do, recorded as sampling runs are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tiny
import torch
from demo_graph import OBJECT, demo_graph
from graph import REFERENCES, changed, flux_graph, given, node, same, same_arrays
from proof import arm_model, recording
from tiny_adapters import SD15_PLACES, SIZE, TEXT
from tiny_unets import CONTEXT, MARKS, SD15
from tiny_wan import START, texts, wan
from torch import Tensor

from tools.demo.scenes import make_scenes

pytestmark = pytest.mark.usefixtures("tiny_nodes")

SEED = 5


@pytest.fixture(autouse=True)
def store(use_store: Any) -> Any:
    """An empty store: no test finds another's recordings."""
    return use_store()


def _flux(comfy: Any) -> tuple[Any, Any, dict[str, Any]]:
    return tiny.flux(), tiny.conditioning(20, 7, 16, REFERENCES[:1]), {}


def _unet(comfy: Any) -> tuple[Any, Any, dict[str, Any]]:
    return (
        tiny.build("SD15", **SD15),
        tiny.conditioning(30, CONTEXT, 24, i2am_image_tokens=MARKS),
        {},
    )


def _with_sampling(name: str, *widgets: Any) -> Callable[[Any], tuple[Any, Any, dict[str, Any]]]:
    """The UNet with another parametrisation, by a stock node."""

    def made(comfy: Any) -> tuple[Any, Any, dict[str, Any]]:
        model, positive, options = _unet(comfy)
        (model,) = comfy.node(name)().patch(model, *widgets)
        return model, positive, options

    return made


def _inpainting(comfy: Any) -> tuple[Any, Any, dict[str, Any]]:
    """With the mask of the latent, as InpaintModelConditioning leaves it there."""
    model, positive = tiny.build("SD15", **SD15 | {"in_channels": 9}), _unet(comfy)[1]
    return model, positive, {"noise_mask": (tiny.latent(6, 1, 1, 11, 14) > 0).float()}


def _video(comfy: Any) -> tuple[Any, Any, dict[str, Any]]:
    import comfy.clip_vision

    clip: Any = comfy.clip_vision.Output()
    clip.penultimate_hidden_states = tiny.latent(63, 1, 257, 1280) * 2
    image = tiny.latent(64, 1, 16, 3, 7, 10)
    positive, _ = texts(clip_vision_output=clip, concat_latent_image=image)
    return wan("WAN21_I2V", model_type="i2v", in_dim=36), positive, {}


def _areas(comfy: Any) -> tuple[Any, Any, dict[str, Any]]:
    """A conditioning for each half of the picture."""
    model, positive, options = _flux(comfy)
    area = comfy.node("ConditioningSetArea")()
    halves = [
        area.append(positive, width=48, height=32, x=0, y=y, strength=1.0)[0] for y in (0, 32)
    ]
    return model, [*halves[0], *halves[1]], options


def _adapter(comfy: Any) -> tuple[Any, Any, dict[str, Any]]:
    """An IP-Adapter of sixteen tokens."""
    import adapter_pack

    tokens = {"cond": tiny.latent(50, 1, 16, 12), "uncond": tiny.latent(51, 1, 16, 12)}
    model = adapter_pack.apply(tiny.build("SD15", **SD15), SD15_PLACES, 0, weight=0.8, **tokens)
    return model, tiny.conditioning(30, TEXT, 24), {}


FAMILIES = {
    "Flux": (_flux, tiny.latent(70, 2, 16, 8, 6)),
    "SD 1.5": (_unet, tiny.latent(71, 2, 4, 11, 14)),
    "v-prediction": (
        _with_sampling("ModelSamplingDiscrete", "v_prediction", False),
        tiny.latent(71, 2, 4, 11, 14),
    ),
    "EDM": (
        _with_sampling("ModelSamplingContinuousEDM", "edm", 80.0, 0.002),
        tiny.latent(71, 1, 4, 11, 14),
    ),
    "SD 1.5 inpainting": (_inpainting, tiny.latent(71, 2, 4, 11, 14)),
    "Wan": (_video, START),
    "Flux, areas": (_areas, tiny.latent(70, 2, 16, 8, 6)),
    "SD 1.5, IP-Adapter": (_adapter, tiny.latent(71, 2, 4, *SIZE)),
}


def spied(model: Any, seen: list[Tensor]) -> Any:
    """The model, keeping what it is given: the latent, then its noise level, of each evaluation."""
    from comfy.patcher_extension import WrappersMP

    def keep(executor: Any, x: Tensor, t: Tensor, *args: Any, **kwargs: Any) -> Any:
        seen.extend((x.clone(), t.clone()))
        return executor(x, t, *args, **kwargs)

    spied = model.clone()
    spied.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "spy", keep)
    return spied


def probed(comfy: Any, model: Any, positive: Any, latent: dict[str, Any], **settings: Any) -> Any:
    """What the node records, and its fits."""
    plan = comfy.pack("i2am.recording").Plan(definitions="all")
    settings = {"levels": 2, "seed": SEED} | settings
    with torch.inference_mode():
        return comfy.pack("nodes.watch.probe").probe(model, positive, latent, plan, **settings)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("levels", [1, 3])
def test_each_level_is_a_step_of_a_sampler(comfy: Any, family: str, levels: int) -> None:
    """The same bits as KSampler Advanced starting there, for the model and in the maps."""
    make, latent = FAMILIES[family]
    model, positive, options = make(comfy)
    given: list[Tensor] = []
    samples = {"samples": latent, **options}
    record = probed(comfy, spied(model, given), positive, samples, levels=levels).record
    assert record.header.steps == tuple(range(levels))
    assert record.header.run.probed
    for level in range(levels):
        expected: list[Tensor] = []
        first = 2 * level + 1  # the middle of each of `levels` equal parts
        sampled = tiny.sample(
            arm_model(comfy, spied(model, expected), definitions="all"),
            *(positive, positive, latent),
            **{"steps": 2 * levels, "start_step": first, "last_step": first + 1, "seed": SEED},
            **options,
        )
        assert len(expected) == 2
        for one, other in zip(given[2 * level :], expected, strict=False):
            assert torch.equal(one, other)
        plain = recording(comfy, sampled)
        assert record.header.sigmas[level] == plain.header.sigmas[0]
        for name, array in plain.arrays.items():
            if name.endswith(".step_layer"):
                assert torch.equal(record.arrays[name][:, level], array[:, 0]), name
        if levels == 1:
            assert same_arrays(record.arrays, plain.arrays)


@pytest.mark.parametrize("family", ["Flux", "SD 1.5"])
def test_the_noisiest_level_of_a_schedule(comfy: Any, family: str) -> None:
    """There samplers scale the noise another way."""
    make, latent = FAMILIES[family]
    model, positive, _ = make(comfy)
    noising = comfy.pack("nodes.host.noising")
    given: list[Tensor] = []
    expected: list[Tensor] = []
    tiny.sample(spied(model, expected), positive, positive, latent, steps=1, seed=SEED)
    top = float(model.get_model_object("model_sampling").sigma_max)
    with torch.inference_mode():
        picture = noising.picture_of(model, {"samples": latent}, SEED)
        levels = torch.tensor([top, 0.0])
        noising.evaluate(spied(model, given), positive, picture, levels, SEED)
    assert all(torch.equal(one, other) for one, other in zip(given, expected, strict=True))


def test_schedules_with_few_levels(comfy: Any) -> None:
    """Levels fall and differ, in every schedule and at every count; few may be left."""
    from comfy.samplers import KSampler

    levels = comfy.pack("nodes.host.noising").noise_levels
    for scheduler in KSampler.SCHEDULERS:
        for model in (tiny.flux(), tiny.unet()):
            for count in (1, 4, 100):
                found = levels(model, scheduler, count)
                assert 2 <= len(found) <= count + 1
                assert bool((found.diff() < 0).all()), scheduler


def flux_probe(**inputs: Any) -> dict[str, Any]:
    """The tiny Flux, a reference, a picture of noise, and Probe a Picture as "probe"."""
    picture = given("a picture", {"samples": tiny.latent(72, 1, 16, 8, 6)})
    links = {"model": ["model", 0], "positive": ["positive", 0], "latent_image": ["picture", 0]}
    return flux_graph(picture=picture, probe=node("I2AM_Probe", **links | inputs))


class TestNode:
    def test_attribution(self, run_graph: Any) -> None:
        """Its maps are drawn like any other, its report says that it was probed, and at what."""
        graph = flux_probe(levels=3, seed=SEED)
        graph["map"] = node("I2AM_Map", attribution=["probe", 0])
        run = run_graph(graph, ["probe", "map"])
        assert run.ok, run.errors
        header = run.value("probe").recording.header
        assert (header.steps, header.run.seed, header.run.probed) == ((0, 1, 2), SEED, True)
        report = run.value("probe", 2)
        levels = ", ".join(f"{sigma:.3g}" for sigma in header.sigmas)
        assert (
            f"Probed, not generated: a finished picture with noise added, at sigma {levels}"
            in report
        )
        assert "Fit: " in report
        assert run.ui["probe"]["i2am"][0]["probed"]
        assert "sampler" not in run.executed

    def test_deterministic(self, comfy: Any) -> None:
        """The same bits for the same seed, others for another."""
        model, positive, _ = _flux(comfy)
        latent = {"samples": tiny.latent(72, 1, 16, 8, 6)}
        one, again, other = (
            probed(comfy, model, positive, latent, seed=seed) for seed in (1, 1, 2)
        )
        assert same(one.record, again.record)
        assert torch.equal(one.fits, again.fits)
        assert not same_arrays(one.record.arrays, other.record.arrays)

    def test_plan(self, run_graph: Any) -> None:
        """What Capture Attention offers: layers, definitions, points, no correspondence."""
        graph = flux_probe(
            layers="single", definitions="model", correspondence=False, points="0.5,0.5"
        )
        header = run_graph(graph, ["probe"]).value("probe").recording.header
        assert [layer.name for layer in header.layers] == ["single 0", "single 1"]
        assert [one.value for one in header.plan.recorded] == ["model"]
        assert not header.plan.correspondence
        assert len(header.plan.places) == 1

    def test_the_picture_itself(self, run_graph: Any) -> None:
        """Without any reference."""
        graph = changed(flux_probe(within="the picture itself"), "positive", references=0)
        record = run_graph(graph, ["probe"]).value("probe").recording
        assert record.header.plan.within
        assert record.header.references[0].grid == record.header.generated.grid

    def test_files(self, comfy: Any, run_graph: Any) -> None:
        """That it was probed is kept in files."""
        graph = flux_probe()
        graph["save"] = node("I2AM_Save", attribution=["probe", 0])
        name = run_graph(graph, ["save"]).value("save")
        loaded = run_graph({"load": node("I2AM_Load", file=name)}, ["load"]).value("load")
        assert loaded.recording.header.run.probed

    def test_inpainting_mask(self, run_graph: Any) -> None:
        """That of the latent is the mask over the result, as with Collect Attribution."""
        mask = torch.zeros(1, 1, 64, 48)
        mask[..., :24] = 1
        latent = {"samples": tiny.latent(72, 1, 16, 8, 6), "noise_mask": mask}
        graph = flux_probe()
        graph["picture"] = given("a masked picture", latent)
        run = run_graph(graph, ["probe"])
        assert run.ok, run.errors
        assert torch.equal(run.value("probe").mask, mask[:, 0])
        assert "Mask over the result: the inpainting mask of the latent" in run.value("probe", 2)


class TestBatch:
    def test_each_picture(self, comfy: Any) -> None:
        """Each picture of a batch is probed as if it were alone, with its own noise."""
        model, positive, _ = _flux(comfy)
        latent = tiny.latent(73, 3, 16, 8, 6)
        whole = probed(comfy, model, positive, {"samples": latent})
        for item in range(3):
            alone = {"samples": latent[item : item + 1], "batch_index": [item]}
            one = probed(comfy, model, positive, alone)
            assert torch.allclose(one.fits[:, 0], whole.fits[:, item], atol=1e-4)
            for name, array in one.record.arrays.items():
                assert torch.allclose(array[0], whole.record.arrays[name][item], rtol=1e-3), name

    @pytest.mark.parametrize("family", ["Flux", "SD 1.5", "SD 1.5 inpainting"])
    def test_fit_is_that_of_the_guess(self, comfy: Any, family: str) -> None:
        """Against its formula, where the mask lets the model change something."""
        make, latent = FAMILIES[family]
        model, positive, options = make(comfy)
        noising, guesses = comfy.pack("nodes.host.noising"), []
        with torch.inference_mode():
            given = noising.picture_of(model, {"samples": latent, **options}, SEED)
            fits = noising.evaluate(
                *(model, positive, given, noising.noise_levels(model, "simple", 2), SEED),
                callback=lambda _, guess, *__: guesses.append(guess.double()),
            )
            whole = model.model.process_latent_in(latent).double()
        assert fits.shape == (2, len(latent))
        changed = (
            options["noise_mask"].bool().expand_as(whole) if options else torch.ones_like(whole) > 0
        )
        for level, guess in enumerate(guesses):
            for item in range(len(latent)):
                where = changed[item]
                error = (guess[item] - whole[item])[where].square().sum()
                even = whole[item].mean((1, 2), keepdim=True)
                deviation = (whole[item] - even)[where].square().sum()
                assert float(fits[level, item]) == pytest.approx(
                    float(1 - error / deviation), rel=1e-4
                )

    def test_a_flat_picture(self, comfy: Any) -> None:
        """It can be probed too; its fit is a number."""
        model, positive, _ = _flux(comfy)
        found = probed(comfy, model, positive, {"samples": torch.ones(1, 16, 8, 6)})
        assert bool(found.fits.isfinite().all())
        assert found.readable()

    def test_fits(self, run_graph: Any) -> None:
        """One fit for each picture, and a line of the report."""
        graph = flux_probe()
        graph["picture"] = given("three pictures", {"samples": tiny.latent(73, 3, 16, 8, 6)})
        run = run_graph(graph, ["probe"])
        assert run.ok, run.errors
        assert len(run.outputs["probe"][1]) == 3
        assert "Fit of picture 3: " in run.value("probe", 2)


class TestNothingLeft:
    @pytest.fixture
    def untouched(self, comfy: Any, store: Any) -> Any:
        """After the test, the model samples as before, nothing hangs on it, nothing was filed."""
        model, positive, _ = _flux(comfy)
        latent = tiny.latent(72, 1, 16, 8, 6)
        before = tiny.sample(model, positive, positive, latent)
        yield model, positive, {"samples": latent}
        assert not model.wrappers
        assert not model.callbacks
        assert not model.attachments
        assert model.model_options == {"transformer_options": {}}
        assert len(store) == 0
        assert torch.equal(tiny.sample(model, positive, positive, latent), before)

    def test_success(self, comfy: Any, untouched: Any) -> None:
        assert probed(comfy, *untouched).readable()

    @pytest.mark.fault(
        "The model raises while Probe a Picture asks it",
        "Its error is shown as it is; nothing of ours is left on the model; asked again it is "
        "recorded in full",
        "The probe",
    )
    def test_error_in_the_model(
        self, comfy: Any, untouched: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        network, calls = untouched[0].model.diffusion_model, []
        working = network.forward_orig

        def failing(*args: Any, **kwargs: Any) -> Tensor:
            calls.append(1)
            if len(calls) > 1:
                raise ZeroDivisionError("the model fails")
            return working(*args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(network, "forward_orig", failing)
            with pytest.raises(ZeroDivisionError):
                probed(comfy, *untouched)
        network.__dict__.pop("forward_orig", None)
        assert probed(comfy, *untouched).record.header.steps == (0, 1)

    @pytest.mark.fault(
        "The user interrupts Probe a Picture",
        "It ends there; nothing of ours is left on the model; asked again it is recorded in full",
        "The probe",
    )
    def test_interrupt(self, comfy: Any, untouched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        from comfy import model_management, utils

        def pressed(*_: Any, **__: Any) -> None:
            model_management.interrupt_current_processing()
            model_management.throw_exception_if_processing_interrupted()

        with monkeypatch.context() as patched:
            patched.setattr(utils, "PROGRESS_BAR_HOOK", pressed)
            with pytest.raises(model_management.InterruptProcessingException):
                probed(comfy, *untouched)
        assert probed(comfy, *untouched).record.header.steps == (0, 1)

    def test_progress(self, comfy: Any, untouched: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        """From the first level to the last; ComfyUI leaves out what follows too quickly."""
        from comfy import utils

        seen: list[tuple[int, int]] = []
        monkeypatch.setattr(
            utils, "PROGRESS_BAR_HOOK", lambda value, total, *_, **__: seen.append((value, total))
        )
        probed(comfy, *untouched, levels=3)
        assert (seen[0], seen[-1]) == ((1, 3), (3, 3))


class TestBesideCapture:
    def test_a_watched_model(self, comfy: Any, run_graph: Any, store: Any) -> None:
        """The probe is its own: what Capture Attention asks for is not used, and files nothing."""
        graph = flux_probe(levels=2)
        plain = run_graph(graph, ["probe"]).value("probe").recording
        watched = changed(changed(graph, "probe", model=["capture", 0]), "capture", layers="0")
        found = run_graph(watched, ["probe"]).value("probe").recording
        assert same(found, plain)
        assert len(store) == 0

    def test_the_latent_of_a_watched_sampler(self, run_graph: Any) -> None:
        """Collect Attribution still finds the run that sampled it."""
        graph = changed(flux_probe(), "probe", latent_image=["sampler", 0])
        before = run_graph(graph, ["collect"]).value("collect").recording
        run = run_graph(graph, ["probe"])
        assert run.ok, run.errors
        after = run_graph(changed(graph, "collect", reference_fit="whole picture"), ["collect"])
        assert same(after.value("collect").recording, before)
        assert not after.value("collect").recording.header.run.probed

    def test_steering_is_told(self, run_graph: Any) -> None:
        graph = flux_probe()
        graph["steer"] = node("I2AM_Steer", model=["model", 0], strength=0.5)
        run = run_graph(changed(graph, "probe", model=["steer", 0]), ["probe"])
        assert "Steered while it was probed: " in run.value("probe", 2)


class TestErrors:
    @pytest.fixture
    def message(self, run_graph: Any) -> Callable[..., str]:
        def message(graph: dict[str, Any], latent: Any = None) -> str:
            if latent is not None:
                graph = graph | {"picture": given(f"latent {id(latent)}", {"samples": latent})}
            run = run_graph(graph, ["probe"])
            assert set(run.errors) == {"probe"}, run.errors
            return run.errors["probe"]

        return message

    @pytest.mark.bad_input(
        "Probe a Picture: a positive conditioning without a reference",
        "Nothing was recorded, and where the references belong",
    )
    def test_no_reference(self, message: Any) -> None:
        found = message(changed(flux_probe(), "positive", references=0))
        assert "Nothing was recorded: no attention of this Flux model held a reference" in found
        assert "Check that the references are in the positive conditioning of this node" in found
        assert "sampler" not in found

    @pytest.mark.bad_input(
        "Probe a Picture: a latent of another model's VAE",
        "Refused, with both numbers of channels",
    )
    def test_channels(self, message: Any) -> None:
        found = message(flux_probe(), tiny.latent(1, 1, 4, 8, 6))
        assert "This latent has 4 channels, but Flux models have 16" in found
        assert "VAE that belongs to the model" in found

    @pytest.mark.bad_input(
        "Probe a Picture: an empty latent", "Refused: there is no picture in it to probe"
    )
    def test_empty(self, message: Any) -> None:
        found = message(changed(flux_probe(), "probe", latent_image=["empty", 0]))
        assert "This latent is empty: there is no picture in it to probe" in found

    def test_not_numbers(self, message: Any) -> None:
        latent = tiny.latent(1, 1, 16, 8, 6)
        latent[0, 0, 0, 0] = float("nan")
        assert "holds values that are not numbers" in message(flux_probe(), latent)

    @pytest.mark.bad_input(
        "Probe a Picture: a video for a model of pictures", "Refused, with what the model takes"
    )
    def test_a_video(self, message: Any) -> None:
        found = message(flux_probe(), tiny.latent(1, 1, 16, 3, 8, 6))
        assert "This latent is a video, but Flux models take a picture" in found

    def test_picture_and_sound(self, message: Any) -> None:
        from comfy.nested_tensor import NestedTensor

        nested = NestedTensor([torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2)])
        assert "mixes picture and sound" in message(flux_probe(), nested)

    def test_a_model_that_is_not_read(self, message: Any) -> None:
        model = tiny.flux()
        model.model.__class__ = type("Chroma", (type(model.model),), {})
        graph = flux_probe()
        graph["model"] = given("chroma", model)
        assert "Chroma models have no reference to watch" in message(graph)

    @pytest.mark.parametrize(
        ("layers", "words"),
        [("77", "asks for layers that ran"), ("triple", "“triple”"), ("1-", "layers cannot be")],
    )
    def test_layers(self, message: Any, layers: str, words: str) -> None:
        assert words in message(flux_probe(layers=layers))

    def test_points(self, message: Any) -> None:
        """Refused before anything runs."""
        assert "points" in message(flux_probe(points="somewhere"))

    def test_another_number_of_pictures(self, message: Any) -> None:
        graph = flux_probe(image=["two", 0])
        graph["two"] = node("EmptyImage", width=48, height=64, batch_size=2, color=0)
        assert "holds 2 pictures, but 1 were probed" in message(graph)

    def test_a_compiled_model(self, message: Any) -> None:
        model = tiny.flux()
        compiled: Any = torch.compile(model.model.diffusion_model.double_blocks[0], backend="eager")
        model.add_object_patch("diffusion_model.double_blocks.0", compiled)
        graph = flux_probe()
        graph["model"] = given("compiled", model)
        assert "compiled code does not let anyone watch" in message(graph)


def unified(comfy: Any, attribution: Any, direction: str) -> Tensor:
    """The unified map of the demo's object: (batch, places)."""
    levels, kept = comfy.pack("i2am.maps.levels"), comfy.pack("i2am.recording")
    which = kept.Direction(direction)
    definition = kept.Definition("model")
    record = attribution.recording
    return levels.attribution_map(record, definition, which, reference=OBJECT - 1).values.flatten(1)


def correlation(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's, (batch, places) twice to (batch,)."""
    one, other = (x - x.mean(1, keepdim=True) for x in (one, other))
    return (one * other).sum(1) / (one.norm(dim=1) * other.norm(dim=1))


class TestDemo:
    """On held-out scenes: their pictures are sampled, decoded, encoded again and probed."""

    @pytest.fixture
    def graph(self) -> dict[str, Any]:
        scenes = make_scenes(4)
        probe = node(
            "I2AM_Probe",
            **{"model": ["model", 0], "positive": ["positive", 0], "latent_image": ["again", 0]},
            **{"seed": 2, "image": ["image", 0], "mask": ["hole", 0]},
            **{"references.reference_1": ["scene", 0], "references.reference_2": ["object", 0]},
        )
        others = given("i2am others' objects", scenes.reference.roll(1, 0))
        return demo_graph(
            scenes,
            again=node("VAEEncode", pixels=["image", 0], vae=["vae", 0]),
            probe=probe,
            other=others,
            other_latent=node("VAEEncode", pixels=["other", 0], vae=["vae", 0]),
            wrong=node(
                "ReferenceLatent", conditioning=["reference_1", 0], latent=["other_latent", 0]
            ),
            wrong_probe=changed({"one": probe}, "one", positive=["wrong", 0])["one"],
            picture=given("i2am true pictures", scenes.target.roll(1, 0)),
            picture_latent=node("VAEEncode", pixels=["picture", 0], vae=["vae", 0]),
            picture_probe=changed({"one": probe}, "one", latent_image=["picture_latent", 0])["one"],
        )

    @pytest.mark.parametrize("direction", ["reference to generated", "generated to reference"])
    def test_maps_are_those_of_the_run(
        self, comfy: Any, run_graph: Any, graph: dict[str, Any], direction: str
    ) -> None:
        run = run_graph(graph, ["probe", "collect"])
        assert run.ok, run.errors
        maps = [unified(comfy, run.value(name), direction) for name in ("probe", "collect")]
        assert float(correlation(*maps).min()) >= 0.9

    def test_wrong_ones_are_told_apart(self, run_graph: Any, graph: dict[str, Any]) -> None:
        """By the fit: another object as the reference, another picture."""
        run = run_graph(graph, ["probe", "wrong_probe", "picture_probe"])
        assert run.ok, run.errors
        right, reference, picture = (
            torch.tensor(run.outputs[name][1]) for name in ("probe", "wrong_probe", "picture_probe")
        )
        assert float(right.min()) > float(reference.max())
        assert float(right.min()) > float(picture.max())

    def test_the_node_to_connect_is_named(self, run_graph: Any, graph: dict[str, Any]) -> None:
        """A reference that was cropped on its way to the conditioning."""
        crop = node("ImageCrop", image=["object", 0], width=96, height=128, x=0, y=0)
        cropped = changed(graph | {"crop": crop}, "latent_2", pixels=["crop", 0])
        run = run_graph(cropped, ["probe"])
        assert set(run.errors) == {"probe"}
        assert (
            "Connect the picture that comes out of “ImageCrop” (node crop)" in run.errors["probe"]
        )
