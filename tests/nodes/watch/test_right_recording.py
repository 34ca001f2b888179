"""Every latent leads to the recording of the run that made it, whatever is cached.

The tests use ComfyUI's real executor, whose cache keeps the outputs of older prompts.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from graph import (
    attribution_map,
    capture,
    changed,
    collect,
    custom_sampler,
    flux_graph,
    node,
    same,
    sampler,
)

pytestmark = pytest.mark.usefixtures("tiny_nodes")

MASK = {"white": node("SolidMask", value=1.0, width=48, height=64)}


@pytest.fixture(autouse=True)
def fresh_store(use_store: Any) -> Any:
    """An empty store: no test finds another's recordings."""
    return use_store()


def recording(run: Any, name: str = "collect") -> Any:
    return run.value(name).recording


def again(graph: dict[str, Any]) -> dict[str, Any]:
    """The same graph with a mask, so that Collect must run again."""
    return changed(graph | MASK, "collect", mask=["white", 0])


class TestCache:
    def test_a_change_downstream(self, run_graph: Any) -> None:
        """Collect and Map run again on the sampler's cached latent and find its recording."""
        first = run_graph(flux_graph(), ["collect"])
        graph = again(flux_graph(map=attribution_map()))
        second = run_graph(graph)
        assert second.ok, second.errors
        assert "sampler" not in second.executed
        assert {"collect", "map"} <= set(second.executed)
        assert same(recording(second), recording(first))
        third = run_graph(changed(graph, "map", level="layer"))
        assert third.executed == ["map"]
        assert third.value("map", 1).shape == (4, 64, 48, 3)

    @pytest.mark.fault(
        "An old seed again: the latent comes from ComfyUI's cache",
        "It leads to its own recording, not to the latest",
        "Nothing",
    )
    def test_another_seed_and_back(self, run_graph: Any) -> None:
        """Back at an old seed, the latent comes from the cache and leads to its own recording."""
        graph = flux_graph()
        first = run_graph(graph, ["collect"])
        second = run_graph(changed(graph, "sampler", seed=2), ["collect"])
        assert "sampler" in second.executed
        assert "capture" not in second.executed
        assert not same(recording(second), recording(first))
        assert recording(second).header.run.seed == 2
        third = run_graph(again(graph), ["collect"])
        assert "sampler" not in third.executed
        assert "collect" in third.executed
        assert same(recording(third), recording(first))

    def test_the_same_prompt_again(self, run_graph: Any) -> None:
        """Nothing executes, and everything is still there, including what the page shows."""
        graph = flux_graph(map=attribution_map())
        first, second = run_graph(graph), run_graph(graph)
        assert second.executed == []
        assert same(recording(second), recording(first))
        assert second.ui["map"] == first.ui["map"]

    def test_nothing_cached(self, make_runner: Any) -> None:
        """Without a cache every node runs every time, and the recording is found."""
        run_graph = make_runner("NONE")
        graph = flux_graph(map=attribution_map())
        first, second = run_graph(graph), run_graph(graph)
        assert first.ok, first.errors
        assert second.ok, second.errors
        assert "sampler" in second.executed


