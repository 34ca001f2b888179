"""Capture Attention's live maps in a real browser, over the latent's preview."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tools.comfyui.server import ROOT, ComfyServer
from tools.comfyui.viewer_page import SHOWN, open_page, set_seed

RENDERER = "Comfy.VueNodes.Enabled"
STEPS = 300  # enough time to see it happen

# The canvas on Capture Attention: its size, and how many of its pixels are bluer than red, or
# grey. No colour of the map is either.
PAINTED = """
() => {
  const canvas = document.querySelector('.i2am-live canvas');
  const { width, height } = canvas;
  const { data } = canvas.getContext('2d').getImageData(0, 0, width, height);
  let foreign = 0;
  for (let i = 0; i < data.length; i += 4) {
    const [r, g, b] = data.slice(i, i + 3);
    const most = Math.max(r, g, b);
    if (b > r || (most > 40 && most - Math.min(r, g, b) < most / 5)) foreign += 1;
  }
  return { width, height, foreign };
}
"""


@pytest.fixture(scope="module", params=["none", "latent2rgb"])
def previews(
    comfyui_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[str, ComfyServer]]:
    """A server with this preview method."""
    log = ROOT / "output" / "logs" / "live.log"
    method = ("--preview-method", request.param)
    with ComfyServer(comfyui_path, log=log, threads=1, arguments=method) as server:
        yield request.param, server


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
def test_it_is_seen_while_it_samples(
    browser: Browser, previews: tuple[str, ComfyServer], shots: Path, vue: bool
) -> None:
    method, server = previews
    page = open_page(browser, server, on_error=pytest.fail, settings={RENDERER: vue})
    sampling(page, seed=71 + vue)
    words = page.locator(".i2am-live p")
    page.wait_for_function(
        "() => /^Step ([5-9]|[1-9]\\d+) of/.test("
        "document.querySelector('.i2am-live p')?.textContent ?? '')"
    )
    if method != "none":  # it arrives separately, a moment later
        page.wait_for_function(f"() => ({PAINTED.strip()})().foreign > 0")
    found: dict[str, Any] = page.evaluate(PAINTED)
    page.screenshot(path=shots / f"live_{method}_{'vue' if vue else 'classic'}.png")
    first = re.fullmatch(
        rf"Step (\d+) of {STEPS} · reference 1: ([\d.]+)% · reference 2: ([\d.]+)%",
        words.inner_text(),
    )
    assert first, words.inner_text()
    assert 0 < float(first[2]) + float(first[3]) < 100
    # Two square maps side by side; the preview shows through where there is one.
    assert found["width"] > 2 * found["height"]
    assert method != "none" or found["foreign"] == 0
    page.wait_for_selector(SHOWN)
    assert words.inner_text().startswith(f"Step {STEPS} of {STEPS}")
    page.screenshot(path=shots / f"live_{method}_{'vue' if vue else 'classic'}_done.png")
    page.close()


def sampling(page: Page, seed: int) -> None:
    """Presses Run with many steps, with Capture Attention in the middle of the screen."""
    set_seed(page, seed)
    page.evaluate(
        """(steps) => {
            const find = (type) => app.graph.nodes.find((node) => node.type === type);
            find('KSampler').widgets.find((widget) => widget.name === 'steps').value = steps;
            const node = find('I2AM_Capture'), view = app.canvas.ds;
            view.offset[0] = 750 - node.pos[0] - node.size[0] / 2;
            view.offset[1] = 400 - node.pos[1] - node.size[1] / 2;
            app.canvas.setDirty(true, true);
        }""",
        STEPS,
    )
    page.get_by_test_id("queue-button").first.click()
