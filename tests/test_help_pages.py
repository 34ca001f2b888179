"""The help pages: every node's, in four languages that say the same, with pictures and no links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

DOCS = Path(__file__).resolve().parents[1] / "web" / "docs"
LANGUAGES = ("zh", "ja", "ko")
PAGES = sorted(page.stem for page in DOCS.glob("*.md"))
ALL_PAGES = sorted(DOCS.rglob("*.md"))
LARGEST = 3_000_000  # bytes of all pictures: they come with every installation

HEADING = re.compile(r"^#{1,6} ", re.MULTILINE)
ROW = re.compile(r"^\|", re.MULTILINE)
PICTURE = re.compile(r"^!\[[^\]\n]+\]\(([^)\s]+)\)$", re.MULTILINE)
PICTURE_ANYWHERE = re.compile(r"!\[[^\]]*\]\(([^)\s]*)[^)]*\)")
# [text](target), [text][target], <https://…>, bare addresses and HTML: all that can become a link.
LINK = re.compile(r"(?<!!)\[[^\]]*\](?:\(|\[)|<[a-z/][^>]*>|\bhttps?:|\bwww\.", re.IGNORECASE)
FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)


def test_there_are_pages() -> None:
    assert PAGES


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_translation_has_what_the_page_has(name: str, language: str) -> None:
    translation = DOCS / name / f"{language}.md"
    assert translation.is_file(), f"{name} has no page in {language}"
    english, other = shape(DOCS / f"{name}.md"), shape(translation)
    assert other == english, f"{name} in {language} (headings, table rows, pictures)"


@pytest.mark.parametrize("name", PAGES)
def test_the_picture_is_there(name: str) -> None:
    """ComfyUI resolves what is relative against docs/, in every language."""
    pictures = PICTURE.findall(FENCED.sub("", (DOCS / f"{name}.md").read_text(encoding="utf-8")))
    assert pictures == [f"pictures/{name}.jpg"]
    with Image.open(DOCS / pictures[0]) as picture:
        picture.load()


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_no_link_is_dead(page: Path) -> None:
    """The help panel resolves pictures against docs/, but it leaves links as they are.

    It opens each in a new tab, below the address of ComfyUI's own page, and headings there have no
    anchors: no link to another page or to a part of this one arrives. So there are none.
    """
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    assert LINK.findall(text) == []
    pictures = PICTURE_ANYWHERE.findall(text)
    assert [name for name in pictures if not (DOCS / name).is_file()] == []


def test_the_pictures_are_light_and_shown() -> None:
    pictures = list((DOCS / "pictures").iterdir())
    assert {picture.stem for picture in pictures} == set(PAGES)
    assert sum(picture.stat().st_size for picture in pictures) < LARGEST


def shape(page: Path) -> tuple[list[str], int, list[str]]:
    """A page without its words: its headings' levels, its number of table rows, its pictures."""
    text = FENCED.sub("", page.read_text(encoding="utf-8"))
    return HEADING.findall(text), len(ROW.findall(text)), PICTURE.findall(text)