class TestSeveral:
    @pytest.mark.fault(
        "Two samplers on one watched model",
        "Each latent leads to its own recording",
        "Nothing",
    )
    def test_two_samplers_on_one_model(self, run_graph: Any) -> None:
        """Two runs of one watched model in one prompt: each latent leads to its own."""
        graph = flux_graph(sampler2=sampler(seed=2), collect2=collect("sampler2"))
        run = run_graph(graph, ["collect", "collect2"])
        assert [recording(run, name).header.run.seed for name in ("collect", "collect2")] == [1, 2]
        alone = run_graph(changed(flux_graph(), "sampler", seed=3), ["collect"])
        assert not same(recording(run), recording(run, "collect2"))
        assert recording(alone).header.run.seed == 3

    def test_two_captures_of_one_latent(self, run_graph: Any) -> None:
        """Two settings, one seed: bit for bit the same latent, but two recordings."""
        graph = flux_graph(
            capture=capture(layers="0"),
            capture2=capture(layers="1-3"),
            sampler2=sampler("capture2"),
            collect2=collect("sampler2"),
        )
        run = run_graph(graph, ["collect", "collect2"])
        latents = [run.value(name)["samples"] for name in ("sampler", "sampler2")]
        assert torch.equal(*latents)
        layers = [len(recording(run, name).header.layers) for name in ("collect", "collect2")]
        assert layers == [1, 3]

    def test_a_setting_switched_back_and_forth(self, run_graph: Any) -> None:
        """Other layers and back, while all three give the same latent."""
        for layers, count in (("0", 1), ("", 4), ("0-1", 2)):
            run = run_graph(changed(flux_graph(), "capture", layers=layers), ["collect"])
            assert len(recording(run).header.layers) == count
        for layers, count in (("0", 1), ("", 4), ("0-1", 2)):
            graph = again(changed(flux_graph(), "capture", layers=layers))
            run = run_graph(graph, ["collect"])
            assert "sampler" not in run.executed
            assert "collect" in run.executed
            assert len(recording(run).header.layers) == count

    def test_capture_after_capture(self, run_graph: Any) -> None:
        """The last node on a wire counts, and still does after its settings change."""
        graph = flux_graph(first=capture(layers="0-1"), capture=capture("first", layers="2"))
        run = run_graph(graph, ["collect"])
        assert [layer.name for layer in recording(run).header.layers] == ["single 0"]
        other = run_graph(changed(graph, "capture", layers="3"), ["collect"])
        assert [layer.name for layer in recording(other).header.layers] == ["single 1"]
        back = run_graph(again(graph), ["collect"])
        assert "sampler" not in back.executed
        assert [layer.name for layer in recording(back).header.layers] == ["single 0"]

    def test_two_stages(self, run_graph: Any) -> None:
        """Each KSamplerAdvanced's latent leads to the steps of that node."""
        common = {"noise_seed": 1, "steps": 4, "cfg": 1.0, "sampler_name": "euler"}
        common |= {"scheduler": "simple", "positive": ["positive", 0], "negative": ["negative", 0]}
        graph = flux_graph(
            sampler=node(
                "KSamplerAdvanced",
                **{**common, "model": ["capture", 0], "latent_image": ["empty", 0]},
                **{"add_noise": "enable", "start_at_step": 0, "end_at_step": 1},
                return_with_leftover_noise="enable",
            ),
            sampler2=node(
                "KSamplerAdvanced",
                **{**common, "model": ["capture", 0], "latent_image": ["sampler", 0]},
                **{"add_noise": "disable", "start_at_step": 1, "end_at_step": 10000},
                return_with_leftover_noise="disable",
            ),
            collect2=collect("sampler2"),
        )
        run = run_graph(graph, ["collect", "collect2"])
        headers = [recording(run, name).header for name in ("collect", "collect2")]
        assert [header.steps for header in headers] == [(0,), (0, 1, 2)]
        sigmas = [sigma for header in headers for sigma in header.sigmas]
        assert sigmas == pytest.approx([1.0, 0.75, 0.5, 0.25], abs=0.01)
        assert headers[0].run.schedule[-1] == headers[1].run.schedule[0]

    def test_two_stages_with_captures_of_their_own(self, run_graph: Any) -> None:
        """If the stages have different settings, Collect uses the nearest one above it."""
        graph = flux_graph(
            capture=capture(layers="0"),
            capture2=capture(layers="1"),
            sampler2=sampler("capture2", latent_image=["sampler", 0], denoise=0.5),
            collect=collect("sampler2"),
        )
        first = run_graph(graph, ["collect"])
        other = run_graph(changed(graph, "capture2", layers="2"), ["collect"])
        back = run_graph(again(graph), ["collect"])
        assert "sampler2" not in back.executed
        names = [recording(run).header.layers[0].name for run in (first, other, back)]
        assert names == ["double 1", "single 0", "double 1"]

    def test_a_reference_that_was_sampled_itself(self, run_graph: Any) -> None:
        """Nodes upstream of Collect's pictures are not upstream of its latent."""
        graph = flux_graph(
            capture=capture(layers="0"),
            capture2=capture(layers="1"),
            sampler2=sampler("capture2", seed=2),
            made=node("Test_Picture", samples=["sampler2", 0]),
            collect=collect(**{"references.reference_1": ["made", 0]}),
        )
        run = run_graph(graph, ["collect"])
        run_graph(changed(graph, "capture", layers="1"), ["collect"])
        back = run_graph(changed(graph | MASK, "collect", mask=["white", 0]), ["collect"])
        for result in (run, back):
            assert recording(result).header.layers[0].name == "double 0"
            assert result.value("collect").references[0].shape == (1, 64, 48, 3)


