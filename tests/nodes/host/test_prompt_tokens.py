"""Words and their tokens, for ComfyUI's own tokenizers and text encoders."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import tiny_encoders
import torch

ENCODERS = {
    "SD 1.5": tiny_encoders.sd15,
    "SDXL": tiny_encoders.sdxl,
    "SD3": tiny_encoders.sd3,
    "Flux": tiny_encoders.flux,
    "HiDream": tiny_encoders.hidream,
    "Qwen-Image": tiny_encoders.qwen_image,
    "HunyuanVideo": tiny_encoders.hunyuan_video,
    "AuraFlow": tiny_encoders.aura_flow,
}
TEXT = "A photograph of a (red:1.3) dog, and a blue dog's collar"


def encoded(comfy: Any, clip: Any, text: str) -> Any:
    return comfy.pack("nodes.host.prompt_tokens").encode_prompt(clip, text)


@pytest.mark.parametrize("name", ENCODERS)
def test_words(comfy: Any, name: str) -> None:
    clip = ENCODERS[name]()
    found = encoded(comfy, clip, TEXT)
    names = [word.text for word in found.words()]
    assert names[:4] == ["a", "photograph", "of", "red"]
    assert {"blue", "and", "collar"} <= set(names)
    output = clip.encode_from_tokens(clip.tokenize(TEXT), return_pooled=True, return_dict=True)
    rows = output["cond"].shape[1]
    if "conditioning_llama3" in output:
        rows += output["conditioning_llama3"].shape[-2]
    assert found.encoding.shape == (1, rows, 16)
    # Encoders one after the other: a word has tokens of each.
    assert len(found.lines) == (2 if name in ("SDXL", "HiDream") else 3 if name == "SD3" else 1)
    tokens = found.word("photograph").tokens
    assert (max(tokens) - min(tokens) > 20) == (name in ("SD3", "HiDream"))


@pytest.mark.parametrize("name", ENCODERS)
def test_a_words_tokens_are_where_its_encoding_changes(comfy: Any, name: str) -> None:
    """Another word of the same length: the first row that differs is the word's first token."""
    clip = ENCODERS[name]()
    first, second = (
        encoded(comfy, clip, "a big dog on grass"),
        encoded(comfy, clip, "a big cat on grass"),
    )
    assert first.word("dog").tokens == second.word("cat").tokens
    if name in ("SD 1.5", "SDXL", "Qwen-Image", "HunyuanVideo"):  # each token sees those before it
        changed = (first.encoding != second.encoding).any(-1)[0].nonzero().flatten()
        assert int(changed[0]) == first.word("dog").tokens[0]


def test_weights_and_repetitions(comfy: Any) -> None:
    found = encoded(comfy, tiny_encoders.sd15(), "a dog and a (dog:1.4), no cat")
    # start, a, dog, and, a, dog, ",", no, cat
    assert found.word("dog").tokens == (2, 5)
    assert found.word("dog#2").tokens == (5,)
    assert found.word("dog#2").weight == pytest.approx(1.4)
    assert found.word("Dog #1").weight == 1.0
    assert found.word("no cat").tokens == (7, 8)


def test_pieces_of_a_word_together(comfy: Any) -> None:
    found = encoded(comfy, tiny_encoders.sd15(), "a xylographically red dog")
    tokens = found.word("xylographically").tokens
    assert len(tokens) > 1
    assert tokens == tuple(range(2, 2 + len(tokens)))
    assert found.word("red").tokens == (2 + len(tokens),)


def test_no_part_of_a_word(comfy: Any) -> None:
    ours = comfy.pack("i2am.errors").I2AMError
    found = encoded(comfy, tiny_encoders.sd15(), "a catalogue of dogs")
    with pytest.raises(ours, match=r"does not hold “cat”\. Its words are: a, catalogue, of, dogs"):
        found.word("cat")


def test_a_long_prompt(comfy: Any) -> None:
    """CLIP reads 75 tokens at once: a word in the second part is 77 + its place there."""
    text = " ".join(["very"] * 80) + " red dog"
    found = encoded(comfy, tiny_encoders.sd15(), text)
    assert found.encoding.shape[1] == 154
    assert found.word("red").tokens == (77 + 1 + 5,)


@pytest.mark.parametrize("name", ["Qwen-Image"])
def test_other_scripts(comfy: Any, name: str) -> None:
    """Without spaces between words, whatever the tokenizer makes of them can be asked for."""
    found = encoded(comfy, ENCODERS[name](), "一个红色的苹果")
    assert found.word("红色").tokens
    assert not set(found.word("红色").tokens) & set(found.word("苹果").tokens)
    assert "".join(word.text for word in found.words()) == "一个红色的苹果"


def test_textual_inversions(comfy: Any, tmp_path: Any) -> None:
    """Their tokens are one word; those after them are counted on."""
    torch.save({"emb_params": torch.randn(3, 16)}, tmp_path / "mine.pt")
    clip = tiny_encoders.sd15(str(tmp_path))
    for part in vars(clip.tokenizer).values():
        if hasattr(part, "embedding_size"):
            part.embedding_size = 16
    found = encoded(comfy, clip, "a embedding:mine dog")
    assert found.word("dog").tokens == (5,)
    assert found.word("\ufffc").tokens == (2, 3, 4)


def test_nothing_is_left_on_the_encoder(comfy: Any) -> None:
    clip = tiny_encoders.sdxl()
    before = clip.encode_from_tokens(clip.tokenize(TEXT))
    encoded(comfy, clip, TEXT)
    modules = clip.cond_stage_model.modules()
    assert not any("encode_token_weights" in vars(module) for module in modules)
    assert torch.equal(clip.encode_from_tokens(clip.tokenize(TEXT)), before)


def test_clip_skip_is_another_encoding(comfy: Any) -> None:
    clip = tiny_encoders.sd15()
    skipping = clip.clone()
    skipping.clip_layer(-2)
    assert not torch.equal(
        encoded(comfy, clip, TEXT).encoding, encoded(comfy, skipping, TEXT).encoding
    )


def test_another_text_for_the_second_encoder_is_noticed(comfy: Any) -> None:
    """SDXL's CLIP L and G stand beside each other in the values of a token."""
    clip = tiny_encoders.sdxl()
    tokens = clip.tokenize("a red dog")
    other = tokens | {"g": clip.tokenize("a blue cat")["g"]}
    made = [
        comfy.pack("nodes.host.model_facts").encoding_of([clip.encode_from_tokens(some)])
        for some in (tokens, other)
    ]
    record = SimpleNamespace(encodings={0: made[0]})
    find = comfy.pack("i2am.recording").find_prompt
    assert find(record, made[0]) == (0, 0)
    assert find(record, made[1]) is None
