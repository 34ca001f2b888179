"""The Attribution Viewer as an artist meets it: in a real browser, on the demo's true origins.

Screenshots and figures go to output/page/. Nothing here has a time limit: how long a hover takes is
measured and written down.
"""

from __future__ import annotations

import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page

from tools.comfyui.server import ComfyServer
from tools.comfyui.viewer_page import (
    NODE,
    READY,
    SHOWN,
    centre,
    leave,
    open_page,
    picture,
    point,
    press,
    press_run,
    run,
    sentence,
    settled,
    state,
    true_origins,
)

SEED, OTHER_SEED = 20240712, 7

# Where the map over a picture is highest, as fractions of the picture, read back from the screen.
HIGHEST = """
(side) => {
  const canvas = document.querySelectorAll('.i2am-box')[side].querySelector('.i2am-heat');
  if (canvas.hidden) return null;
  const { width, height } = canvas;
  const data = canvas.getContext('2d').getImageData(0, 0, width, height).data;
  let best = 3;
  for (let i = 3; i < data.length; i += 4) if (data[i] > data[best]) best = i;
  // Many pixels can be the highest of 255: take the middle of them.
  let [x, y, count] = [0, 0, 0];
  for (let i = 3; i < data.length; i += 4) {
    if (data[i] < data[best]) continue;
    const pixel = (i - 3) / 4;
    x += pixel % width; y += Math.floor(pixel / width); count += 1;
  }
  return [(x / count + 0.5) / width, (y / count + 0.5) / height];
}
"""


def opened(browser: Browser, server: ComfyServer, settings: dict[str, Any] | None = None) -> Page:
    """The demo's page; any error on it fails the test."""
    return open_page(browser, server, on_error=pytest.fail, settings=settings)


@pytest.fixture(scope="module")
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """The opened demo; the tests of this module use it in order."""
    page = opened(browser, server)
    yield page
    page.close()


def hover_tells_the_truth(page: Page) -> None:
    """Both ways: the maximum lies within one of eight cells of the true origin."""
    for of_result, of_reference in true_origins():
        for side, here, there in ((0, of_result, of_reference), (1, of_reference, of_result)):
            point(page, side, *here)
            found = page.evaluate(HIGHEST, 1 - side)
            assert max(abs(f - t) for f, t in zip(found, there, strict=True)) <= 1.01 / 8
    leave(page)


def test_empty_says_what_to_do(page: Page, shots: Path) -> None:
    assert "Press Run" in page.locator(".i2am-message").inner_text()
    page.screenshot(path=shots / "viewer_empty.png")


def test_run_fills_it(page: Page, shots: Path) -> None:
    run(page, SEED)
    assert sentence(page).startswith(
        "Where reference 2 was used · the model's attention · all steps · all layers · "
    )
    assert page.locator(".i2am-tabs button").count() == 2
    assert "IMACS" in page.locator(".i2am-score").first.inner_text()
    page.screenshot(path=shots / "viewer_run.png")


def test_hover_paints_the_true_origin(page: Page, shots: Path) -> None:
    hover_tells_the_truth(page)
    assert sentence(page).startswith("Where reference 2 was used")
    point(page, 0, *true_origins()[0][0])
    assert sentence(page).startswith("Where this place of the result looked in reference 2")
    page.screenshot(path=shots / "viewer_hover.png")
    leave(page)


def test_regions(page: Page, shots: Path) -> None:
    """A dragged rectangle and a brush select a region, Escape clears it."""
    point(page, 0, 0.55, 0.5)
    page.mouse.down()
    point(page, 0, 0.9, 0.85)
    page.mouse.up()
    page.wait_for_timeout(100)
    assert "this region of the result" in sentence(page)
    assert page.get_by_role("button", name="Unpin").is_visible()
    page.screenshot(path=shots / "viewer_region.png")
    page.keyboard.press("Escape")
    leave(page)
    assert sentence(page).startswith("Where reference 2 was used")
    page.keyboard.down("Shift")
    point(page, 1, 0.2, 0.3)
    page.mouse.down()
    for x in (0.25, 0.3, 0.35):
        point(page, 1, x, 0.35)
    page.mouse.up()
    page.keyboard.up("Shift")
    assert "looked at this region of reference 2" in sentence(page)
    assert state(page)["pin"]["place"]["kind"] == "brush"
    page.keyboard.press("Escape")
    leave(page)


