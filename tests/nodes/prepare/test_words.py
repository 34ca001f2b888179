"""The word model through the real executor: stock nodes give it its words, and it reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from graph import given, node, sampler

from tools.demo.scenes import HELD_OUT_SEEDS
from tools.demo.words import COLOURS, SHAPES, WORDS, WordScenes, draw_word_scenes
from tools.tasks.words import find_things

SEED = HELD_OUT_SEEDS.start + 6000
PROMPTS = {  # of colours and shapes that were never trained on together
    "a red circle and a blue star": {("red", "circle"), ("blue", "star")},
    "picture of a green heart with the yellow moon": {("green", "heart"), ("yellow", "moon")},
    "turquoise ring, a purple square": {("turquoise", "ring"), ("purple", "square")},
}


@pytest.fixture(scope="module")
def scenes() -> WordScenes:
    """With a reference each; their own prompts are not used."""
    return draw_word_scenes(range(SEED + 1, SEED + 9, 2))


def word_graph(scenes: WordScenes, prompt: str, **nodes: dict[str, Any]) -> dict[str, Any]:
    """The graph from the model's help page."""
    graph = {
        "model": node("I2AM_LoadWords"),
        "vae": node("VAELoader", vae_name="i2am_demo_vae.safetensors"),
        "words": node("CLIPTextEncode", clip=["model", 1], text=prompt),
        "nothing": node("CLIPTextEncode", clip=["model", 1], text=""),
        "scene": given("scene to fill", scenes.scene),
        "boxes": given("boxes to fill", scenes.box_mask),
        "fill": node(
            "InpaintModelConditioning",
            positive=["words", 0],
            negative=["nothing", 0],
            vae=["vae", 0],
            pixels=["scene", 0],
            mask=["boxes", 0],
            noise_mask=False,
        ),
        "sampler": sampler(
            model="model",
            steps=20,
            cfg=2.0,
            positive=["fill", 0],
            negative=["fill", 1],
            latent_image=["fill", 2],
        ),
        "picture": node("VAEDecode", samples=["sampler", 0], vae=["vae", 0]),
    }
    return graph | nodes


def things_in(pictures: torch.Tensor, scenes: WordScenes) -> list[set[tuple[str, str]]]:
    return [
        {(one.colour, one.shape) for one in find_things(picture.numpy(), boxes)}
        for picture, boxes in zip(pictures.clamp(0, 1), scenes.boxes, strict=True)
    ]


@pytest.mark.usefixtures("tiny_nodes")
@pytest.mark.parametrize("prompt", PROMPTS)
def test_it_paints_what_the_words_say(run_graph: Any, scenes: WordScenes, prompt: str) -> None:
    run = run_graph(word_graph(scenes, prompt), ["picture"])
    assert run.ok, run.errors
    painted = things_in(run.value("picture"), scenes)
    assert sum(things == PROMPTS[prompt] for things in painted) >= 3, painted


@pytest.mark.usefixtures("tiny_nodes")
def test_a_reference_is_appended_to_the_words(run_graph: Any, scenes: WordScenes) -> None:
    """One box has what is named, the other what only the reference shows."""
    both = node(
        "I2AM_ReferenceTokens", image=["shown", 0], vae=["vae", 0], conditioning=["words", 0]
    )
    pictures = []
    for name, reference in (("own", scenes.reference), ("other", scenes.reference.roll(1, 0))):
        shown = given(f"shown {name}", reference)
        graph = word_graph(scenes, "a red circle", shown=shown, both=both)
        graph["fill"]["inputs"] |= {"positive": ["both", 0]}
        run = run_graph(graph, ["picture"])
        assert run.ok, run.errors
        ((context, options),) = run.value("both")
        assert context.shape == (4, 77 + 64, 80)
        assert options["i2am_image_tokens"] == [(77, 8, 8)]
        pictures.append(run.value("picture"))
        painted = things_in(pictures[-1], scenes)
        assert sum(("red", "circle") in things and len(things) == 2 for things in painted) >= 3
    changed = (pictures[0] - pictures[1]).square().mean((1, 2, 3)) > 0.005
    assert int(changed.sum()) >= 3  # of four


