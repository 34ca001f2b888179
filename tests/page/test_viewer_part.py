"""A reference whose middle the model saw: the map lies there, the rest is dimmed."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page
from recordings import recording

from i2am.display import pack_payload
from i2am.recording import Attribution, ReferenceFit, cut
from i2am.tokens import Grid
from tools.comfyui.server import ComfyServer
from tools.comfyui.viewer_page import (
    as_executed,
    leave,
    open_page,
    point,
    press,
    sentence,
    settled,
    show,
    state,
)

WIDE = (128, 256)


@pytest.fixture(scope="module")
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """A square result, and a wide reference whose middle square the model saw."""
    made = recording(generated=Grid(8, 8), references=(Grid(8, 8),), batch=1)
    generator = torch.Generator().manual_seed(1)
    photo = 0.5 + 0.5 * torch.rand(1, *WIDE, 3, generator=generator)
    whole = cut(photo, made.header.references[0], ReferenceFit.SQUARE)
    assert whole is not None
    result = torch.full((1, 128, 128, 3), 0.6)
    mask = torch.zeros(1, *WIDE)
    mask[:, 32:96, 64:128] = 1
    given = Attribution(made, result, (whole.seen,), wholes=(whole,))
    payload = pack_payload(given, {0: mask})
    page = open_page(browser, server, on_error=pytest.fail)
    output = as_executed(server, "part", payload, result)
    output["references"] = as_executed(server, "part_whole", b"", photo)["references"]
    show(page, output)
    settled(page)
    yield page
    page.close()


def shot(page: Page) -> np.ndarray:
    """The reference's frame, (height, width, 3) in 0..1."""
    taken = page.locator(".i2am-frame").nth(1).screenshot()
    return np.array(Image.open(io.BytesIO(taken)).convert("RGB")) / 255


def test_the_map_lies_in_the_middle(page: Page, shots: Path) -> None:
    frame = page.locator(".i2am-frame").nth(1).bounding_box()
    box = page.locator(".i2am-box").nth(1).bounding_box()
    assert frame
    assert box
    assert frame["width"] / frame["height"] == pytest.approx(2, rel=0.02)
    assert box["width"] / box["height"] == pytest.approx(1, rel=0.02)
    assert box["x"] - frame["x"] == pytest.approx(frame["width"] / 4, abs=1)
    point(page, 0, 0.4, 0.4)
    assert sentence(page).startswith("Where this place of the result looked in reference 1")
    page.screenshot(path=shots / "viewer_part.png")
    taken = shot(page)
    quarter = taken.shape[1] // 4
    for beside in (taken[:, : quarter - 4], taken[:, -quarter + 4 :]):
        assert beside.max() <= 0.27  # a quarter of the light
        assert np.abs(beside[..., 0] - beside[..., 2]).max() < 0.02  # grey
    assert taken[:, quarter:-quarter].max() > 0.5
    leave(page)
    note = page.locator(".i2am-note").nth(1)
    assert "the model saw the middle" in note.inner_text()


def test_pointing(page: Page) -> None:
    """Outside the part, nothing can be asked; inside it, a point is a fraction of the part."""
    frame = page.locator(".i2am-frame").nth(1).bounding_box()
    assert frame
    page.mouse.move(frame["x"] + frame["width"] * 0.1, frame["y"] + frame["height"] / 2)
    page.wait_for_timeout(150)
    assert sentence(page).startswith("Where reference 1 was used")
    x = frame["x"] + frame["width"] * 0.375
    page.mouse.click(x, frame["y"] + frame["height"] / 2)
    page.wait_for_timeout(150)
    assert sentence(page).startswith("What of the result looked at this")
    place = state(page)["pin"]["place"]
    assert (place["x"], place["y"]) == pytest.approx((0.25, 0.5), abs=0.02)
    page.keyboard.press("Escape")
    leave(page)


def test_taken_away(page: Page, shots: Path) -> None:
    """The exported picture shows the whole; a mask of the part is exported for the whole."""
    with page.expect_download() as download:
        press(page, "PNG")
    path = shots / "viewer_part_saved.png"
    download.value.save_as(path)
    with Image.open(path) as saved:
        across, down = saved.size
        assert across / down > 2.2  # a square and a picture twice as wide, with the text below
