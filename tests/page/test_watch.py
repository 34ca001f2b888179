"""Watch the references: the command itself, in ComfyUI's own page."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from page_graphs import (
    CAPTURE,
    COLLECT,
    LOADERS,
    PLAIN,
    STOP,
    VIEWER,
    WATCH,
    build,
    close_toasts,
    command,
    prompt,
    references,
    sampled,
    saved,
    says,
    titled,
    watched,
)
from PIL import Image
from playwright.sync_api import Browser, Page

from tools.comfyui.server import ComfyServer
from tools.comfyui.viewer_page import READY, demo_workflow, open_empty_page, press_run


@pytest.fixture
def page(empty_page: Page) -> Page:
    return empty_page


class TestAPlainSampler:
    def test_everything_is_wired(self, page: Page, shots: Path) -> None:
        found = watched(page, PLAIN)
        assert found["sampler"]["model"] == (CAPTURE, 0)
        assert found[CAPTURE]["model"] == ("model", 0)
        assert found[COLLECT]["samples"] == ("sampler", 0)
        assert found[COLLECT]["image"] == ("decode", 0)
        assert references(found) == {"1": ("scaled", 0), "2": ("second", 0)}
        assert found[VIEWER]["attribution"] == (COLLECT, 0)
        says(page, "Watching sampler: 2 reference pictures connected. Press Run.")
        page.screenshot(path=shots / "watch.png")

    def test_it_covers_no_other_node(self, page: Page) -> None:
        watched(page, PLAIN)
        boxes = page.evaluate(
            "() => app.graph.nodes.map(({ pos, size }) => [pos[0], pos[1] - 30, ...size])"
        )
        for number, (x, y, width, height) in enumerate(boxes):
            for left, top, across, down in boxes[:number]:
                apart = x + width <= left or left + across <= x
                assert apart or y + height + 30 <= top or top + down + 30 <= y

    def test_stopping_leaves_the_graph_as_it_was_to_the_byte(self, page: Page) -> None:
        build(page, PLAIN)
        before = saved(page)
        command(page, WATCH)
        assert saved(page) != before
        command(page, STOP)
        assert saved(page) == before
        command(page, STOP)
        says(page, "Nothing is watched here.")

    def test_so_it_does_when_saved_and_opened_again(self, page: Page) -> None:
        build(page, PLAIN)
        before = saved(page)
        page.evaluate("(data) => app.loadGraphData(JSON.parse(data))", before)
        opened = saved(page)
        command(page, WATCH)
        page.evaluate("(data) => app.loadGraphData(JSON.parse(data))", saved(page))
        command(page, STOP)
        assert json.loads(saved(page))["links"] == json.loads(opened)["links"]
        assert saved(page) == opened

    def test_stopping_keeps_what_was_changed_meanwhile(self, page: Page) -> None:
        numbers = build(page, PLAIN)
        command(page, WATCH)
        page.evaluate(
            """(number) => {
                const sampler = app.graph.getNodeById(number);
                sampler.widgets.find((widget) => widget.name === 'steps').value = 7;
                const note = LiteGraph.createNode('Note');
                note.title = 'added meanwhile';
                app.graph.add(note);
            }""",
            numbers["sampler"],
        )
        command(page, STOP)
        found = titled(prompt(page))
        assert found["sampler"]["steps"] == 7
        assert found["sampler"]["model"] == ("model", 0)
        after = json.loads(saved(page))
        assert "added meanwhile" in [node["title"] for node in after["nodes"] if "title" in node]
        assert not [node for node in after["nodes"] if node["type"].startswith("I2AM_")]

    def test_one_undo_takes_all_of_it_back(self, page: Page) -> None:
        build(page, PLAIN)
        before = json.loads(saved(page))
        command(page, WATCH)
        command(page, "Comfy.Undo")
        page.wait_for_function("() => !app.graph.nodes.some((n) => n.type.startsWith('I2AM_'))")
        after = json.loads(saved(page))
        assert after["links"] == before["links"]
        assert len(after["nodes"]) == len(before["nodes"])

    def test_twice_is_once(self, page: Page) -> None:
        watched(page, PLAIN)
        close_toasts(page)
        command(page, WATCH)
        says(page, "It is watched already.")
        nodes = json.loads(saved(page))["nodes"]
        assert sum(node["type"] == "I2AM_Collect" for node in nodes) == 1

    def test_a_capture_that_is_there_is_used_and_stays(self, page: Page) -> None:
        spec = PLAIN | {"mine": ("I2AM_Capture", {"model": ["model", 0]})} | sampled(model="mine")
        found = watched(page, spec)
        assert found["sampler"]["model"] == ("mine", 0)
        assert CAPTURE not in found
        command(page, STOP)
        assert titled(prompt(page))["sampler"]["model"] == ("mine", 0)


@pytest.mark.parametrize("vue", [False, True], ids=["classic nodes", "Nodes 2.0"])
def test_the_menu_of_the_sampler_offers_it(page: Page, shots: Path, vue: bool) -> None:
    page.evaluate("(on) => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', on)", vue)
    try:
        numbers = build(page, PLAIN)
        page.evaluate(
            """(number) => {
                const node = app.graph.getNodeById(number), view = app.canvas.ds;
                view.scale = 1;
                view.offset[0] = 600 - node.pos[0];
                view.offset[1] = 300 - node.pos[1];
                app.canvas.setDirty(true, true);
            }""",
            numbers["sampler"],
        )
        page.wait_for_timeout(500)
        box = page.locator("#graph-canvas").bounding_box()
        assert box
        page.mouse.click(box["x"] + 680, box["y"] + 285, button="right")
        item = page.get_by_text("Watch the references (I2AM)").first
        item.wait_for()
        page.screenshot(path=shots / f"watch_menu_{'vue' if vue else 'classic'}.png")
        item.click()
        page.wait_for_function("() => app.graph.nodes.some((n) => n.type === 'I2AM_Viewer')")
        assert references(titled(prompt(page))) == {"1": ("scaled", 0), "2": ("second", 0)}
        page.wait_for_timeout(500)
        page.screenshot(path=shots / f"watch_{'vue' if vue else 'classic'}.png")
    finally:
        page.keyboard.press("Escape")
        page.evaluate("() => app.extensionManager.setting.set('Comfy.VueNodes.Enabled', false)")


def test_the_menu_speaks_the_pages_language(server: ComfyServer, browser: Browser) -> None:
    page = open_empty_page(browser, server, settings={"Comfy.Locale": "ko"})
    try:
        page.reload()
        page.wait_for_function(READY)
        page.wait_for_load_state("networkidle")
        build(page, PLAIN)
        offered = page.evaluate(
            """() => {
                const sampler = app.graph.nodes.find((node) => node.type === 'KSampler');
                return app.collectNodeMenuItems(sampler).map((item) => item?.content);
            }"""
        )
        assert "참조 관찰하기 (I2AM)" in offered
    finally:
        page.evaluate("() => app.extensionManager.setting.set('Comfy.Locale', 'en')")
        page.close()


# The demo as built by an artist who does not know us: without anything that watches.
UNWATCHED = """
() => {
    const { graph } = app, of = (type) => graph.nodes.find((node) => node.type === type);
    of('UNETLoader').connect(0, of('KSampler'), 0);
    const ours = (node) => node.type.startsWith('I2AM_') && node.type !== 'I2AM_BlankPrompt';
    for (const node of graph.nodes.filter(ours)) graph.remove(node);
    const idle = (node) => node.inputs?.length && node.inputs.every(({ link }) => link == null);
    for (const node of graph.nodes.filter(idle))
        if (!node.outputs?.some(({ links }) => links?.length)) graph.remove(node);
}
"""


def test_from_a_graph_without_us_to_a_map_by_one_click_and_run(
    page: Page, server: ComfyServer, shots: Path
) -> None:
    """And the picture is bit for bit that of the run without capture."""
    load_demo = "(data) => app.loadGraphData(data)"
    page.evaluate(load_demo, demo_workflow())
    page.evaluate(UNWATCHED)
    plain = prompt(page)
    assert not {kind for node in plain.values() if "I2AM_C" in (kind := node["class_type"])}
    (save,) = (name for name, node in plain.items() if node["class_type"] == "SaveImage")
    without = server.download(server.run(plain)[save]["images"][0])
    close_toasts(page)
    command(page, WATCH)
    says(page, "Watching KSampler: 2 reference pictures connected. Press Run.")
    page.wait_for_timeout(300)
    press_run(page)
    page.screenshot(path=shots / "watch_run.png")
    history = list(server.get_json("/history").values())[-1]
    assert history["status"]["status_str"] == "success", history["status"]
    shown = server.download(history["outputs"][save]["images"][0])
    with Image.open(io.BytesIO(without)) as one, Image.open(io.BytesIO(shown)) as other:
        assert one.tobytes() == other.tobytes()
    assert page.locator(".i2am-box").count() == 2


class TestWhatCannotBeWatched:
    def test_a_picture_that_enters_as_channels(self, page: Page) -> None:
        filled = {"positive": ["text", 0], "negative": ["text", 0], "vae": ["vae", 0]}
        filled |= {"pixels": ["first", 0], "mask": ["mask", 0]}
        build(page, LOADERS | {"fill": ("InpaintModelConditioning", filled)} | sampled("fill"))
        unwatched = saved(page)
        command(page, WATCH)
        says(page, "Not watched: sampler")
        says(page, "pixels of fill enters as channels of the result")
        assert saved(page) == unwatched

    def test_a_sampler_without_a_model(self, page: Page) -> None:
        spec = PLAIN | sampled()
        del spec["sampler"][1]["model"]
        build(page, spec)
        unwatched = saved(page)
        command(page, WATCH)
        says(page, "sampler gets no model. Connect one, then watch it.")
        assert saved(page) == unwatched

    def test_a_graph_without_a_sampler(self, page: Page) -> None:
        build(page, LOADERS)
        command(page, WATCH)
        says(page, "No node that samples runs on this graph.")

    def test_what_is_not_found_stays_open_and_is_said(self, page: Page) -> None:
        """A reference latent with no known picture, and no decoder."""
        spec = PLAIN | {
            "reference 2": (
                "ReferenceLatent",
                {"conditioning": ["reference 1", 0], "latent": ["empty", 0]},
            )
        }
        del spec["decode"], spec["save"]
        found = watched(page, spec)
        assert references(found) == {"1": ("scaled", 0)}
        assert "image" not in found[COLLECT]
        says(page, "The picture of reference 2 (latent of reference 2) was not found.")
        says(page, "The finished picture was not found.")
