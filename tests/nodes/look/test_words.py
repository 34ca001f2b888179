"""Word Attribution through ComfyUI's own executor: stock prompts, samplers and text encoders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import tiny
import tiny_encoders
import torch
from graph import REFERENCES, capture, changed, collect, filled, given, node, sampler
from tiny_unets import SD15

pytestmark = pytest.mark.usefixtures("tiny_nodes")

TEXT = "a red dog, a blue cat and a red ball"


def text(words: str, clip: str = "clip") -> dict[str, Any]:
    return node("CLIPTextEncode", clip=[clip, 0], text=words)


def graph(prompt: str = TEXT, **nodes: Any) -> dict[str, Any]:
    """A tiny SD 1.5 with a tiny CLIP: 96×112 pixels, no reference."""
    return {
        "model": given("unet", tiny.build("SD15", **SD15 | {"context_dim": 16})),
        "clip": given("clip", tiny_encoders.sd15()),
        "capture": capture(words=True),
        "positive": text(prompt),
        "negative": text(""),
        "empty": node("EmptyLatentImage", width=112, height=96, batch_size=2),
        "sampler": sampler(cfg=3.0, steps=6),
        "collect": collect(),
        "words": words(),
    } | nodes


def words(prompt: str = TEXT, **inputs: Any) -> dict[str, Any]:
    return filled("I2AM_Words", attribution=["collect", 0], clip=["clip", 0], text=prompt, **inputs)


def test_every_word(comfy: Any, run_graph: Any) -> None:
    """Each word has a map; maps of a text's tokens add up to all the attention there is."""
    run = run_graph(graph(), targets=["words"])
    assert run.ok, run.errors
    names = [word.text for word in run.value("words", 6).words]
    assert names == ["a", "red", "dog", "blue", "cat", "and", "ball"]
    overlay, heatmap, mask = (run.value("words", slot) for slot in range(3))
    assert overlay.shape[0] == heatmap.shape[0] == mask.shape[0] == 2 * 7
    assert mask.shape[1:] == (96, 112)
    shares = run.outputs["words"][4]
    recording = run.value("collect").recording
    maps = recording.arrays["words.0.map"]  # (batch, groups, tokens, h, w)
    assert maps.shape == (2, 4, 77, 12, 14)
    torch.testing.assert_close(maps.sum(2), torch.ones(2, 4, 12, 14))
    red = maps[:, :, [2, 10]].sum(2)  # start, a, red, dog, ",", a, blue, cat, and, a, red, ball
    steps = torch.tensor([2.0, 1, 2, 1]) / 6
    wanted = (red * steps[:, None, None]).sum(1).mean()
    assert shares[1] == pytest.approx(float(wanted), rel=1e-5)
    ranking = run.value("words", 5)
    assert "Share of the model's attention, over the whole result, the largest first:" in ranking
    assert "all other tokens of the prompt" in ranking
    # A mean over places, heads, layers and steps, in both arrays.
    by_layer = recording.arrays["words.0.share"]  # (batch, steps, layers, tokens)
    torch.testing.assert_close(
        by_layer.mean((1, 2)), (maps * steps[:, None, None, None]).sum(1).mean((-2, -1))
    )


def test_the_picture_is_the_same(run_graph: Any) -> None:
    prompt = graph()
    watched = run_graph(prompt, targets=["sampler"]).value("sampler")["samples"]
    bare = changed(prompt, "sampler", model=["model", 0])
    assert torch.equal(run_graph(bare, targets=["sampler"]).value("sampler")["samples"], watched)


def test_some_words(run_graph: Any) -> None:
    asked = graph(words=words(words="red, blue cat, red#2"))
    run = run_graph(asked, targets=["words"])
    assert run.ok, run.errors
    shares = run.outputs["words"][4]
    assert len(shares) == 3
    assert shares[2] < shares[0]  # one of two
    prompt = run.value("words", 6).words
    assert {word.text for word in prompt} >= {"red", "blue cat", "red#2", "dog"}


def test_time_groups(run_graph: Any) -> None:
    """Six steps form four groups; their means, weighted by their steps, are the mean of all."""
    whole = graph()
    run = run_graph(whole, targets=["words"])
    mean = run.outputs["words"][4]
    parts = []
    for group in (1, 2, 3, 4):
        one = run_graph(changed(whole, "words", time_group=group), targets=["words"])
        parts.append(torch.tensor(one.outputs["words"][4]))
    weights = torch.tensor([2.0, 1, 2, 1])[:, None] / 6
    torch.testing.assert_close((torch.stack(parts) * weights).sum(0), torch.tensor(mean))


