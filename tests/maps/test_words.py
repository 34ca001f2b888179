"""Maps, shares and the ranking of words, from recordings and their files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from recordings import SQUARE, attribution, rand, recording

from i2am.display import pack_payload, read_payload_header, recording_report
from i2am.errors import I2AMError
from i2am.maps import display_values, item_shares, word_groups, word_maps, word_shares
from i2am.recording import Word, find_prompt, load_attribution, save_attribution, take_items
from i2am.scores import rank_sources, ranking_text

TOKENS = 6
CAT, DOG = Word("cat", (1, 2)), Word("dog", (4,), 1.2)


def test_a_words_map_is_its_tokens_together() -> None:
    made = recording(words=TOKENS, steps=6)
    maps = word_maps(made, (CAT, DOG))
    assert maps.labels == ("cat", "dog")
    arrays, groups = made.arrays["words.0.map"], word_groups(made)
    assert [len(steps) for steps in groups] == [2, 1, 2, 1]
    weights = torch.tensor([2.0, 1, 2, 1]) / 6
    mean = (arrays * weights[:, None, None, None]).sum(1)
    torch.testing.assert_close(display_values(maps)[:, 0], mean[:, [1, 2]].sum(1))
    third = word_maps(made, (DOG,), group=3)
    torch.testing.assert_close(display_values(third)[:, 0], arrays[:, 2, 4])


def test_shares_of_all_tokens_are_the_texts() -> None:
    made = recording(words=TOKENS)
    every = Word("all", tuple(range(TOKENS)))
    torch.testing.assert_close(word_shares(made, (every,))[:, 0], item_shares(made)[:, 0])
    by_step = made.arrays["words.0.share"]
    torch.testing.assert_close(by_step.sum(-1), made.arrays["share.step_layer"][..., 0])


def test_there_are_four_groups_at_most() -> None:
    made = recording(words=TOKENS, steps=3)
    assert made.arrays["words.0.map"].shape[1] == 3
    with pytest.raises(I2AMError, match="There is no time group 4: the steps form 3"):
        word_maps(made, (CAT,), group=4)


def test_missing_calls_do_not_count() -> None:
    """A layer that was not recorded in a step has a share of zero there, and no part in maps."""
    made = recording(words=TOKENS, steps=2, missing=((1, 0), (1, 2)))
    shares = made.arrays["words.0.share"]
    assert not shares[:, 1, [0, 2]].any()
    torch.testing.assert_close(
        made.arrays["words.0.map"][:, 1].mean((-2, -1)), shares[:, 1, 1], atol=1e-5, rtol=1e-4
    )


def test_ranking() -> None:
    """Words and references of one softmax: all of them and the rest make up the attention."""
    made = recording(words=TOKENS)
    found = rank_sources(made, (CAT, DOG))
    shares = [float(one.inside.mean()) for one in found.sources]
    assert shares == sorted(shares, reverse=True)
    assert {one.name for one in found.sources} == {"cat", "dog", "reference 1", "reference 2"}
    own = float(item_shares(made)[:, 1].mean())
    assert sum(shares) + float(found.others.inside.mean()) + own == pytest.approx(1, abs=1e-5)
    text = ranking_text(found)
    assert text.startswith("Share of the model's attention, over the whole result")
    assert "picture by picture" in text


def test_ranking_in_a_region_and_a_group() -> None:
    made = recording(words=TOKENS, batch=1)
    region = torch.zeros(1, 64, 48)
    region[:, :16] = 1  # the first row of four
    found = rank_sources(made, (CAT, DOG), region, group=1)
    cat = next(one for one in found.sources if one.name == "cat")
    mean = made.arrays["words.0.map"][0, 0, [1, 2], 0].sum(0).mean()
    assert float(cat.inside[0]) == pytest.approx(float(mean), rel=1e-5)
    first = next(one for one in found.sources if one.name == "reference 1")
    maps = made.arrays["model.r2g.0.step_layer"][0, 0]  # of the first step, which is group 1
    assert float(first.whole[0]) == pytest.approx(float(maps.sum((-2, -1)).mean()), rel=1e-5)
    row = float(maps[:, 0].sum(-1).mean()) * 4
    assert float(first.inside[0]) == pytest.approx(row, rel=1e-5)


def test_files_keep_words(tmp_path: Path) -> None:
    made = replace(attribution(words=TOKENS), words=(CAT, DOG))
    save_attribution(tmp_path / "words.safetensors", made)
    loaded = load_attribution(tmp_path / "words.safetensors")
    assert loaded.words == (CAT, DOG)
    assert loaded.recording.header == made.recording.header
    torch.testing.assert_close(
        loaded.recording.arrays["words.0.map"],
        made.recording.arrays["words.0.map"],
        rtol=1e-3,
        atol=1e-3,
    )
    assert torch.equal(loaded.recording.encodings[0], made.recording.encodings[0])


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("i2am.words", '[{"text": "x", "tokens": [99], "weight": 1, "prompt": 0}]', "not the"),
        ("i2am.words", "[1]", "its words cannot be read"),
        ("i2am.encodings", '{"3": {"shape": [1, 6, 8], "float16": ""}}', "there is no prompt 3"),
        ("i2am.encodings", '{"0": {"shape": [1, 5, 8], "float16": ""}}', "does not fit prompt 0"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, name: str, value: str, reason: str) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    path = tmp_path / "words.safetensors"
    save_attribution(path, replace(attribution(words=TOKENS), words=(CAT,)))
    with safe_open(path, framework="pt") as file:
        metadata = {**file.metadata(), name: value}
        tensors = {one: file.get_tensor(one) for one in file.keys()}
    save_file(tensors, path, metadata)
    with pytest.raises(I2AMError, match=reason):
        load_attribution(path)


def test_words_alone() -> None:
    """A recording without a reference: its report, file and payload hold its words."""
    made = replace(attribution(words=TOKENS, references=(), definitions="both"), words=(CAT, DOG))
    assert "Words: one prompt of 6 tokens, in 4 groups" in recording_report(made.recording)
    header = read_payload_header(pack_payload(made))
    assert header["references"] == []
    assert [word["text"] for word in header["words"]] == ["cat", "dog"]
    assert header["arrays"]["words"]["shape"] == [2, 2, 4, 3]
    shares = word_shares(made.recording, (CAT,))[:, 0]
    assert header["words"][0]["share"] == pytest.approx(shares.tolist())


def test_large_results_are_pooled() -> None:
    made = recording(words=TOKENS, generated=SQUARE, references=(), heads=(2,), steps=1, batch=1)
    assert made.arrays["words.0.map"].shape == (1, 1, TOKENS, 32, 32)


def test_items_of_a_batch() -> None:
    made = recording(words=TOKENS)
    second = take_items(made, [1])
    assert torch.equal(second.arrays["words.0.map"], made.arrays["words.0.map"][1:])
    assert find_prompt(second, made.encodings[0]) == (0, 0)


def test_a_prompt_is_known_again() -> None:
    """Whole, within a longer one, a little off, and not if a token is another."""
    made = recording(words=TOKENS)
    own = made.encodings[0]
    assert find_prompt(made, own) == (0, 0)
    assert find_prompt(made, own[:, 2:5]) == (0, 2)
    assert find_prompt(made, own * 1.01) == (0, 0)
    other = own.clone()
    other[0, 3] = rand(9, 8).half()
    assert find_prompt(made, other) is None
    assert find_prompt(made, torch.cat((own, own), 1)) is None
