"""The Attribution Viewer as an artist meets it: in a real browser, on the demo's true origins.

Screenshots and figures go to output/page/. Nothing here is held against a clock: how long a hover
takes is measured and written down.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from recordings import made_up

from browser import FLAGS, find_chromium
from comfy_server import ROOT, ComfyServer
from demo import WORKFLOW
from demo_scenes import TOKEN, make_scenes
from i2am.attribution import Attribution
from i2am.payload import pack
from save_demo_pictures import DEFAULT_SEED

SHOTS = ROOT / "output" / "page"
FIGURES = SHOTS / "viewer.json"
READY = "() => window.app?.graph && window.app.extensionManager"
SHOWN = '.i2am-viewer[data-state="ready"]'
PATIENCE = 120_000  # milliseconds, for a slow machine
SEED, OTHER_SEED = 20240712, 7
NODE = "app.graph.nodes.find((node) => node.type === 'I2AM_Viewer')"

# Where the map over a picture is highest, in parts of the picture: what lies above it is read back.
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

# How long a hover takes from its handler to the last pixel, in milliseconds, of many.
HOVERS = """
async (count) => {
  const box = document.querySelectorAll('.i2am-box')[0], { left, top, width, height } =
    box.getBoundingClientRect(), taken = [];
  const real = window.requestAnimationFrame;
  for (let n = 0; n < count; n += 1) {
    let spent = 0;
    const painted = new Promise((done) => {
      window.requestAnimationFrame = (paint) => real(() => {
        const start = performance.now();
        paint();
        box.parentElement.offsetHeight;
        spent += performance.now() - start;
        done();
      });
    });
    const start = performance.now();
    box.dispatchEvent(new PointerEvent('pointermove', {
      clientX: left + width * ((n * 0.37) % 1), clientY: top + height * ((n * 0.61) % 1) }));
    spent += performance.now() - start;
    await painted;
    taken.push(spent);
  }
  window.requestAnimationFrame = real;
  return taken;
}
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = find_chromium()
    if chromium is None:
        named = os.environ.get("CHROMIUM", "nothing")
        pytest.fail(f"No Chromium (CHROMIUM is {named}): run python dev.py test", pytrace=False)
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def page(browser: Browser, server: ComfyServer) -> Iterator[Page]:
    """The demo, opened; the tests of this module go through it in order."""
    page = opened(browser, server)
    yield page
    page.close()


def opened(browser: Browser, server: ComfyServer, **settings: Any) -> Page:
    """A page of its own with the demo on it, the viewer in the middle."""
    page = browser.new_page(viewport={"width": 1500, "height": 950}, device_scale_factor=2)
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: pytest.fail(f"script error: {error}"))
    page.goto(server.url)
    page.wait_for_function(READY)
    # The page's own panels, as other tests may have left them, would cover the viewer.
    alone = {"Comfy.RightSidePanel.IsOpen": False, "Comfy.Minimap.Visible": False}
    chosen = {"Comfy.VueNodes.Enabled": False, "Comfy.ColorPalette": "dark", **alone, **settings}
    page.evaluate(
        "(chosen) => Promise.all(Object.entries(chosen).map(([name, value]) =>"
        " app.extensionManager.setting.set(name, value)))",
        chosen,
    )
    page.evaluate("(data) => app.loadGraphData(data)", json.loads(WORKFLOW.read_text("utf-8")))
    page.wait_for_function(f"() => {NODE}")
    page.keyboard.press("Escape")  # a new user is shown the templates
    page.get_by_test_id("dialog-overlay").wait_for(state="hidden")
    centre(page)
    return page


def centre(page: Page, scale: float = 1) -> None:
    """The viewer in the middle, and still there when the page has done its own fitting."""
    for _ in range(20):
        moved = page.evaluate(
            f"""(scale) => {{
                const node = {NODE}, view = app.canvas.ds;
                const moved = view.scale !== scale;
                view.scale = scale;
                view.offset[0] = 750 / scale - node.pos[0] - node.size[0] / 2;
                view.offset[1] = 500 / scale - node.pos[1] - node.size[1] / 2;
                app.canvas.setDirty(true, true);
                return moved;
            }}""",
            scale,
        )
        page.wait_for_timeout(700)
        if not moved:
            return
    pytest.fail("the page never stops moving its view")


