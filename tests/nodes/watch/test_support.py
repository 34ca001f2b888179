"""The support report: what helpers need to know, and nothing private."""

from __future__ import annotations

import platform
import sys
from dataclasses import replace
from typing import Any

import pytest
import tiny
import torch
from graph import Server, changed, flux_graph, given

from i2am import __version__
from i2am.errors import I2AMError, fault_of

pytestmark = pytest.mark.usefixtures("tiny_nodes")
PATH, PROMPT = "/home/ada/pictures/her cat.png", "portrait of Ada's cat"


def test_its_lines(run_graph: Any) -> None:
    run = run_graph(flux_graph(), ["collect"])
    (text,) = run.ui["collect"]["i2am_support"]
    import comfyui_version

    lines = text.splitlines()
    assert lines[0] == (
        f"ComfyUI-I2AM {__version__}, ComfyUI {comfyui_version.__version__}, "
        f"Python {platform.python_version()}, torch {torch.__version__}"
    )
    assert lines[1].startswith(f"System: {sys.platform}; device: cpu; memory: ")
    assert "; attention: attention_" in lines[1]
    assert lines[2] == (
        "Model: Flux (Flux), 1 × 4×3 cells, conditional branch; references: reference latent 3×3"
    )
    assert lines[3].startswith("Recorded 3 of 3 model evaluations in 3 steps, 4 of 4 layers")
    assert lines[4].startswith("Planned (exact): 3 of 3 steps")
    assert lines[5:] == ["Computed: small calls at once (12 calls)", "Warning: none"]


def test_missing_layers_are_a_warning(comfy: Any, run_graph: Any) -> None:
    record = run_graph(flux_graph(), ["collect"]).value("collect").recording
    header = replace(record.header, expected_layers=5, run=replace(record.header.run, steering="A"))
    lines = comfy.pack("i2am.display").support_lines(replace(record, header=header))
    assert "4 of 5 layers" in lines[1]
    assert lines[-2:] == [
        "Warning: Some layers were not recorded: another node replaces their attention.",
        "Warning: The model's attention was steered.",
    ]


@pytest.mark.parametrize("words", [PATH, PROMPT, f"cannot read '{PATH}' of {PROMPT!r}"])
def test_an_error_of_others_is_not_quoted(
    comfy: Any, server: Server, run_graph: Any, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    """The report gives its type and where it came from; its message may hold anything."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError(words)

    with monkeypatch.context() as patched:
        patched.setattr(comfy.pack("i2am.recording.call"), "attention_marginals", fail)
        run = run_graph(changed(flux_graph(), "sampler", seed=len(words)), ["collect"])
    assert words in run.errors["collect"], "the artist sees the whole message"
    ((event, told, client),) = [sent for sent in server.sent if sent[0] == "i2am.support"]
    assert (event, told["node"], client) == ("i2am.support", "collect", "page")
    assert words not in told["text"]
    for part in ("/", "ada", "cat", "Ada"):
        assert part not in told["text"].replace("attention_sub_quad", "")
    assert "Model: Flux (Flux), not recorded" in told["text"]
    assert "Failed: RuntimeError in test_support.py:" in told["text"]


def test_a_fault_of_the_node_itself(
    comfy: Any, server: Server, run_graph: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that was not raised on purpose, in a run that was recorded."""

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device", PATH)

    with monkeypatch.context() as patched:
        patched.setattr(comfy.pack("nodes.watch.pictures"), "reference_pictures", fail)
        run = run_graph(changed(flux_graph(), "sampler", seed=71), ["collect"])
    assert PATH in run.errors["collect"]
    text = server.sent[-1][1]["text"]
    assert "Failed: OSError in test_support.py:" in text
    assert PATH not in text
    assert "Recorded 3 of 3 model evaluations" in text


def test_our_own_words_are_quoted(server: Server, run_graph: Any) -> None:
    """For a latent that was not watched, and for a model that cannot be."""
    run = run_graph(changed(flux_graph(), "sampler", model=["model", 0], seed=72), ["collect"])
    assert not run.ok
    assert "Failed: No recording belongs to this latent" in server.sent[-1][1]["text"]

    model = tiny.flux()
    model.model.__class__ = type("Chroma", (type(model.model),), {})
    run = run_graph(flux_graph(model=given("chroma", model)), ["collect"])
    assert not run.ok
    (_, told, _) = server.sent[-1]
    assert told["node"] == "capture"
    assert "Model: Chroma" in told["text"]
    assert "Failed: " in told["text"]
    assert "have no reference to watch" in told["text"]


def test_without_a_page(run_graph: Any) -> None:
    """A prompt from the API has no page: the error is the same."""
    run = run_graph(changed(flux_graph(), "sampler", model=["model", 0], seed=73), ["collect"])
    assert "No recording belongs" in run.errors["collect"]


def test_fault_of() -> None:
    assert fault_of(I2AMError("text")) == "I2AMError"
    with pytest.raises(KeyError) as caught:
        raise KeyError(PATH)
    assert fault_of(caught.value).startswith("KeyError in test_support.py:")
