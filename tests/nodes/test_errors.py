"""Errors are shown on the node where they can be fixed, in actionable words."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from graph import (
    REFERENCES,
    attribution_map,
    changed,
    collect,
    filled,
    flux_graph,
    given,
    imacs,
    node,
)

pytestmark = pytest.mark.usefixtures("tiny_nodes")

PICTURE = "i2am test picture"


def picture(width: int = 48, height: int = 64, batch: int = 1) -> dict[str, Any]:
    """A plain picture."""
    return node("EmptyImage", width=width, height=height, batch_size=batch, color=0)


def square(value: float = 1.0) -> Any:
    """A mask over the result with a square in it."""
    mask = torch.zeros(1, 64, 48)
    mask[:, 16:32, 16:32] = value
    return mask


@pytest.fixture
def error_of(run_graph: Any) -> Callable[..., str]:
    """The message of the one failing node; `target` is the node to compute."""

    def error_of(graph: dict[str, Any], failing: str, target: str = "collect") -> str:
        run = run_graph(graph, [target])
        assert set(run.errors) == {failing}, run.errors
        return run.errors[failing]

    return error_of


class TestCapture:
    @pytest.mark.bad_input(
        "Capture Attention: a model it does not know",
        "Said before a step is sampled, with the models it knows",
    )
    def test_unknown_architecture(self, error_of: Any) -> None:
        """Refused before minutes are spent, with what is known."""

        class Unheard(type(tiny.flux().model).__mro__[1]):  # a BaseModel
            def __init__(self) -> None:
                torch.nn.Module.__init__(self)
                self.diffusion_model = torch.nn.Linear(1, 1)

        from comfy.model_patcher import ModelPatcher

        cpu = torch.device("cpu")
        model = given("unheard", ModelPatcher(Unheard(), load_device=cpu, offload_device=cpu))
        message = error_of(flux_graph(model=model), "capture")
        assert "cannot read “Unheard” models yet" in message
        assert "It knows: Flux" in message
        assert "Remove Capture Attention from the graph" in message

    @pytest.mark.bad_input(
        "Capture Attention: a model that ignores references",
        "Said before a step is sampled, instead of an empty map",
    )
    def test_chroma(self, error_of: Any) -> None:
        """It derives from Flux and ignores references: a message says so, not an empty map."""
        model = tiny.flux()
        chroma = type("Chroma", (type(model.model),), {})
        model.model.__class__ = chroma
        message = error_of(flux_graph(model=given("chroma", model)), "capture")
        assert "Chroma models have no reference to watch" in message

    @pytest.mark.parametrize(
        ("widget", "text", "words"),
        [
            ("layers", "1-", "layers cannot be read: found “1-” in “1-”"),
            ("steps", "first", "steps cannot be read: found “first”"),
            ("layers", "7-3", "layers runs backwards: “7-3”"),
        ],
    )
    def test_ranges(self, error_of: Any, widget: str, text: str, words: str) -> None:
        message = error_of(changed(flux_graph(), "capture", **{widget: text}), "capture")
        assert words in message


class TestCollect:
    @pytest.mark.bad_input(
        "Collect Attribution: a latent that was never watched",
        "No recording belongs to this latent, and how to get one",
    )
    def test_no_capture(self, error_of: Any) -> None:
        graph = changed(flux_graph(), "sampler", model=["model", 0], seed=901)
        message = error_of(graph, "collect")
        assert "No recording belongs to this latent" in message
        assert "put Capture Attention before the sampler" in message

    def test_no_sampler(self, error_of: Any) -> None:
        message = error_of(changed(flux_graph(), "collect", samples=["empty", 0]), "collect")
        assert "straight from a sampler" in message

    @pytest.mark.bad_input(
        "Collect Attribution: a latent that was changed after the sampler",
        "Refused: connect the sampler's own latent",
    )
    def test_changed_after_the_sampler(self, error_of: Any) -> None:
        upscale = node(
            "LatentUpscale",
            **{"samples": ["sampler", 0], "upscale_method": "nearest-exact"},
            **{"width": 128, "height": 128, "crop": "disabled"},
        )
        graph = flux_graph(upscale=upscale, collect=collect("upscale"))
        assert "connect the sampler's own LATENT" in error_of(graph, "collect")

    @pytest.mark.bad_input(
        "A model that was given no reference",
        "The picture is made; Collect Attribution names what is missing, and where it goes",
    )
    def test_no_reference(self, run_graph: Any, error_of: Any) -> None:
        """Flux without ReferenceLatent: the picture is made; the message says what is missing."""
        graph = changed(flux_graph(), "positive", references=0)
        message = error_of(graph, "collect")
        assert "Nothing was recorded" in message
        assert "reference latent" in message
        assert "positive conditioning" in message
        assert run_graph(graph, ["sampler"]).ok

    def test_no_negative_pass(self, error_of: Any) -> None:
        """Watching the unconditional branch when cfg 1 never runs it."""
        graph = changed(flux_graph(), "capture", branch="unconditional")
        message = error_of(graph, "collect")
        assert "negative conditioning" in message
        assert "cfg" in message

    @pytest.mark.parametrize("plan", [{"steps": "8-9"}, {"layers": "77"}])
    def test_nothing_asked_for_ran(self, error_of: Any, plan: dict[str, str]) -> None:
        message = error_of(changed(flux_graph(), "capture", **plan), "collect")
        assert "asks for steps and layers that ran" in message

    @pytest.mark.bad_input(
        "Combined conditionings with different references",
        "The picture is made; no map mixes them",
    )
    def test_other_references_in_a_combination(self, error_of: Any) -> None:
        """Two positive conditionings with different references: no single set fits the run."""
        graph = flux_graph(
            other=node("Test_Conditioning", seed=30, references=2, dim=16),
            both=node(
                "ConditioningCombine", conditioning_1=["positive", 0], conditioning_2=["other", 0]
            ),
        )
        message = error_of(changed(graph, "sampler", positive=["both", 0]), "collect")
        assert "references changed while sampling" in message
        assert "Give all of them the same ones" in message

    def test_a_conditioning_without_references_in_a_combination(self, run_graph: Any) -> None:
        """There is nothing to watch in it, and it does not interfere."""
        graph = flux_graph(
            both=node(
                "ConditioningCombine",
                conditioning_1=["positive", 0],
                conditioning_2=["negative", 0],
            ),
        )
        run = run_graph(changed(graph, "sampler", positive=["both", 0]), ["collect"])
        assert run.ok, run.errors
        assert len(run.value("collect").recording.header.references) == 1

    @pytest.mark.bad_input(
        "Collect Attribution: more reference pictures than the model was given",
        "Refused, with both numbers",
    )
    def test_too_many_reference_pictures(self, error_of: Any) -> None:
        links = {f"references.reference_{n}": ["one", 0] for n in (1, 2)}
        graph = flux_graph(one=picture(), collect=collect(**links))
        message = error_of(graph, "collect")
        assert "2 reference pictures are connected, but the model was given 1" in message

    @pytest.mark.bad_input(
        "Collect Attribution: a batch of another size for one reference",
        "Refused: one picture for each reference",
    )
    def test_a_batch_as_reference(self, error_of: Any) -> None:
        links = {"references.reference_1": ["three", 0]}
        graph = flux_graph(three=picture(batch=3), collect=collect(**links))
        assert "Connect one picture for each reference" in error_of(graph, "collect")

    @pytest.mark.bad_input(
        "Collect Attribution: more pictures than were sampled",
        "Refused, with both numbers",
    )
    def test_another_batch_of_pictures(self, error_of: Any) -> None:
        graph = flux_graph(two=picture(batch=2), collect=collect(image=["two", 0]))
        message = error_of(graph, "collect")
        assert "holds 2 pictures, but 1 were sampled" in message

    @pytest.mark.bad_input(
        "A latent that mixes picture and sound",
        "Refused: it cannot be read",
    )
    def test_picture_and_sound(self, error_of: Any) -> None:
        from comfy.nested_tensor import NestedTensor

        nested = {"samples": NestedTensor([torch.zeros(1, 4, 2, 2), torch.zeros(1, 4, 2)])}
        graph = flux_graph(nested=given("nested", nested), collect=collect("nested"))
        assert "picture and sound" in error_of(graph, "collect")


class TestMap:
    @pytest.mark.parametrize(
        ("inputs", "words"),
        [
            ({"reference": 2}, "Reference 2 does not exist: the model was given 1"),
            ({"layers": "4"}, "layers asks for “4”, but there are only 0 to 3"),
            ({"steps": "a"}, "steps cannot be read: found “a”"),
            ({"heads": "2-9"}, "heads asks for “2-9”, but there are only 0 to 1"),
            ({"heads": "0", "steps": "1"}, "Heads and steps cannot be picked together"),
            ({"heads": "0", "level": "time"}, "Heads and steps cannot be picked together"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
    )
    def test_widgets(self, error_of: Any, inputs: dict[str, Any], words: str) -> None:
        assert words in error_of(flux_graph(map=attribution_map(**inputs)), "map", "map")


class TestImacs:
    def test_no_mask(self, error_of: Any) -> None:
        message = error_of(flux_graph(imacs=imacs()), "imacs", "imacs")
        assert "none is connected" in message
        assert "generated_mask" in message

    def test_reference_that_is_not_there(self, error_of: Any) -> None:
        graph = flux_graph(
            mask=given("square", square()), imacs=imacs(reference=3, generated_mask=["mask", 0])
        )
        assert "Reference 3 does not exist" in error_of(graph, "imacs", "imacs")

    @pytest.mark.parametrize(
        ("name", "mask", "words"),
        [
            ("size", torch.ones(1, 48, 64), "is 64×48 (width × height), but"),
            ("empty", torch.zeros(1, 64, 48), "is empty: no pixel is at 0.5 or above"),
            ("full", torch.ones(1, 64, 48), "is full: all pixels are"),
            ("grey", square(0.4), "is empty"),
            ("batch", square().repeat(2, 1, 1), "is a batch of 2, but there are 1 maps"),
            ("nan", square(math.nan), "is not a number in 256 of its 3072 pixels"),
        ],
    )
    def test_masks(self, error_of: Any, name: str, mask: torch.Tensor, words: str) -> None:
        """Over the result, connected here or given to Collect: the message names the mask.

        A mask that can never fit its picture is refused by the node it is connected to.
        """
        graph = flux_graph(mask=given(name, mask), imacs=imacs(generated_mask=["mask", 0]))
        message = error_of(graph, "imacs", "imacs")
        assert "generated mask" in message
        assert words in message
        graph = flux_graph(mask=given(name, mask), imacs=imacs(), collect=collect(mask=["mask", 0]))
        failing = "collect" if name in ("size", "batch", "nan") else "imacs"
        assert words in error_of(graph, failing, "imacs")

    def test_mask_over_the_reference(self, error_of: Any) -> None:
        """Checked against the reference's own size: here 6×5 of the latent, without a picture."""
        graph = flux_graph(mask=given("square", square()), imacs=imacs(reference_mask=["mask", 0]))
        message = error_of(graph, "imacs", "imacs")
        assert "reference mask is 48×64" in message
        height, width = (8 * side for side in REFERENCES[0].shape[-2:])
        assert f"{width}×{height}" in message


