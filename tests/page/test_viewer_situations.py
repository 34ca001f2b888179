"""The Attribution Viewer beyond square pictures on a plain graph: operated, with screenshots."""

from __future__ import annotations

import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Browser, Page
from recordings import recording

from i2am.display import pack_payload
from i2am.maps import attribution_map, display_values
from i2am.recording import Attribution, Definition, Direction
from i2am.tokens import Grid
from tools.comfyui.server import ComfyServer
from tools.comfyui.viewer_page import (
    NODE,
    READY,
    SHOWN,
    as_executed,
    button,
    centre,
    demo_workflow,
    leave,
    open_page,
    picture,
    point,
    press,
    press_run,
    sentence,
    settled,
    show,
    state,
)
from tools.workflows.api_prompt import find, only, to_prompt

RENDERER = "Comfy.VueNodes.Enabled"
STOPPED = '.i2am-viewer[data-state="stopped"]'
SHOWS_NOTHING_ELSE = {"SaveImage", "I2AM_Map", "I2AM_IMACS", "I2AM_Save", "PreviewAny"}


def short_demo(**widgets: dict[int, Any]) -> dict[str, Any]:
    """The demo up to the viewer. widgets: node type → new values by index."""
    workflow = demo_workflow()
    nodes = [node for node in workflow["nodes"] if node["type"] not in SHOWS_NOTHING_ELSE]
    kept = {node["id"] for node in nodes}
    links = [link for link in workflow["links"] if {link[1], link[3]} <= kept]
    whole = {link[0] for link in links}
    for node in nodes:
        for place, value in widgets.get(node["type"], {}).items():
            node["widgets_values"][place] = value
        for output in node.get("outputs", ()):
            output["links"] = [link for link in output["links"] or () if link in whole]
    return workflow | {"nodes": nodes, "links": links}


def unlinked(workflow: dict[str, Any], kind: str, inputs: str) -> dict[str, Any]:
    """The same, without the wires to a node's inputs whose names start like this."""
    (node,) = (node for node in workflow["nodes"] if node["type"] == kind)
    cut = {slot["link"] for slot in node["inputs"] if slot["name"].startswith(inputs)}
    for slot in node["inputs"]:
        slot["link"] = None if slot["link"] in cut else slot["link"]
    for other in workflow["nodes"]:
        for output in other.get("outputs", ()):
            output["links"] = [link for link in output["links"] or () if link not in cut]
    return workflow | {"links": [link for link in workflow["links"] if link[0] not in cut]}


def opened(browser: Browser, server: ComfyServer, workflow: dict[str, Any], **more: Any) -> Page:
    return open_page(browser, server, workflow, on_error=pytest.fail, **more)


def set_widget(page: Page, kind: str, name: str, value: Any) -> None:
    """Sets a widget on the only node of that type."""
    page.evaluate(
        """([kind, name, value]) => {
            const node = app.graph.nodes.find((node) => node.type === kind);
            node.widgets.find((widget) => widget.name === name).value = value;
        }""",
        [kind, name, value],
    )


def caption(page: Page, side: int) -> str:
    return page.locator(".i2am-figure figcaption").nth(side).inner_text().replace("\n", " ")


def test_a_batch(browser: Browser, server: ComfyServer, shots: Path) -> None:
    """One of several results at a time, each with its own picture, maps and shares."""
    page = opened(browser, server, short_demo(EmptySD3LatentImage={2: 3}))
    press_run(page)
    seen: list[np.ndarray] = []
    for number in (1, 2, 3):
        assert f"{number} of 3" in caption(page, 0)
        seen.append(picture(page))
        if number < 3:
            press(page, "Next picture")
            settled(page)
    assert np.abs(seen[0].astype(int) - seen[1].astype(int)).mean() > 1
    assert np.abs(seen[1].astype(int) - seen[2].astype(int)).mean() > 1
    page.screenshot(path=shots / "viewer_batch.png")
    press(page, "Next picture")
    settled(page)
    assert state(page)["item"] == 0
    assert np.abs(seen[0].astype(int) - picture(page).astype(int)).mean() < 1
    page.close()


def test_the_picture_itself(browser: Browser, server: ComfyServer, shots: Path) -> None:
    """A result that attends to itself is on both sides, and each place finds itself."""
    workflow = short_demo(I2AM_Capture={4: "the picture itself"})
    page = opened(browser, server, unlinked(workflow, "I2AM_Collect", "references."))
    press_run(page)
    assert caption(page, 1).startswith("The picture itself")
    assert page.locator(".i2am-tabs").is_hidden()
    point(page, 0, 0.3, 0.3)
    assert "looked in the picture itself" in sentence(page)
    page.screenshot(path=shots / "viewer_within.png")
    page.close()


