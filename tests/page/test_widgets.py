"""Widgets that fold away, and values in words: on our nodes, in both of the page's renderers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tools.comfyui.server import ComfyServer
from tools.comfyui.viewer_page import open_page

SHOWN = ["direction", "reference", "level", "colormap", "opacity"]
FOLDED = [
    *("definition", "scale", "legend", "steps", "layers", "heads", "time_groups"),
    *("within_mask", "frame", "layer_weight", "preset", "sinks"),
]
# What a workflow of 1.0.0 holds for an Attribution Map, in the order of its widgets.
SAVED = ["generated to reference", 2, "paper", "time", "jet", 0.5, "shared", False, "0-3", "1"]
SAVED += ["0", 4, True, 7, "equal", "paper", "remove"]

ADD = """
() => {
  window.map = LiteGraph.createNode('I2AM_Map');
  app.graph.add(map);
  map.pos = [-3000, 0]; // away from the others
  app.canvas.ds.scale = 1;
  app.canvas.ds.offset = [3300, 150];
  app.canvas.setDirty(true, true);
}
"""
VISIBLE = "() => map.widgets.filter((w) => map.isWidgetVisible(w)).map((w) => w.name)"


@pytest.fixture(params=[False, True], ids=["classic", "vue"])
def vue(request: pytest.FixtureRequest) -> bool:
    return request.param


@pytest.fixture
def page(browser: Browser, server: ComfyServer, vue: bool) -> Iterator[Page]:
    failures: list[str] = []
    settings = {"Comfy.VueNodes.Enabled": vue}
    page = open_page(browser, server, settings=settings, on_error=failures.append)
    page.evaluate(ADD)
    page.wait_for_timeout(500)
    yield page
    assert not failures
    page.close()


def press_more(page: Page, vue: bool) -> None:
    """The button below the node: the page's own in Nodes 2.0, ours in the classic renderer."""
    if vue:
        node = page.locator(f'[data-node-id="{page.evaluate("() => map.id")}"]')
        node.get_by_text("advanced inputs").click()
    else:
        x, y = page.evaluate(
            """() => {
                const button = map.widgets.find((w) => w.name === 'i2am_more');
                const view = app.canvas.ds, box = app.canvas.canvas.getBoundingClientRect();
                const at = [map.pos[0] + map.size[0] / 2, map.pos[1] + button.y + 10];
                return [0, 1].map((i) => (at[i] + view.offset[i]) * view.scale + [box.x, box.y][i]);
            }"""
        )
        page.mouse.click(x, y)
    page.wait_for_timeout(300)


def on_screen(page: Page, vue: bool) -> list[str]:
    """The names of the visible widgets' inputs."""
    if not vue:
        return [name for name in page.evaluate(VISIBLE) if not name.startswith("i2am_")]
    number = page.evaluate("() => map.id")
    texts = page.locator(f'[data-node-id="{number}"]').inner_text().splitlines()
    names = {text.partition(":")[0].strip() for text in texts}
    return [name for name in page.evaluate("() => map.widgets.map((w) => w.name)") if name in names]


def test_rare_settings_fold_away(page: Page, vue: bool, shots: Path) -> None:
    assert on_screen(page, vue) == SHOWN
    before = page.evaluate("() => map.size[1]")
    press_more(page, vue)
    page.screenshot(path=shots / f"more_settings_{'vue' if vue else 'classic'}.png")
    assert set(on_screen(page, vue)) == {*SHOWN, *FOLDED}
    if not vue:
        assert page.evaluate("() => map.size[1]") > before
    press_more(page, vue)
    assert on_screen(page, vue) == SHOWN
    if not vue:
        assert page.evaluate("() => map.size[1]") == before


def test_what_is_folded_is_saved_and_comes_back(page: Page, vue: bool) -> None:
    """Saved by 1.0.0, opened, copied: every value is in its place, and the folding is unchanged."""
    saved = page.evaluate("(values) => ({ ...map.serialize(), widgets_values: values })", SAVED)
    assert (
        page.evaluate("(saved) => { map.configure(saved); return map.serialize(); }", saved)[
            "widgets_values"
        ]
        == SAVED
    )
    press_more(page, vue)
    copied: dict[str, Any] = page.evaluate(
        """() => {
            const copy = map.clone();
            app.graph.add(copy);
            return { more: Boolean(copy.showAdvanced), values: copy.serialize().widgets_values };
        }"""
    )
    assert copied == {"more": True, "values": SAVED}
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output[map.id].inputs")
    assert prompt["frame"] == 7
    assert prompt["sinks"] == "remove"
    assert not [name for name in prompt if name.startswith("i2am_")]


def test_what_is_linked_stays_in_sight(page: Page, vue: bool) -> None:
    page.evaluate(
        """() => {
            const number = LiteGraph.createNode('PrimitiveInt');
            app.graph.add(number);
            const slot = map.inputs.findIndex((input) => input.widget?.name === 'time_groups');
            number.connect(0, map, slot);
        }"""
    )
    page.wait_for_timeout(300)
    if not vue:
        assert "time_groups" in on_screen(page, vue)
    prompt = page.evaluate("async () => (await app.graphToPrompt()).output[map.id].inputs")
    assert isinstance(prompt["time_groups"], list)


def test_special_values_are_words(page: Page, vue: bool) -> None:
    """The value stays a number; on screen there are words, replacing it in the classic page."""
    press_more(page, vue)
    for value, words in ((-2, "every frame"), (-1, "mean of all frames"), (3, "frame 3")):
        page.evaluate(
            """(value) => {
                const frame = map.widgets.find((w) => w.name === 'frame');
                frame.value = value;
                frame.callback?.(value);
            }""",
            value,
        )
        page.wait_for_timeout(200)
        said = page.evaluate("() => map.widgets.find((w) => w.name === 'frame')._displayValue")
        assert said == words
        assert page.evaluate("() => map.widgets.find((w) => w.name === 'frame').value") == value
        if vue:
            number = page.evaluate("() => map.id")
            assert f"frame: {words}" in page.locator(f'[data-node-id="{number}"]').inner_text()
    preset = page.evaluate("() => map.widgets.find((w) => w.name === 'preset')._displayValue")
    assert preset == "as set here"