def run(page: Page, seed: int) -> None:
    page.evaluate(
        """(seed) => {
            const sampler = app.graph.nodes.find((node) => node.type === 'KSampler');
            sampler.widgets.find((widget) => widget.name === 'seed').value = seed;
        }""",
        seed,
    )
    with page.expect_response(lambda answer: ".i2am" in answer.url):
        page.get_by_test_id("queue-button").first.click()
    page.wait_for_selector(SHOWN)
    settled(page)


def settled(page: Page) -> None:
    """Pictures are there, and what was asked for is painted."""
    page.wait_for_load_state("networkidle")
    page.wait_for_timeout(400)


def point(page: Page, side: int, x: float, y: float) -> None:
    box = page.locator(".i2am-box").nth(side).bounding_box()
    assert box
    page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
    page.wait_for_timeout(100)


def leave(page: Page) -> None:
    page.mouse.move(750, 60)
    page.wait_for_timeout(200)


def sentence(page: Page) -> str:
    page.wait_for_timeout(150)  # it is painted in the next frame
    return page.locator(".i2am-sentence").inner_text()


def picture(page: Page) -> np.ndarray:
    """What both boxes show, side by side."""
    shots = [page.locator(".i2am-box").nth(side).screenshot() for side in (0, 1)]
    return np.hstack([np.array(Image.open(io.BytesIO(shot)).convert("RGB")) for shot in shots])


