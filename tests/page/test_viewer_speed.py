"""The largest payload in the page, for square pictures and for 21:9: shown whole and correctly.

All times are measured, printed (pytest -s) and written to output/page/viewer_speed.json. There is
no time limit: the speed of a machine says nothing about what is tested.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from playwright.sync_api import Browser
from recordings import SQUARE, made_up

from i2am.display import pack_payload
from i2am.display.payload import BUDGET
from i2am.recording import Attribution
from i2am.tokens import Grid
from tools.comfyui.server import ComfyServer
from tools.comfyui.viewer_page import (
    NODE,
    as_executed,
    centre,
    open_page,
    point,
    sentence,
    settled,
    show,
)

# A picture of a million pixels: its tokens, and its height and width.
SHAPES = {"square": (SQUARE, (1024, 1024)), "wide": (Grid(40, 96), (640, 1536))}
HOVERS = 200
ALL_OVER = [1440, 760]  # CSS pixels of the node: as large as the window

# How long hovers take: from the event to the last pixel drawn and the layout, in milliseconds. Each
# is at another place; every other one is on the reference.
MEASURE = """
async (count) => {
  const real = window.requestAnimationFrame, taken = [];
  for (let n = 0; n < count; n += 1) {
    const box = document.querySelectorAll('.i2am-box')[n % 2];
    const { left, top, width, height } = box.getBoundingClientRect();
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
    window.requestAnimationFrame = real;
    await new Promise((done) => real(done));
    box.dispatchEvent(new PointerEvent('pointerleave'));
    await new Promise((done) => real(done));
  }
  return taken;
}
"""


@pytest.fixture(scope="module")
def figures(shots: Path) -> Iterator[dict[str, Any]]:
    measured: dict[str, Any] = {}
    yield measured
    text = json.dumps(measured, indent=1)
    (shots / "viewer_speed.json").write_text(text + "\n", "utf-8")
    sys.stdout.write(f"\n{text}\n")


@pytest.mark.parametrize("shape", list(SHAPES))
def test_the_largest_payload(
    browser: Browser, server: ComfyServer, shots: Path, figures: dict[str, Any], shape: str
) -> None:
    grid, (height, width) = SHAPES[shape]
    picture = torch.rand(1, height, width, 3, generator=torch.Generator().manual_seed(0))
    recording = made_up(generated=grid, references=(grid,))
    payload = pack_payload(Attribution(recording, picture, (picture,)))
    assert len(payload) <= BUDGET
    page = open_page(browser, server, on_error=pytest.fail)
    page.evaluate(
        f"""(size) => {{
            for (const node of [...app.graph.nodes]) if (node !== {NODE}) app.graph.remove(node);
            for (const group of [...app.graph.groups]) app.graph.remove(group);
            {NODE}.setSize(size);
            {NODE}.title = 'A very long title of a node '.repeat(6);
            app.canvas.setDirty(true, true);
        }}""",
        ALL_OVER,
    )
    centre(page)
    first = show(page, as_executed(server, f"speed_{shape}", payload, picture))
    settled(page)
    assert sentence(page).endswith("made coarser to fit")
    page.screenshot(path=shots / f"viewer_{shape}.png")
    taken = sorted(page.evaluate(MEASURE, HOVERS))
    point(page, 0, 0.3, 0.6)
    assert "this place of the result" in sentence(page)
    figures[shape] = {
        "payload_bytes": len(payload),
        "first_paint_ms": round(first, 1),
        "hover_median_ms": round(statistics.median(taken), 2),
        "hover_95th_ms": round(taken[int(0.95 * HOVERS)], 2),
        "hover_most_ms": round(taken[-1], 2),
        "load_of_the_machine": round(os.getloadavg()[0] / (os.cpu_count() or 1), 1),
    }
    page.close()