def test_keyboard(page: Page) -> None:
    page.locator(".i2am-box").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(100)
    assert "this place of the result" in sentence(page)
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    assert state(page)["pin"]["side"] == "result"
    page.keyboard.press("Escape")
    assert state(page)["pin"] is None
    leave(page)


def test_controls_change_what_is_said(page: Page, shots: Path) -> None:
    page.get_by_role("button", name="What used").click()
    assert sentence(page).startswith("What was used of reference 2")
    page.get_by_role("button", name="Steps", exact=True).click()
    first = sentence(page)
    assert "step 0" in first
    page.get_by_label("Which of the maps").fill("5")
    page.wait_for_timeout(100)
    assert "step 5" in sentence(page)
    press(page, "Settings")
    page.get_by_label("Colours").select_option("viridis")
    page.get_by_label("Outline").fill("0.5")
    page.wait_for_timeout(200)
    page.screenshot(path=shots / "viewer_settings.png")
    page.get_by_role("button", name="What is this?").click()
    page.wait_for_timeout(200)
    assert "Mean over generated tokens" in page.locator(".i2am-notes").inner_text()
    page.get_by_role("button", name="What is this?").click()
    page.get_by_label("Outline").fill("0")
    page.get_by_label("Colours").select_option("inferno")
    press(page, "Settings")
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("button", name="Where used").click()
    leave(page)


def test_png_is_what_is_shown(page: Page, shots: Path) -> None:
    point(page, 0, *true_origins()[0][0])
    page.mouse.down()
    page.mouse.up()
    leave(page)
    shown = picture(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    with Image.open(download.value.path()) as file:
        file.convert("RGB").save(shots / "viewer_export.png")
        side = 512
        tiles = [file.convert("RGB").crop((x, 16, x + side, 16 + side)) for x in (16, 544)]
    drawn = np.hstack(
        [
            np.array(tile.resize((len(shown), len(shown)), Image.Resampling.BILINEAR))
            for tile in tiles
        ]
    )
    difference = np.abs(drawn.astype(float) - shown[:, : drawn.shape[1]].astype(float))
    assert shown.std() > 20
    assert difference.mean() < 2, "the export is not what is shown"


def test_mask_is_sent_to_the_input_folder(page: Page, server: ComfyServer) -> None:
    """LoadImageMask reads it from any channel, and it holds the shown map."""
    with page.expect_response(lambda answer: "/upload/image" in answer.url) as response:
        page.get_by_role("button", name="Mask", exact=True).click()
    name = response.value.json()["name"]
    page.wait_for_function("() => document.querySelector('.i2am-notice').textContent")
    assert name in page.locator(".i2am-notice").inner_text()
    with Image.open(server.base / "input" / name) as file:
        assert file.size == (128, 128)
        mask = np.array(file)
    assert mask.shape == (128, 128, 4)
    assert (mask[..., 0] == 255 - mask[..., 3]).all()
    assert mask[..., 0].max() >= 250
    row, column = np.unravel_index(mask[..., 0].argmax(), (128, 128))
    x, y = true_origins()[0][1]
    assert max(abs(column / 128 - x), abs(row / 128 - y)) <= 1.5 / 8
    nodes = server.get_json("/object_info/LoadImageMask")
    assert name in nodes["LoadImageMask"]["input"]["required"]["image"][0]


def test_pin_and_maps_survive_a_reload(page: Page, shots: Path) -> None:
    before, said = picture(page), sentence(page)
    assert "this place of the result" in said
    page.wait_for_timeout(1500)  # the page saves its drafts a moment later
    page.reload()
    page.wait_for_function(READY)
    page.wait_for_selector(SHOWN)
    centre(page)
    settled(page)
    assert sentence(page) == said
    after = picture(page)
    assert after.shape == before.shape
    assert np.abs(after.astype(int) - before.astype(int)).mean() < 1
    page.screenshot(path=shots / "viewer_reloaded.png")


def test_an_old_seed_brings_back_the_old_maps(page: Page) -> None:
    said, first = sentence(page), picture(page)
    run(page, OTHER_SEED)
    assert np.abs(picture(page).astype(int) - first.astype(int)).mean() > 1
    run(page, SEED)
    assert sentence(page) == said
    assert np.abs(picture(page).astype(int) - first.astype(int)).mean() < 1


def test_zoomed_out(page: Page, shots: Path) -> None:
    centre(page, 0.5)
    page.screenshot(path=shots / "viewer_zoomed_out.png")
    centre(page, 0.25)
    page.screenshot(path=shots / "viewer_far.png")
    centre(page)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("vue_dark", {"Comfy.VueNodes.Enabled": True}),
        ("vue_light", {"Comfy.VueNodes.Enabled": True, "Comfy.ColorPalette": "light"}),
        ("classic_light", {"Comfy.ColorPalette": "light"}),
    ],
)
def test_other_renderers_and_themes(
    browser: Browser, server: ComfyServer, name: str, settings: dict[str, Any], shots: Path
) -> None:
    page = opened(browser, server, settings)
    run(page, SEED)
    hover_tells_the_truth(page)
    point(page, 0, *true_origins()[0][0])
    page.screenshot(path=shots / f"viewer_{name}.png")
    page.close()