def test_a_region(run_graph: Any) -> None:
    """Shares inside a region are means over the cells it covers."""
    mask = torch.zeros(1, 96, 112)
    mask[:, :, :56] = 1
    asked = graph(mask=given("mask", mask), words=words(region=["mask", 0]))
    run = run_graph(asked, targets=["words"])
    assert run.ok, run.errors
    maps = run.value("collect").recording.arrays["words.0.map"]
    steps = torch.tensor([2.0, 1, 2, 1]) / 6
    dog = (maps * steps[:, None, None, None]).sum(1)[:, 3, :, :7].mean()
    assert run.outputs["words"][4][2] == pytest.approx(float(dog), rel=1e-4)
    assert "× its average" in run.value("words", 5)
    empty = changed(asked, "words", region=["mask2", 0])
    empty["mask2"] = given("mask2", torch.zeros(1, 96, 112))
    assert "region is empty" in run_graph(empty, targets=["words"]).errors["words"]


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"text": "a red dog, a blue cat and a green ball"}, "not the text"),
        ({"text": TEXT + " " + "very " * 90}, "holds a prompt of 77 tokens; this text gives 154"),
        ({"words": "green"}, "does not hold “green”. Its words are: a, red, dog"),
        ({"time_group": 4}, ""),
    ],
)
def test_refusals(run_graph: Any, other: dict[str, Any], reason: str) -> None:
    run = run_graph(changed(graph(), "words", **other), targets=["words"])
    assert run.ok == (not reason)
    assert reason in run.errors.get("words", "")


def test_clip_skip_is_noticed(run_graph: Any) -> None:
    """The same text of a CLIP that stops a layer earlier."""
    skipped = graph(
        skip=node("CLIPSetLastLayer", clip=["clip", 0], stop_at_clip_layer=-2),
        positive=text(TEXT, "skip"),
    )
    assert "not the text" in run_graph(skipped, targets=["words"]).errors["words"]
    right = changed(skipped, "words", clip=["skip", 0])
    assert run_graph(right, targets=["words"]).ok


def test_without_words(run_graph: Any) -> None:
    """Off, which is the default, the reason says what to turn on."""
    off = graph(capture=capture())
    assert "no attention of this" in run_graph(off, targets=["words"]).errors["collect"]
    model = node("Test_UNet", seed=0)
    nodes: dict[str, Any] = {"model": model, "positive": marked(24), "negative": marked(24)}
    off = graph(capture=capture(), **nodes)
    run = run_graph(off, targets=["words"])
    assert "Turn on words in Capture Attention" in run.errors["words"]


def marked(dim: int) -> dict[str, Any]:
    """A text of which some tokens are those of a picture."""
    made = tiny.conditioning(30, 23, dim, i2am_image_tokens=[(5, 3, 4)])
    return given(f"marked {dim}", made)


def test_words_alone_have_no_reference(run_graph: Any) -> None:
    """Nodes that need a reference say so; reports and viewer do not mind."""
    some = graph(
        map=filled("I2AM_Map", attribution=["collect", 0]),
        influence=filled("I2AM_Influence", attribution=["collect", 0]),
        locate=filled("I2AM_Locate", attribution=["collect", 0]),
        point=filled("I2AM_Point", attribution=["collect", 0]),
        flow=filled("I2AM_Flow", attribution=["collect", 0]),
        mask=filled("I2AM_ToMask", attribution=["collect", 0]),
        part=filled("I2AM_TopPart", attribution=["collect", 0]),
        compare=filled("I2AM_Compare", attribution=["collect", 0], other=["collect", 0]),
        viewer=filled("I2AM_Viewer", attribution=["words", 6]),
        report=node("PreviewAny", source=["collect", 2]),
    )
    for name in ("map", "influence", "locate", "point", "flow", "mask", "part", "compare"):
        run = run_graph(some, targets=[name])
        assert "words alone: the model was given no reference" in run.errors[name], name
    run = run_graph(some, targets=["viewer", "report"])
    assert run.ok, run.errors
    assert "Words: one prompt of 77 tokens" in run.value("collect", 2)