def test_a_video(browser: Browser, server: ComfyServer, shots: Path) -> None:
    """One latent frame at a time, over a picture of that frame."""
    grids = Grid(8, 12, frames=3), (Grid(8, 12),)
    made = recording(generated=grids[0], references=grids[1], batch=1)
    pictures = torch.zeros(9, 128, 192, 3)
    for number, one in enumerate(pictures):  # one shade per picture of the video
        one[..., :] = (number + 1) / 10
    page = opened(browser, server, short_demo())
    payload = pack_payload(Attribution(made, pictures, (pictures[:1],)))
    show(page, as_executed(server, "video", payload, pictures))
    settled(page)
    press(page, "Settings")
    frames = page.locator(".i2am-field", has_text="Frame").locator("select")
    assert frames.locator("option").all_inner_texts() == ["mean of all", "0", "1", "2"]
    mean = page.locator(".i2am-box").first.screenshot()
    frames.select_option("2")
    settled(page)
    assert "frame 2" in sentence(page)
    assert page.locator(".i2am-box").first.screenshot() != mean
    page.get_by_label("Opacity").fill("0")
    settled(page)
    shot = page.locator(".i2am-box").first.screenshot()
    with Image.open(io.BytesIO(shot)) as below:
        shade = np.array(below.convert("L")).mean() / 255
    assert 0.65 < shade < 0.95, "a picture of the last third of the video"
    page.get_by_label("Opacity").fill("0.8")
    page.screenshot(path=shots / "viewer_video.png")
    page.close()


def test_copied_values_are_those_of_the_map(
    browser: Browser, server: ComfyServer, shots: Path
) -> None:
    grids = Grid(6, 14), (Grid(6, 14),)
    made = recording(generated=grids[0], references=grids[1], batch=1)
    wide = torch.rand(1, 288, 672, 3)
    page = opened(browser, server, short_demo())
    show(page, as_executed(server, "copied", pack_payload(Attribution(made, wide, (wide,))), wide))
    settled(page)
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    press(page, "Copy")
    text = page.evaluate("() => navigator.clipboard.readText()")
    first, *rows = text.split("\n")
    assert first.startswith("Where reference 1 was used · the effect of leaving it out")
    copied = torch.tensor([[float(value) for value in row.split("\t")] for row in rows])
    maps = attribution_map(made, Definition.EFFECT, Direction.REFERENCE_TO_GENERATED)
    torch.testing.assert_close(copied, display_values(maps)[0, 0], rtol=1e-3, atol=1e-5)
    assert "Copied 6 × 14 values" in page.locator(".i2am-notice").inner_text()
    page.screenshot(path=shots / "viewer_copied.png")
    page.close()


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
def test_the_papers_preset(browser: Browser, server: ComfyServer, shots: Path, vue: bool) -> None:
    """The viewer names it, paints with its cut, and lets it take over the controls it sets."""
    page = opened(browser, server, short_demo(), settings={RENDERER: vue})
    press_run(page)
    press(page, "Settings")
    before = picture(page)
    page.get_by_label("Weight").select_option("equal")
    assert "layers equal" in sentence(page)
    page.get_by_label("Preset").select_option("paper")
    settled(page)
    said = sentence(page)
    assert "the paper's definition" in said
    assert "layers by value · official order · min-max, cut at 0.4" in said
    for name in ("Definition", "Weight", "Scale"):
        assert page.get_by_label(name).is_disabled()
    legend = page.locator(".i2am-legend").first.inner_text().split()
    assert legend[:2] == ["0", "1"]
    page.screenshot(path=shots / f"viewer_preset_{'vue' if vue else 'classic'}.png")
    page.get_by_label("Preset").select_option("as chosen")
    page.get_by_label("Weight").select_option("mass")
    settled(page)
    assert np.abs(picture(page).astype(int) - before.astype(int)).mean() < 1
    page.close()


def test_playing(browser: Browser, server: ComfyServer) -> None:
    """It steps through the maps one by one, and stops on request."""
    page = opened(browser, server, short_demo())
    press_run(page)
    press(page, "Steps")
    said = [sentence(page)]
    press(page, "Play")
    for _ in range(4):
        page.wait_for_timeout(450)
        said.append(sentence(page))
    press(page, "Pause")
    assert len(set(said)) >= 4
    stopped = sentence(page)
    page.wait_for_timeout(1200)
    assert sentence(page) == stopped
    # A level with another number of maps, while playing.
    press(page, "Play")
    press(page, "Layers")
    page.wait_for_timeout(2500)
    assert "layers" not in sentence(page).split(" · ")[2]
    press(page, "All")
    page.wait_for_timeout(700)
    assert button(page, "Play").is_hidden()
    assert "all steps · all layers" in sentence(page)
    page.close()