class TestLoad:
    @pytest.fixture
    def saved(self, comfy: Any, run_graph: Any) -> Path:
        """A file of Save Attribution."""
        graph = flux_graph(save=filled("I2AM_Save", attribution=["collect", 0]))
        run = run_graph(graph)
        assert run.ok, run.errors
        return Path(comfy.folder_paths.get_output_directory()) / run.value("save")

    def test_what_was_saved_is_loaded(self, run_graph: Any, comfy: Any, saved: Path) -> None:
        """From Save to Load to Map and IMACS, without a sampler."""
        root = comfy.folder_paths.get_output_directory()
        graph = {
            "collect": node("I2AM_Load", file=saved.relative_to(root).as_posix()),
            "map": attribution_map(),
            "mask": given("square", square()),
            "imacs": imacs(generated_mask=["mask", 0]),
        }
        run = run_graph(graph)
        assert run.ok, run.errors
        assert run.value("map").shape == (1, 64, 48, 3)
        assert len(run.outputs["imacs"][0]) == 1

    @pytest.mark.bad_input(
        "Load Attribution: a name with “..”, an absolute one, an empty one, one with a null byte",
        "Refused before anything runs: there is no such file in the output folder",
    )
    @pytest.mark.parametrize(
        "file",
        ["../secret.safetensors", "/etc/passwd", "no.safetensors", "", "a\x00.safetensors", "."],
    )
    def test_outside_or_missing(self, comfy: Any, error_of: Any, file: str) -> None:
        """Names that lead out of the output folder do not resolve, even where a file exists."""
        (comfy.base / "secret.safetensors").write_bytes(b"secret")
        message = error_of({"collect": node("I2AM_Load", file=file)}, "collect")
        assert "There is no “" in message
        assert "in the output folder" in message

    @pytest.mark.bad_input(
        "Load Attribution: a link in the output folder that leads out of it",
        "Refused before anything runs: there is no such file in the output folder",
    )
    def test_a_link_out_of_the_folder(self, comfy: Any, error_of: Any) -> None:
        secret = comfy.base / "secret.safetensors"
        secret.write_bytes(b"secret")
        link = Path(comfy.folder_paths.get_output_directory()) / "link.safetensors"
        link.parent.mkdir(parents=True, exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(secret)
        message = error_of({"collect": node("I2AM_Load", file="link.safetensors")}, "collect")
        assert "There is no “link.safetensors”" in message

    @pytest.mark.parametrize("kind", ["truncated", "not ours", "garbage", "folder"])
    def test_unreadable(self, comfy: Any, error_of: Any, saved: Path, kind: str) -> None:
        from safetensors.torch import save_file

        path = saved.with_name(f"{kind}.safetensors")
        if kind == "truncated":
            path.write_bytes(saved.read_bytes()[:-10])
        elif kind == "not ours":
            save_file({"weight": torch.zeros(2)}, path)
        elif kind == "garbage":
            path.write_bytes(b"garbage" * 100)
        else:
            path.mkdir(exist_ok=True)
        file = path.relative_to(comfy.folder_paths.get_output_directory()).as_posix()
        message = error_of({"collect": node("I2AM_Load", file=file)}, "collect")
        words = "There is no" if kind == "folder" else "Choose a file written by Save Attribution"
        assert words in message

    @pytest.mark.bad_input(
        "Load Attribution: a name of 300 or 100,000 characters, of half a letter, a number, a pipe",
        "Refused before anything runs: there is no such file in the output folder",
    )
    @pytest.mark.parametrize(
        "file",
        ["x" * 300, "x/" * 50_000, "\ud800", 5, "pipe"],
        ids=["long", "deep", "half", "number", "pipe"],
    )
    def test_no_names(self, comfy: Any, error_of: Any, file: Any) -> None:
        if file == "pipe":
            pipe = Path(comfy.folder_paths.get_output_directory()) / "pipe.safetensors"
            pipe.parent.mkdir(parents=True, exist_ok=True)
            if not pipe.exists():
                os.mkfifo(pipe)
        name = f"{file}.safetensors" if isinstance(file, str) else file
        message = error_of({"collect": node("I2AM_Load", file=name)}, "collect")
        assert "There is no “" in message
        assert len(message) < 400


class TestSave:
    @pytest.fixture
    def tree(self, comfy: Any) -> Callable[[], list[Path]]:
        """All files in ComfyUI's folder and in its parent."""
        return lambda: sorted(path for path in comfy.base.parent.rglob("*") if path.is_file())

    @pytest.mark.bad_input(
        "Save Attribution: a name with “..”, an absolute one, one through a link, a null byte, one "
        "of 300 characters, of half a letter, with the name of a file as its folder",
        "The node says what is wrong with the name; no file is written anywhere",
    )
    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("../../out", "no name below the output folder"),
            ("i2am/../../out", "no name below the output folder"),
            ("/tmp/out", "no name below the output folder"),
            ("link/out", "no name below the output folder"),
            ("link/sub/out", "no name below the output folder"),
            ("nu\0ll/out", "no name below the output folder"),
            ("nu\0ll", "no name below the output folder"),
            ("x" * 300, "could not be saved"),
            ("x" * 300 + "/out", "could not be saved"),
            ("\ud800", "no name below the output folder"),
            ("\ud800/out", "no name below the output folder"),
            ("a file/out", "could not be saved"),
        ],
    )
    def test_names(
        self, comfy: Any, run_graph: Any, tree: Any, tmp_path: Path, name: str, words: str
    ) -> None:
        output = Path(comfy.folder_paths.get_output_directory())
        output.mkdir(parents=True, exist_ok=True)
        (output / "a file").touch()
        link = output / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(tmp_path, target_is_directory=True)
        before = tree()
        save = filled("I2AM_Save", attribution=["collect", 0], filename_prefix=name)
        run = run_graph(flux_graph(save=save))
        assert set(run.errors) == {"save"}
        assert words in run.errors["save"]
        assert str(comfy.base) not in run.errors["save"]
        assert tree() == before
        assert not list(tmp_path.iterdir())

    @pytest.mark.fault(
        "The disk is full while Save Attribution writes",
        "The node says so; no partial file is left; run again, it is saved from what is cached",
        "Nothing",
    )
    def test_full_disk(
        self, comfy: Any, run_graph: Any, tree: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        working, before = Path.write_bytes, tree()

        def half(path: Path, content: bytes) -> int:
            working(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, "No space left on device")

        save = filled("I2AM_Save", attribution=["collect", 0], filename_prefix="full/one")
        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_bytes", half)
            run = run_graph(flux_graph(save=save))
        assert "could not be saved: No space left on device" in run.errors["save"]
        assert tree() == before
        again = run_graph(flux_graph(save=save))
        assert again.ok, again.errors
        assert "sampler" not in again.executed
        (Path(comfy.folder_paths.get_output_directory()) / again.value("save")).unlink()