class TestStore:
    def test_an_older_recording_is_found_in_its_file(
        self, run_graph: Any, use_store: Any, tmp_path: Path
    ) -> None:
        """Over the memory limit, the older one goes to a file and comes back bit for bit."""
        use_store(memory_bytes=1)
        first = run_graph(flux_graph(), ["collect"])
        run_graph(changed(flux_graph(), "sampler", seed=2), ["collect"])
        assert len(list(tmp_path.glob("*.safetensors"))) == 1
        back = run_graph(again(flux_graph()), ["collect"])
        assert "sampler" not in back.executed
        assert recording(back) is not recording(first)
        assert same(recording(back), recording(first))

    @pytest.mark.fault(
        "A recording was lost to newer ones",
        "Collect Attribution says so, instead of giving another's",
        "The oldest recordings, beyond 4 GiB of files",
    )
    def test_a_lost_recording_is_an_error(
        self, run_graph: Any, use_store: Any, tmp_path: Path
    ) -> None:
        """Over the file limit it is gone, and Collect says so instead of returning another one."""
        use_store(memory_bytes=1, file_bytes=1)
        run_graph(flux_graph(), ["collect"])
        run_graph(changed(flux_graph(), "sampler", seed=2), ["collect"])
        assert not list(tmp_path.iterdir())
        back = run_graph(again(flux_graph()), ["collect"])
        assert "No recording belongs to this latent" in back.errors["collect"]

    def test_a_lost_recording_of_other_settings_is_an_error(
        self, run_graph: Any, use_store: Any
    ) -> None:
        """A recording of the same latent with other settings is not used."""
        use_store(memory_bytes=1, file_bytes=1)
        run_graph(flux_graph(), ["collect"])
        run_graph(changed(flux_graph(), "capture", layers="0"), ["collect"])
        back = run_graph(again(flux_graph()), ["collect"])
        assert "No recording belongs to this latent" in back.errors["collect"]


