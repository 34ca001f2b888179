"""The nodes in other languages: every text of the schema, and nothing else."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tools.docs.locales import lines, texts_of

LANGUAGES = ("zh", "ja", "ko")
# How each language is written. In Japanese, a name may consist of Chinese characters only.
SCRIPTS = {"zh": r"[一-鿿]", "ja": r"[ぁ-ヿ]", "ko": r"[가-힣]"}
NAME_SCRIPTS = SCRIPTS | {"ja": r"[ぁ-ヿ一-鿿]"}
# Terms that ComfyUI keeps in these languages too, and the name of the score.
UNTRANSLATED = {"x", "y", "vae", "clip", "IMACS", "Latent"}


@pytest.fixture(scope="module")
def served(comfy: Any) -> dict[str, dict[str, str]]:
    """Language to path to text, as served to the page by ComfyUI."""
    translations = comfy.server.custom_node_manager.build_translations()
    return {language: dict(lines(translations[language]["nodeDefs"])) for language in translations}


def test_english_is_the_schema(comfy: Any, served: dict[str, dict[str, str]]) -> None:
    ours: dict[str, Any] = {
        name: texts_of(node.GET_SCHEMA().get_v1_info(node))
        for name, node in comfy.nodes.NODE_CLASS_MAPPINGS.items()
        if name.startswith("I2AM_")
    }
    assert ours
    assert served["en"] == dict(lines(ours)), "run python -m tools.docs.locales"


def test_every_language_has_every_text(served: dict[str, dict[str, str]]) -> None:
    assert served.keys() == {"en", *LANGUAGES}
    for language in LANGUAGES:
        missing = served["en"].keys() - served[language].keys()
        assert not missing, f"{language} lacks {sorted(missing)}"
        unknown = served[language].keys() - served["en"].keys()
        assert not unknown, f"{language} has what no node has: {sorted(unknown)}"


@pytest.mark.parametrize("language", LANGUAGES)
def test_nothing_is_left_in_english(served: dict[str, dict[str, str]], language: str) -> None:
    left = []
    for path, text in served[language].items():
        if path.endswith("name") and text in UNTRANSLATED:
            continue
        scripts = NAME_SCRIPTS if path.endswith("name") else SCRIPTS
        # Values of choices and names of other packs' nodes stay unchanged; sentences do not.
        sentence = re.search(r"[A-Za-z'-]+(?: [A-Za-z'-]+){3,}", text)
        if sentence or not re.search(scripts[language], text):
            left.append(f"{path}: {text}")
    assert not left


@pytest.mark.parametrize("language", LANGUAGES)
def test_numbers_and_names_agree(served: dict[str, dict[str, str]], language: str) -> None:
    """Every number is kept, and our nodes are called by their names in that language."""
    english, texts = served["en"], served[language]
    titles = [path for path in english if path.endswith(".display_name") and path in texts]
    lost = []
    for path in english.keys() & texts.keys():
        kept = re.findall(r"\d+(?:\.\d+)?", english[path])
        kept += [texts[title] for title in titles if english[title].rstrip("?") in english[path]]
        lost += [f"{path}: {words}" for words in kept if words not in texts[path]]
    assert not lost


def test_the_page_can_read_them(served: dict[str, dict[str, str]]) -> None:
    """The page takes what follows one of these characters as a command."""
    for language, texts in served.items():
        for path, text in texts.items():
            assert not re.search(r"[{}@|]", text), f"{language} {path}: {text!r}"


def test_the_commands_have_names_in_every_language(comfy: Any) -> None:
    translations = comfy.server.custom_node_manager.build_translations()
    names = {language: dict(lines(translations[language]["commands"])) for language in SCRIPTS}
    english = dict(lines(translations["en"]["commands"]))
    assert english.keys() == {"I2AM_Watch.label", "I2AM_StopWatching.label"}
    for language, script in SCRIPTS.items():
        assert names[language].keys() == english.keys()
        assert all(
            re.search(script, name) and "(I2AM)" in name for name in names[language].values()
        )
