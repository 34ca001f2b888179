"""Words in the viewer: under the picture, one pointed at, and ranked at a place."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser, Page
from recordings import attribution

from i2am.display import pack_payload
from i2am.recording import Word
from i2am.tokens import Grid
from tools.comfyui.server import ComfyServer
from tools.comfyui.viewer_page import (
    as_executed,
    button,
    leave,
    open_page,
    point,
    press,
    settled,
    show,
    state,
)

WORDS = (Word("cat", (1, 2)), Word("dog", (4,), 1.2), Word("一个", (5,)))
RENDERERS = {"classic": False, "nodes 2.0": True}


def opened(browser: Browser, server: ComfyServer, renderer: str, **options: Any) -> Page:
    """A viewer with three words and, by default, one reference."""
    made = attribution(
        words=7, batch=1, generated=Grid(8, 8), **{"references": (Grid(8, 8),), **options}
    )
    pictures = torch.rand(1, 128, 128, 3, generator=torch.Generator().manual_seed(1))
    given = replace(made, words=WORDS, mask=None)
    settings = {"Comfy.VueNodes.Enabled": RENDERERS[renderer]}
    page = open_page(browser, server, on_error=pytest.fail, settings=settings)
    name = f"words_{renderer[:5]}_{len(made.references)}"
    show(page, as_executed(server, name, pack_payload(given), pictures))
    settled(page)
    return page


def says(page: Page, beginning: str) -> None:
    """Waits until the viewer's sentence begins like this."""
    page.wait_for_function(
        "(text) => document.querySelector('.i2am-sentence').textContent.startsWith(text)",
        arg=beginning,
        timeout=20_000,
    )


def ranking(page: Page) -> str:
    page.wait_for_timeout(150)
    return page.locator(".i2am-ranking").inner_text()


@pytest.mark.parametrize("renderer", RENDERERS)
def test_words(browser: Browser, server: ComfyServer, renderer: str, shots: Path) -> None:
    page = opened(browser, server, renderer)
    leave(page)
    says(page, "Where reference 1 was used")
    buttons = page.locator(".i2am-words button")
    texts = buttons.all_inner_texts()
    assert [text.rstrip("0123456789.%") for text in texts] == ["cat", "dog", "一个"]
    buttons.nth(1).hover()  # pointing shows a word, leaving shows the reference again
    says(page, "Where “dog” was attended to · the model's attention")
    leave(page)
    says(page, "Where reference 1 was used")
    buttons.nth(0).hover()  # shown already when it is clicked, as by a hand
    says(page, "Where “cat” was attended to")
    buttons.nth(0).click()
    leave(page)
    says(page, "Where “cat” was attended to")
    assert state(page)["word"] == 0
    assert buttons.nth(0).get_attribute("aria-pressed") == "true"
    page.screenshot(path=shots / f"viewer_words_{renderer.replace(' ', '_')}.png")
    buttons.nth(0).click()  # again: none
    leave(page)
    assert state(page)["word"] is None
    point(page, 0, 0.3, 0.6)
    said = ranking(page)
    assert said.startswith("Here: ")
    for name in ("“cat”", "“dog”", "“一个”", "reference 1"):
        assert name in said
    leave(page)
    assert ranking(page).startswith("Point at a word")
    page.close()


@pytest.mark.parametrize("renderer", RENDERERS)
def test_words_alone(browser: Browser, server: ComfyServer, renderer: str, shots: Path) -> None:
    """Without a reference there is one picture; a place of it can be pinned."""
    page = opened(browser, server, renderer, references=(), definitions="both")
    leave(page)
    says(page, "Where “cat” was attended to")
    assert page.locator(".i2am-figure").nth(0).is_visible()
    assert not page.locator(".i2am-figure").nth(1).is_visible()
    box = page.locator(".i2am-box").nth(0).bounding_box()
    assert box
    assert box["width"] > 200
    page.mouse.click(box["x"] + box["width"] * 0.7, box["y"] + box["height"] * 0.2)
    leave(page)
    assert "Here: " in ranking(page)
    assert "reference" not in ranking(page)
    page.screenshot(path=shots / f"viewer_words_alone_{renderer.replace(' ', '_')}.png")
    press(page, "Unpin")
    assert ranking(page).startswith("Point at a word")
    with page.expect_download():
        press(page, "PNG")
    press(page, "Settings")
    assert button(page, "Heads").count() == 1
    page.close()