def test_the_keyboard_alone(browser: Browser, server: ComfyServer, shots: Path) -> None:
    """Every control can be reached with Tab, operated, and visibly focused."""
    page = opened(browser, server, short_demo())
    press_run(page)
    leave(page)
    press(page, "Settings")
    page.locator(".i2am-tabs button").first.focus()
    reached: list[str] = []
    for _ in range(60):
        at = page.evaluate(
            """() => {
                const at = document.activeElement;
                if (!at.closest('.i2am-viewer')) return null;
                const label = at.labels?.[0]?.querySelector('span')?.textContent;
                return at.getAttribute('aria-label') ?? label ?? at.textContent;
            }"""
        )
        if at is None:
            break
        reached.append(at)
        ring = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        assert reached[1:] == [] or ring != "none", f"nobody sees that {at} has the focus"
        page.keyboard.press("Tab")
    wanted = ["Copy", "PNG", "Mask", "What is this?", "Where used", "What used", "All", "Steps"]
    wanted += ["Layers", "Heads", "Settings", "First steps", "Last steps", "First layers"]
    wanted += [
        "Last layers",
        "Definition",
        "Weight",
        "Preset",
        "Colours",
        "Scale",
        "Opacity",
        "Outline",
    ]
    assert [one for one in reached if one in wanted] == wanted
    assert sum(one.startswith(("Result. Arrow", "Reference. Arrow")) for one in reached) == 2

    button(page, "What used").focus()
    page.keyboard.press("Enter")
    assert sentence(page).startswith("What was used of reference 2")
    page.get_by_label("Last steps").focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")
    assert "steps 0–16" in sentence(page)
    page.locator(".i2am-box").nth(1).focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert "What of the result looked at this place of reference 2" in sentence(page)
    page.screenshot(path=shots / "viewer_keyboard.png")
    page.keyboard.press("Escape")
    assert state(page)["pin"] is None
    nodes = page.evaluate("() => app.graph.nodes.length")
    page.keyboard.press("Delete")
    page.keyboard.press("Backspace")
    assert page.evaluate("() => app.graph.nodes.length") == nodes
    page.close()


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
def test_inside_a_subgraph(browser: Browser, server: ComfyServer, shots: Path, vue: bool) -> None:
    """Collect and viewer in a subgraph: the viewer is filled there, and again after a reload."""
    page = opened(browser, server, short_demo(), settings={RENDERER: vue})
    page.evaluate(
        """() => {
            const inside = ['I2AM_Collect', 'I2AM_Viewer'];
            const nodes = app.graph.nodes.filter((node) => inside.includes(node.type));
            const { node } = app.graph.convertToSubgraph(new Set(nodes));
            app.canvas.openSubgraph(node.subgraph, node);
        }"""
    )
    inner = NODE.replace("app.graph", "app.canvas.graph")
    page.wait_for_function(f"() => {inner}")
    page.wait_for_timeout(800)
    with page.expect_response(lambda answer: ".i2am" in answer.url):
        page.get_by_test_id("queue-button").first.click()
    page.wait_for_selector(SHOWN)
    look = f"""() => {{
        const node = {inner}, view = app.canvas.ds;
        view.scale = 1;
        view.offset[0] = 750 - node.pos[0] - node.size[0] / 2;
        view.offset[1] = 500 - node.pos[1] - node.size[1] / 2;
        app.canvas.setDirty(true, true);
    }}"""
    page.evaluate(look)
    settled(page)
    page.wait_for_timeout(500)
    point(page, 0, 0.7, 0.7)
    said = sentence(page)
    assert "Where this place of the result looked in reference 2" in said
    page.screenshot(path=shots / f"viewer_subgraph_{'vue' if vue else 'classic'}.png")

    page.mouse.down()
    page.mouse.up()
    page.wait_for_timeout(1500)  # the page saves its drafts a moment later
    page.reload()
    page.wait_for_function(f"{READY} && app.rootGraph.nodes.some((node) => node.subgraph)")
    page.evaluate(
        """() => {
            const node = app.rootGraph.nodes.find((node) => node.subgraph);
            app.canvas.openSubgraph(node.subgraph, node);
        }"""
    )
    page.wait_for_selector(SHOWN)
    settled(page)
    assert sentence(page) == said
    page.close()