def test_the_clip_s_tokens_are_the_training_s(comfy: Any) -> None:
    """ComfyUI's text model gives what the encoder of the training gives, up to rounding."""
    words = comfy.pack("nodes.prepare.words")
    from tools.demo.train_words import TextEncoder

    weights = comfy.pack("nodes.prepare.demo").weights_of(words.WORD_MODEL)
    encoder = TextEncoder()
    encoder.load_state_dict(
        {name[5:]: value.float() for name, value in weights.items() if name.startswith("text.")}
    )
    _, clip = words.load_word_model(words.WORD_MODEL)
    prompts = ("", "a red circle and a blue star", "picture of the turquoise moon, a pink cross")
    with torch.no_grad():
        trained = encoder(prompts)
    for prompt, expected in zip(prompts, trained, strict=True):
        found = clip.encode_from_tokens(clip.tokenize(prompt))
        assert found.shape == (1, 77, 80)
        assert torch.allclose(found[0], expected, atol=1e-5)


def test_weights_move_one_token_and_words_none_before_them(comfy: Any) -> None:
    words = comfy.pack("nodes.prepare.words")
    _, clip = words.load_word_model(words.WORD_MODEL)
    plain, weighted, other = (
        clip.encode_from_tokens(clip.tokenize(text))[0]
        for text in ("a red circle", "a (red:1.5) circle", "a pink circle")
    )
    differs = [
        torch.nonzero((changed - plain).abs().amax(1) > 1e-5).flatten().tolist()
        for changed in (weighted, other)
    ]
    assert differs == [[2], [2, 3, 4]]  # behind "a": the word; and what comes after, to the end
    assert (plain[5:] == 0).all()


@pytest.mark.usefixtures("tiny_nodes")
def test_it_knows_its_words_and_no_others(run_graph: Any, scenes: WordScenes) -> None:
    for prompt in ("a red dinosaur", "a red Tyrannosaurus", "a (red:1.2) circle, blurry"):
        run = run_graph(word_graph(scenes, prompt), ["picture"])
        assert list(run.errors) == ["words"], run.errors
        assert "does not know" in run.errors["words"]
        assert all(word in run.errors["words"] for word in (*COLOURS, *SHAPES))
    assert "'blurry'" in run.errors["words"]


@pytest.mark.parametrize("word", WORDS)
def test_every_word_is_one_token(comfy: Any, word: str) -> None:
    clip = comfy.pack("nodes.prepare.words").load_word_model(
        comfy.pack("nodes.prepare.words").WORD_MODEL
    )[1]
    (tokens,) = clip.tokenize(word.upper())["l"]
    assert len(tokens) == 77
    assert [token for token, _ in tokens[2:]] == [49407] * 75


def test_another_text_encoder_is_refused(comfy: Any) -> None:
    (vae,) = comfy.node("VAELoader")().load_vae("i2am_demo_vae.safetensors")
    with pytest.raises(ValueError, match=r"width of 80.*768.*Load Word Model"):
        comfy.node("I2AM_ReferenceTokens").execute(
            torch.zeros(1, 128, 128, 3), vae, [[torch.zeros(1, 77, 768), {}]]
        )


def test_a_missing_file_is_told(
    comfy: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(
        comfy.pack("nodes.prepare.words"), "WORD_MODEL", tmp_path / "gone.safetensors"
    )
    with pytest.raises(ValueError, match="gone"):
        comfy.node("I2AM_LoadWords").execute()


def test_the_file_is_small(comfy: Any) -> None:
    assert comfy.pack("nodes.prepare.words").WORD_MODEL.stat().st_size <= 6e6