class TestSamplers:
    def test_both_outputs_of_a_custom_sampler(self, run_graph: Any) -> None:
        """`output` and `denoised_output`, which differ halfway, lead to the same run."""
        graph = flux_graph(**custom_sampler(), collect2=collect(samples=["sampler", 1]))
        graph["half"] = node("SplitSigmas", sigmas=["sigmas", 0], step=2)
        graph = changed(graph, "sampler", sigmas=["half", 0])
        run = run_graph(graph, ["collect", "collect2"])
        assert run.ok, run.errors
        latents = [run.outputs["sampler"][slot][0]["samples"] for slot in (0, 1)]
        assert not torch.equal(*latents)
        assert same(recording(run), recording(run, "collect2"))
        assert recording(run).header.steps == (0, 1)

    def test_sampler_custom(self, run_graph: Any) -> None:
        """Also SamplerCustom, whose outputs are equal after the last step."""
        parts = custom_sampler()
        links = {"model": ["capture", 0], "positive": ["positive", 0], "negative": ["negative", 0]}
        links |= {name: parts["sampler"]["inputs"][name] for name in ("sampler", "sigmas")}
        custom = node("SamplerCustom", add_noise=True, noise_seed=1, cfg=1.0, **links)
        custom["inputs"]["latent_image"] = ["empty", 0]
        graph = flux_graph(**parts) | {"sampler": custom}
        run = run_graph(graph, ["collect"])
        assert recording(run).header.steps == (0, 1, 2)

    @pytest.mark.parametrize(
        ("name", "evaluations"),
        [
            ("euler", 3),
            ("euler_ancestral", 3),
            ("dpmpp_2m", 3),
            ("lcm", 3),
            ("ddim", 3),
            ("heun", 5),
            ("dpm_2", 5),
            ("dpmpp_2s_ancestral", 5),
            ("dpmpp_sde", 5),
            ("uni_pc", 3),
        ],
    )
    def test_steps(self, run_graph: Any, name: str, evaluations: int) -> None:
        """With every sampler, each step is recorded once and no evaluation is missed."""
        graph = changed(flux_graph(), "sampler", sampler_name=name)
        header = recording(run_graph(graph, ["collect"])).header
        assert header.steps == (0, 1, 2)
        assert (header.evaluations, header.expected_evaluations) == (evaluations, evaluations)
        assert all(sum(row[layer] for row in header.counts) == evaluations for layer in range(4))
        assert header.sigmas == pytest.approx(header.run.schedule[:-1], rel=2e-4)

    def test_batch_denoise_and_mask(self, run_graph: Any) -> None:
        """Three pictures, denoise 0.5 and a noise mask: shapes and steps are right."""
        graph = flux_graph(
            mask=node("SolidMask", value=1.0, width=24, height=32),
            masked=node("SetLatentNoiseMask", samples=["empty", 0], mask=["mask", 0]),
        )
        graph = changed(graph, "empty", batch_size=3)
        graph = changed(graph, "sampler", latent_image=["masked", 0], denoise=0.5, steps=2)
        found = recording(run_graph(graph, ["collect"]))
        assert found.header.run.batch == 3
        assert found.header.steps == (0, 1)
        assert found.header.sigmas[0] < 0.6
        maps = found.arrays["paper.r2g.0.step_layer"]
        assert maps.shape == (3, 2, 4, 4, 3)
        assert not torch.equal(maps[0], maps[1])


class TestPlan:
    def test_layers_and_steps_are_parts_of_the_whole(self, run_graph: Any) -> None:
        """Recording only some layers or steps gives exactly those of the full recording."""
        graph = changed(flux_graph(), "positive", references=2)
        whole = recording(run_graph(graph, ["collect"]))
        layers = recording(run_graph(changed(graph, "capture", layers="0,2"), ["collect"]))
        steps = recording(run_graph(changed(graph, "capture", steps="1"), ["collect"]))
        assert layers.header.layers == (whole.header.layers[0], whole.header.layers[2])
        assert layers.header.expected_layers == 2
        assert steps.header.steps == (1,)
        assert steps.header.sigmas == whole.header.sigmas[1:2]
        assert (steps.header.evaluations, steps.header.expected_evaluations) == (1, 1)
        for name, array in whole.arrays.items():
            if name.endswith("step_layer"):
                assert torch.equal(layers.arrays[name], array[:, :, [0, 2]])
                assert torch.equal(steps.arrays[name], array[:, [1]])
            if name.endswith("layer_head"):
                assert torch.equal(layers.arrays[name], array[:, [0, 2]])
                heads = steps.arrays[name].mean(2)
                of_step = whole.arrays[name.replace("layer_head", "step_layer")][:, 1]
                torch.testing.assert_close(heads, of_step)

    def test_correspondence_off(self, run_graph: Any) -> None:
        """Without correspondence, everything else is the same."""
        on = recording(run_graph(flux_graph(), ["collect"])).arrays
        graph = changed(flux_graph(), "capture", correspondence=False)
        off = recording(run_graph(graph, ["collect"])).arrays
        missing = on.keys() - off.keys()
        assert missing
        assert all(name.startswith("correspondence") for name in missing)
        assert all(torch.equal(on[name], array) for name, array in off.items())

    def test_the_unconditional_branch(self, run_graph: Any) -> None:
        """It has the negative conditioning's references; the positive one may have none."""
        graph = changed(flux_graph(), "capture", branch="unconditional")
        graph = changed(graph, "positive", references=0)
        graph = changed(changed(graph, "negative", references=2), "sampler", cfg=2.0)
        assert len(recording(run_graph(graph, ["collect"])).header.references) == 2