def test_small_and_long(browser: Browser, server: ComfyServer, shots: Path) -> None:
    """A narrow node with a long title, and a tall picture beside a 21:9 one, zoomed out and in."""
    grids = Grid(16, 6), (Grid(6, 14),)
    made = recording(generated=grids[0], references=grids[1], batch=1)
    tall, wide = torch.rand(1, 512, 192, 3), torch.rand(1, 288, 672, 3)
    page = opened(browser, server, short_demo())
    output = as_executed(server, "tall", pack_payload(Attribution(made, tall, (wide,))), tall)
    output["references"] = as_executed(server, "wide", b"", wide)["references"]
    show(page, output)
    page.evaluate(
        f"""() => {{
            {NODE}.title = 'A title that is much longer than its node is wide, and then some more';
            {NODE}.setSize([400, 420]);
        }}"""
    )
    for scale, name in ((1, "narrow"), (0.4, "narrow_far"), (2, "narrow_near")):
        centre(page, scale)
        settled(page)
        page.screenshot(path=shots / f"viewer_{name}.png")
        for side, (down, across) in enumerate(((512, 192), (288, 672))):
            box = page.locator(".i2am-box").nth(side).bounding_box()
            assert box
            assert box["width"] / box["height"] == pytest.approx(across / down, rel=0.05)
    page.close()


@pytest.mark.parametrize("vue", [False, True], ids=["classic", "vue"])
def test_a_run_that_stops(browser: Browser, server: ComfyServer, shots: Path, vue: bool) -> None:
    """A stop before the viewer: an empty one says so until the next run, a filled one stays."""
    page = opened(browser, server, short_demo(), settings={RENDERER: vue})
    message, run = page.locator(".i2am-message"), page.get_by_test_id("queue-button").first
    empty = message.inner_text()
    set_widget(page, "I2AM_Capture", "layers", "77")
    run.click()
    page.wait_for_selector(STOPPED)
    assert "ended with an error" in message.inner_text()
    centre(page, 0.5)  # with the failed node in view
    page.screenshot(path=shots / f"viewer_stopped_{'vue' if vue else 'classic'}.png")

    set_widget(page, "I2AM_Capture", "layers", "")
    set_widget(page, "KSampler", "steps", 10_000)
    run.click()
    page.wait_for_selector('.i2am-viewer[data-state="empty"]')
    assert message.inner_text() == empty
    page.wait_for_function("() => document.querySelector('.i2am-live p')?.textContent")
    page.evaluate("() => app.api.interrupt(null)")
    page.wait_for_selector(STOPPED)
    assert "was interrupted" in message.inner_text()

    set_widget(page, "KSampler", "steps", 4)
    press_run(page)
    said = sentence(page)
    set_widget(page, "I2AM_Capture", "layers", "77")
    page.evaluate(
        """() => {
            const tell = (told) => app.api.addEventListener('execution_error', told);
            window.failed = new Promise(tell);
        }"""
    )
    run.click()
    page.evaluate("() => window.failed.then(() => null)")
    assert page.locator(SHOWN).count() == 1
    assert sentence(page) == said
    page.close()


def test_a_recording_that_is_gone(
    browser: Browser, server: ComfyServer, comfyui_path: Path, tmp_path: Path, shots: Path
) -> None:
    """A latent whose recording was lost, here because its server is gone: the page says so."""
    prompt = to_prompt(short_demo(), server.get_json("/object_info"))
    saved = {"samples": [find(prompt, "KSampler"), 0], "filename_prefix": "kept"}
    prompt["save"] = {"class_type": "SaveLatent", "inputs": saved}
    server.run(only(prompt, "save"))
    (latent,) = (server.base / "output").glob("kept_*.latent")
    base = tmp_path / "base"
    (base / "input").mkdir(parents=True)
    shutil.copy(latent, base / "input" / "kept.latent")
    with ComfyServer(comfyui_path, base=base, threads=1) as other:
        page = opened(browser, other, short_demo())
        page.evaluate(
            """() => {
                const find = (type) => app.graph.nodes.find((node) => node.type === type);
                const sampler = find('KSampler'), kept = LiteGraph.createNode('LoadLatent');
                app.graph.add(kept);
                kept.connect(0, find('VAEDecode'), 0);
                kept.connect(0, find('I2AM_Collect'), 0);
                app.graph.remove(sampler);
            }"""
        )
        page.get_by_test_id("queue-button").first.click()
        page.get_by_role("button", name="View details").click()
        told = page.get_by_text("No recording belongs to this latent").first
        told.wait_for()
        page.wait_for_timeout(500)
        page.screenshot(path=shots / "viewer_no_recording.png")
        assert "its recording was lost to newer ones" in told.inner_text()
        page.close()