def test_a_result_dropped_on_an_empty_page_restores_and_runs(
    browser: Browser, server: ComfyServer
) -> None:
    """The PNG saved by the demo holds its workflow, including the viewer."""
    saved = sorted((server.base / "output" / "i2am").glob("demo_result_*.png"))[-1].read_bytes()
    page = opened(browser, server)
    page.evaluate("() => app.graph.clear()")
    page.evaluate(
        """(bytes) => {
            const file = new File([Uint8Array.from(bytes)], 'result.png', { type: 'image/png' });
            const data = new DataTransfer();
            data.items.add(file);
            document.dispatchEvent(new DragEvent('drop',
              { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        list(saved),
    )
    page.wait_for_function(f"() => {NODE}")
    centre(page)
    run(page, OTHER_SEED + 1)
    assert "reference 2" in sentence(page)
    page.close()


def test_no_file_outside_can_be_named(server: ComfyServer) -> None:
    """The page uses ComfyUI's own /view, which serves nothing outside its folders."""
    for name in ("../../secret.i2am", "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{server.url}/view?filename={name}&subfolder=i2am&type=temp")


def test_what_is_gone_says_so_and_is_made_again(
    page: Page, server: ComfyServer, shots: Path
) -> None:
    """The temporary folder is emptied under a running server; Run rewrites the viewer's files."""
    run(page, OTHER_SEED)  # other pages have run something else meanwhile
    said, before = sentence(page), picture(page)
    for path in (server.base / "temp").iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page.reload()
    page.wait_for_function(READY)
    page.wait_for_selector('.i2am-viewer[data-state="expired"]')
    centre(page)
    assert "Press Run to make them again" in page.locator(".i2am-message").inner_text()
    page.screenshot(path=shots / "viewer_expired.png")
    press_run(page)
    centre(page)
    assert sentence(page) == said
    assert np.abs(picture(page).astype(int) - before.astype(int)).mean() < 1
    messages = list(server.get_json("/history").values())[-1]["status"]["messages"]
    cached = next(data["nodes"] for kind, data in messages if kind == "execution_cached")
    sampler = page.evaluate("() => app.graph.nodes.find((node) => node.type === 'KSampler').id")
    assert str(sampler) in cached, "nothing is sampled again for it"


def test_a_removed_node_leaves_nothing_behind(page: Page) -> None:
    page.evaluate(f"() => app.graph.remove({NODE})")
    page.wait_for_timeout(300)
    assert page.locator(".i2am-viewer").count() == 0