def test_regional_prompts(comfy: Any, run_graph: Any) -> None:
    """Two prompts, each for a half of the picture: each has its words, there alone."""
    halves = graph(
        left=text("a red dog"),
        right=text("a blue cat"),
        at_left=node(
            "ConditioningSetAreaPercentage",
            **{"conditioning": ["left", 0], "width": 0.5, "height": 1.0},
            **{"x": 0.0, "y": 0.0, "strength": 1.0},
        ),
        at_right=node(
            "ConditioningSetAreaPercentage",
            **{"conditioning": ["right", 0], "width": 0.5, "height": 1.0},
            **{"x": 0.5, "y": 0.0, "strength": 1.0},
        ),
        positive=node(
            "ConditioningCombine", conditioning_1=["at_left", 0], conditioning_2=["at_right", 0]
        ),
        empty=node("EmptyLatentImage", width=128, height=64, batch_size=1),
        words=words("a blue cat"),
    )
    run = run_graph(halves, targets=["words"])
    assert run.ok, run.errors
    recording = run.value("collect").recording
    assert recording.header.prompts == (77, 77)
    place = comfy.pack("i2am.recording").find_prompt
    word = run.value("words", 6).words[0]
    assert word.prompt in (0, 1)
    own = recording.arrays[f"words.{word.prompt}.map"].sum(2)[0].mean(0)
    other = recording.arrays[f"words.{1 - word.prompt}.map"].sum(2)[0].mean(0)
    torch.testing.assert_close(own[:, 8:], torch.ones(8, 8))
    assert float(own[:, :8].max()) == 0
    torch.testing.assert_close(other, own.flip(-1))
    assert place is not None


def test_two_prompts_one_after_the_other(run_graph: Any) -> None:
    """ConditioningConcat: the words of each text are found in the long one."""
    both = graph(
        first=text("a red dog"),
        second=text("a blue cat"),
        positive=node(
            "ConditioningConcat", conditioning_to=["first", 0], conditioning_from=["second", 0]
        ),
        words=words("a blue cat"),
    )
    run = run_graph(both, targets=["words"])
    assert run.ok, run.errors
    cat = next(word for word in run.value("words", 6).words if word.text == "cat")
    assert cat.tokens == (77 + 3,)


def test_an_average_is_refused(run_graph: Any) -> None:
    mixed = graph(
        first=text(TEXT),
        second=text("a blue cat"),
        positive=node(
            "ConditioningAverage",
            **{"conditioning_to": ["first", 0], "conditioning_from": ["second", 0]},
            conditioning_to_strength=0.7,
        ),
    )
    assert "Prompts that were averaged" in run_graph(mixed, targets=["words"]).errors["words"]


def test_saved_and_loaded(comfy: Any, run_graph: Any, tmp_path: Any) -> None:
    """Words and their maps survive a file; a text can be asked for again."""
    run = run_graph(graph(), targets=["words"])
    files = comfy.pack("i2am.recording")
    attribution = run.value("words", 6)
    files.save_attribution(tmp_path / "words.safetensors", attribution)
    loaded = files.load_attribution(tmp_path / "words.safetensors")
    assert loaded.words == attribution.words
    execute = comfy.node("I2AM_Words").execute
    comfy.node("I2AM_Words").hidden = comfy.node("I2AM_Words").hidden
    clip = tiny_encoders.sd15()
    shares = execute(replace(loaded, words=()), clip, TEXT).args[4]
    assert shares == pytest.approx(run.outputs["words"][4], rel=2e-3)


def test_beside_references(comfy: Any, run_graph: Any) -> None:
    """Words and references of one softmax are ranked together: all of them make up the text's
    share and each reference's."""
    encoder = tiny_encoders.flux()
    both = {
        "model": node("Test_Flux", seed=0),
        "clip": given("t5", encoder),
        "capture": capture(words=True),
        "text": text(TEXT),
        "reference": given("reference", {"samples": REFERENCES[0]}),
        "positive": node("ReferenceLatent", conditioning=["text", 0], latent=["reference", 0]),
        "negative": text(""),
        "empty": node("EmptySD3LatentImage", width=48, height=64, batch_size=1),
        "sampler": sampler(),
        "collect": collect(),
        "words": words(),
    }
    run = run_graph(both, targets=["words"])
    assert run.ok, run.errors
    recording = run.value("collect").recording
    assert not recording.header.words_apart
    text_share = recording.arrays["share.step_layer"][..., 0]
    torch.testing.assert_close(recording.arrays["words.0.share"].sum(-1), text_share)
    ranking = run.value("words", 5)
    assert "  reference 1 " in ranking
    first = ranking.splitlines()[1]
    scores = comfy.pack("i2am.scores")
    ranked = scores.rank_sources(recording, run.value("words", 6).words)
    assert ranked.sources[0].name in first
    total = sum(float(one.inside.mean()) for one in (*ranked.sources, ranked.others))
    own = float(recording.arrays["share.step_layer"][..., 1].mean())
    assert total + own == pytest.approx(1, abs=1e-5)