def true_origins() -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Middles of tokens in the hole, and of the tokens of the reference they come from."""
    scene = make_scenes(1, DEFAULT_SEED)
    truth, (down, across) = scene.correspondence[0], scene.grid
    inside = torch.nn.functional.avg_pool2d(scene.hole[:, None], TOKEN).flatten()

    def middle(token: int) -> tuple[float, float]:
        return (token % across + 0.5) / across, (token // across + 0.5) / down

    whole = [token for token in range(len(truth)) if inside[token] == 1]
    assert len(whole) >= 4
    return [(middle(token), middle(int(truth[token]))) for token in whole]


def hover_tells_the_truth(page: Page) -> None:
    """Both ways: the maximum lies within one of eight cells of where it truly came from."""
    for of_result, of_reference in true_origins():
        for side, here, there in ((0, of_result, of_reference), (1, of_reference, of_result)):
            point(page, side, *here)
            found = page.evaluate(HIGHEST, 1 - side)
            assert max(abs(f - t) for f, t in zip(found, there, strict=True)) <= 1.01 / 8
    leave(page)


def test_empty_says_what_to_do(page: Page) -> None:
    assert "Press Run" in page.locator(".i2am-message").inner_text()
    page.screenshot(path=SHOTS / "viewer_empty.png")


def test_run_fills_it(page: Page) -> None:
    run(page, SEED)
    assert sentence(page).startswith(
        "Where reference 2 was used · the model's attention · all steps · all layers · "
    )
    assert page.locator(".i2am-tabs button").count() == 2
    assert "IMACS" in page.locator(".i2am-score").first.inner_text()
    page.screenshot(path=SHOTS / "viewer_run.png")


def test_hover_paints_the_true_origin(page: Page) -> None:
    hover_tells_the_truth(page)
    assert sentence(page).startswith("Where reference 2 was used")
    point(page, 0, *true_origins()[0][0])
    assert sentence(page).startswith("Where this place of the result looked in reference 2")
    page.screenshot(path=SHOTS / "viewer_hover.png")
    leave(page)


def test_regions(page: Page) -> None:
    """A dragged rectangle and a brush ask for a region, Escape lets go of it."""
    point(page, 0, 0.55, 0.5)
    page.mouse.down()
    point(page, 0, 0.9, 0.85)
    page.mouse.up()
    page.wait_for_timeout(100)
    assert "this region of the result" in sentence(page)
    assert page.get_by_role("button", name="Unpin").is_visible()
    page.screenshot(path=SHOTS / "viewer_region.png")
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
    pin = page.evaluate(f"() => {NODE}.properties.i2am_view.pin")
    assert pin["place"]["kind"] == "brush"
    page.keyboard.press("Escape")
    leave(page)


def test_keyboard(page: Page) -> None:
    page.locator(".i2am-box").first.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_timeout(100)
    assert "this place of the result" in sentence(page)
    page.keyboard.press("Enter")
    page.wait_for_timeout(100)
    assert page.evaluate(f"() => {NODE}.properties.i2am_view.pin.side") == "result"
    page.keyboard.press("Escape")
    assert page.evaluate(f"() => {NODE}.properties.i2am_view.pin") is None
    leave(page)


def test_controls_change_what_is_said(page: Page) -> None:
    page.get_by_role("button", name="What used").click()
    assert sentence(page).startswith("What was used of reference 2")
    page.get_by_role("button", name="Steps", exact=True).click()
    first = sentence(page)
    assert "step 0" in first
    page.get_by_label("Which of the maps").fill("5")
    page.wait_for_timeout(100)
    assert "step 5" in sentence(page)
    page.get_by_role("button", name="Settings", exact=True).and_(
        page.locator(".i2am-viewer button")
    ).click()
    page.get_by_label("Colours").select_option("viridis")
    page.get_by_label("Outline").fill("0.5")
    page.wait_for_timeout(200)
    page.screenshot(path=SHOTS / "viewer_settings.png")
    page.get_by_role("button", name="What is this?").click()
    page.wait_for_timeout(200)
    assert "Mean over generated tokens" in page.locator(".i2am-notes").inner_text()
    page.get_by_role("button", name="What is this?").click()
    page.get_by_label("Outline").fill("0")
    page.get_by_label("Colours").select_option("inferno")
    page.get_by_role("button", name="Settings", exact=True).and_(
        page.locator(".i2am-viewer button")
    ).click()
    page.get_by_role("button", name="All", exact=True).click()
    page.get_by_role("button", name="Where used").click()
    leave(page)


def test_png_is_what_is_shown(page: Page) -> None:
    point(page, 0, *true_origins()[0][0])
    page.mouse.down()
    page.mouse.up()
    leave(page)
    shown = picture(page)
    with page.expect_download() as download:
        page.get_by_role("button", name="PNG").click()
    with Image.open(download.value.path()) as file:
        file.convert("RGB").save(SHOTS / "viewer_export.png")
        side = 512
        tiles = [file.convert("RGB").crop((x, 16, x + side, 16 + side)) for x in (16, 544)]
    drawn = np.hstack(
        [np.array(tile.resize(2 * (len(shown),), Image.Resampling.BILINEAR)) for tile in tiles]
    )
    difference = np.abs(drawn.astype(float) - shown[:, : drawn.shape[1]].astype(float))
    assert shown.std() > 20
    assert difference.mean() < 2, "the export is not what is shown"


def test_mask_is_sent_to_the_input_folder(page: Page, server: ComfyServer) -> None:
    """LoadImageMask reads it from any channel, and it holds the map that is shown."""
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


def test_pin_and_maps_survive_a_reload(page: Page) -> None:
    before, said = picture(page), sentence(page)
    assert "this place of the result" in said
    page.wait_for_timeout(1500)  # the page keeps its drafts a moment later
    page.reload()
    page.wait_for_function(READY)
    page.wait_for_selector(SHOWN)
    centre(page)
    settled(page)
    assert sentence(page) == said
    after = picture(page)
    assert after.shape == before.shape
    assert np.abs(after.astype(int) - before.astype(int)).mean() < 1
    page.screenshot(path=SHOTS / "viewer_reloaded.png")


def test_an_old_seed_brings_back_the_old_maps(page: Page) -> None:
    said, first = sentence(page), picture(page)
    run(page, OTHER_SEED)
    assert np.abs(picture(page).astype(int) - first.astype(int)).mean() > 1
    run(page, SEED)
    assert sentence(page) == said
    assert np.abs(picture(page).astype(int) - first.astype(int)).mean() < 1


def test_zoomed_out(page: Page) -> None:
    centre(page, 0.5)
    page.screenshot(path=SHOTS / "viewer_zoomed_out.png")
    centre(page, 0.25)
    page.screenshot(path=SHOTS / "viewer_far.png")
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
    browser: Browser, server: ComfyServer, name: str, settings: dict[str, Any]
) -> None:
    page = opened(browser, server, **settings)
    run(page, SEED)
    hover_tells_the_truth(page)
    point(page, 0, *true_origins()[0][0])
    page.screenshot(path=SHOTS / f"viewer_{name}.png")
    page.close()


def test_a_result_dropped_on_an_empty_page_restores_and_runs(
    browser: Browser, server: ComfyServer
) -> None:
    """The PNG that the demo saves holds its workflow, viewer and all."""
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


def test_the_largest_payload(browser: Browser, server: ComfyServer) -> None:
    """Flux at 1024×1024 and 21:9 pictures: what a hover costs is measured and written down."""
    page = opened(browser, server)
    wide = torch.rand(1, 540, 1260, 3)
    payload = pack(Attribution(made_up(), wide, (wide,)))
    folder = server.base / "temp" / "i2am"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "large.i2am").write_bytes(payload)
    Image.fromarray((wide[0] * 255).byte().numpy()).save(server.base / "temp" / "wide.png")
    shown = {"filename": "wide.png", "subfolder": "", "type": "temp"}
    output = {
        "payload": {"filename": "large.i2am", "subfolder": "i2am", "type": "temp"},
        "result": [shown],
        "references": [[shown]],
        "bytes": len(payload),
    }
    page.evaluate(
        f"() => {{ {NODE}.title = 'A very long title of a node '.repeat(6);"
        " app.canvas.setDirty(true, true) }"
    )
    first = page.evaluate(
        f"""async (output) => {{
            const start = performance.now();
            {NODE}.onExecuted({{ i2am_viewer: [output] }});
            const painted = () => document.querySelector('.i2am-heat')?.width > 300;
            while (!painted()) await new Promise(requestAnimationFrame);
            return performance.now() - start;
        }}""",
        output,
    )
    settled(page)
    page.screenshot(path=SHOTS / "viewer_wide.png")
    taken = sorted(page.evaluate(HOVERS, 60))
    figures = {
        "payload_bytes": len(payload),
        "first_paint_ms": round(first, 1),
        "hover_median_ms": round(taken[30], 2),
        "hover_95th_ms": round(taken[57], 2),
        "hover_most_ms": round(taken[-1], 2),
    }
    FIGURES.write_text(json.dumps(figures, indent=1) + "\n", "utf-8")
    assert sentence(page).endswith("made coarser to fit")
    page.close()


def test_no_file_outside_can_be_named(server: ComfyServer) -> None:
    """The page asks ComfyUI's own /view, which gives nothing outside its folders."""
    for name in ("../../secret.i2am", "/etc/passwd"):
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"{server.url}/view?filename={name}&subfolder=i2am&type=temp")


def test_what_is_gone_says_so(page: Page, server: ComfyServer) -> None:
    shutil.rmtree(server.base / "temp" / "i2am")
    page.reload()
    page.wait_for_function(READY)
    page.wait_for_selector('.i2am-viewer[data-state="expired"]')
    centre(page)
    assert "Press Run to make them again" in page.locator(".i2am-message").inner_text()
    page.screenshot(path=SHOTS / "viewer_expired.png")


def test_a_removed_node_leaves_nothing_behind(page: Page) -> None:
    page.evaluate(f"() => app.graph.remove({NODE})")
    page.wait_for_timeout(300)
    assert page.locator(".i2am-viewer").count() == 0
