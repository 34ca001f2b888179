"""Watch the references: on graphs of every kind, in ComfyUI's own page."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from page_graphs import (
    STOP,
    WATCH,
    Spec,
    build,
    close_toasts,
    command,
    prompt,
    saved,
    titled,
    toasts,
)
from PIL import Image
from playwright.sync_api import Browser, Page

from tools.comfyui.server import ComfyServer
from tools.comfyui.viewer_page import (
    READY,
    close_welcome,
    demo_workflow,
    open_empty_page,
    press_run,
)

CAPTURE, COLLECT, VIEWER = "Capture Attention", "Collect Attribution", "Attribution Viewer"
BYPASSED = 4
LOADERS: Spec = {
    "model": ("UNETLoader", {}),
    "text encoder": ("CLIPLoader", {}),
    "vae": ("VAELoader", {}),
    "first": ("LoadImage", {}),
    "second": ("LoadImage", {}),
    "empty": ("EmptySD3LatentImage", {}),
    "text": ("CLIPTextEncode", {"clip": ["text encoder", 0]}),
}
TWO_REFERENCES: Spec = {
    "scaled": ("FluxKontextImageScale", {"image": ["first", 0]}),
    "encode 1": ("VAEEncode", {"pixels": ["scaled", 0], "vae": ["vae", 0]}),
    "encode 2": ("VAEEncode", {"pixels": ["second", 0], "vae": ["vae", 0]}),
    "reference 1": (
        "ReferenceLatent",
        {"conditioning": ["text", 0], "latent": ["encode 1", 0]},
    ),
    "reference 2": (
        "ReferenceLatent",
        {"conditioning": ["reference 1", 0], "latent": ["encode 2", 0]},
    ),
    "guidance": ("FluxGuidance", {"conditioning": ["reference 2", 0]}),
}


def sampled(positive: str = "guidance", model: str = "model", latent: str = "empty") -> Spec:
    """A KSampler, its decoder and what saves the picture."""
    inputs: dict[str, Any] = {"model": [model, 0], "positive": [positive, 0]}
    inputs |= {"negative": ["text", 0], "latent_image": [latent, 0]}
    return {
        "sampler": ("KSampler", inputs),
        "decode": ("VAEDecode", {"samples": ["sampler", 0], "vae": ["vae", 0]}),
        "save": ("SaveImage", {"images": ["decode", 0]}),
    }


PLAIN: Spec = LOADERS | TWO_REFERENCES | sampled()


@pytest.fixture(scope="module")
def page(server: ComfyServer, browser: Browser) -> Iterator[Page]:
    errors: list[str] = []
    page = open_empty_page(browser, server, on_error=errors.append)
    close_welcome(page)
    yield page
    page.close()
    assert errors == []


def references(found: dict[str, Any]) -> dict[str, Any]:
    """What Collect Attribution is given as references, by number."""
    inputs = found[COLLECT].items()
    head = "references.reference_"
    return {name.removeprefix(head): wire for name, wire in inputs if name.startswith(head)}


def watched(page: Page, spec: Spec) -> dict[str, Any]:
    """A graph, watched with the command: the prompt's nodes by title."""
    build(page, spec)
    command(page, WATCH)
    return titled(prompt(page))


class TestAPlainSampler:
    def test_everything_is_wired(self, page: Page, shots: Path) -> None:
        found = watched(page, PLAIN)
        assert found["sampler"]["model"] == (CAPTURE, 0)
        assert found[CAPTURE]["model"] == ("model", 0)
        assert found[COLLECT]["samples"] == ("sampler", 0)
        assert found[COLLECT]["image"] == ("decode", 0)
        assert references(found) == {"1": ("scaled", 0), "2": ("second", 0)}
        assert found[VIEWER]["attribution"] == (COLLECT, 0)
        assert "Watching sampler: 2 reference pictures connected. Press Run." in toasts(page)
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
        assert "Nothing is watched here." in toasts(page)

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
        assert "It is watched already." in toasts(page)
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


class TestTheWayUp:
    def test_past_reroutes_and_bypassed_nodes(self, page: Page) -> None:
        spec = PLAIN | {
            "bypassed scale": ("ImageScaleBy", {"image": ["first", 0], "mode": BYPASSED}),
            "reroute": ("Reroute", {"": ["bypassed scale", 0]}),
            "encode 1": ("VAEEncode", {"pixels": ["reroute", 0], "vae": ["vae", 0]}),
            "bypassed reference": (
                "ReferenceLatent",
                {"conditioning": ["reference 2", 0], "latent": ["encode 2", 0], "mode": BYPASSED},
            ),
            "guidance": ("FluxGuidance", {"conditioning": ["bypassed reference", 0]}),
            "model reroute": ("Reroute", {"": ["model", 0]}),
        }
        found = watched(page, spec | sampled(model="model reroute"))
        assert references(found) == {"1": ("first", 0), "2": ("second", 0)}
        assert found[CAPTURE]["model"] == ("model", 0)

    def test_past_set_and_get_nodes(self, page: Page) -> None:
        """As ComfyUI-KJNodes has them: virtual, and a Get's wire is that into its Set."""
        page.evaluate(
            """() => {
                if (LiteGraph.registered_node_types.SetNode) return;
                class SetNode extends LGraphNode {
                    isVirtualNode = true;
                    constructor(title) { super(title); this.addInput('*', '*');
                        this.addOutput('*', '*'); this.addWidget('text', 'name', '', () => {}); }
                }
                class GetNode extends LGraphNode {
                    isVirtualNode = true;
                    constructor(title) { super(title); this.addOutput('*', '*');
                        this.addWidget('text', 'name', '', () => {}); }
                    getInputLink() {
                        const name = this.widgets[0].value;
                        const set = this.graph.nodes.find(
                            (node) => node.type === 'SetNode' && node.widgets[0].value === name);
                        return this.graph.getLink(set.inputs[0].link);
                    }
                }
                LiteGraph.registerNodeType('SetNode', SetNode);
                LiteGraph.registerNodeType('GetNode', GetNode);
            }"""
        )
        spec = PLAIN | {
            "set": ("SetNode", {"*": ["reference 2", 0], "name": "references"}),
            "get": ("GetNode", {"name": "references"}),
            "guidance": ("FluxGuidance", {"conditioning": ["get", 0]}),
        }
        found = watched(page, spec)
        assert references(found) == {"1": ("scaled", 0), "2": ("second", 0)}

    def test_of_a_pair_of_conditionings_the_positive_one(self, page: Page) -> None:
        spec = LOADERS | TWO_REFERENCES
        controlled = {"positive": ["reference 1", 0], "negative": ["reference 2", 0]}
        spec |= {"control": ("ControlNetApplyAdvanced", controlled)}
        found = watched(page, spec | sampled("control"))
        assert references(found) == {"1": ("scaled", 0)}

    @pytest.mark.parametrize(("on", "picture"), [(True, "scaled"), (False, "second")])
    def test_a_switch_hands_on_what_it_is_set_to(self, page: Page, on: bool, picture: str) -> None:
        spec = PLAIN | {
            "alone": (
                "ReferenceLatent",
                {"conditioning": ["text", 0], "latent": ["encode 2", 0]},
            ),
            "on": ("PrimitiveBoolean", {"value": on}),
            "switch": (
                "ComfySwitchNode",
                {"on_true": ["reference 1", 0], "on_false": ["alone", 0], "switch": ["on", 0]},
            ),
        }
        found = watched(page, spec | sampled("switch"))
        assert references(found) == {"1": (picture, 0)}

    def test_a_mask_of_the_latent(self, page: Page) -> None:
        spec = PLAIN | {
            "masked": ("SetLatentNoiseMask", {"samples": ["encode 1", 0], "mask": ["first", 1]})
        }
        found = watched(page, spec | sampled(latent="masked"))
        assert found[COLLECT]["mask"] == ("first", 1)

    def test_text_encoders_with_pictures(self, page: Page) -> None:
        edit = {"clip": ["text encoder", 0], "image1": ["first", 0], "image2": ["second", 0]}
        node = "TextEncodeQwenImageEditPlus"
        found = watched(
            page, LOADERS | {"edit": (node, edit | {"vae": ["vae", 0]})} | sampled("edit")
        )
        assert references(found) == {"1": ("first", 0), "2": ("second", 0)}
        watched(page, LOADERS | {"edit": (node, edit)} | sampled("edit"))
        assert "No reference was found on the positive conditioning." in toasts(page)

    def test_redux_is_marked_behind_each_style(self, page: Page) -> None:
        spec = LOADERS | {
            "vision": ("CLIPVisionLoader", {}),
            "style model": ("StyleModelLoader", {}),
        }
        before = "text"
        for name in ("first", "second"):
            seen = {"clip_vision": ["vision", 0], "image": [name, 0]}
            spec |= {f"see {name}": ("CLIPVisionEncode", seen)}
            style = {"conditioning": [before, 0], "style_model": ["style model", 0]}
            style |= {"clip_vision_output": [f"see {name}", 0]}
            spec |= {f"style {name}": ("StyleModelApply", style)}
            before = f"style {name}"
        build(page, spec | sampled("style second"))
        unwatched = saved(page)
        command(page, WATCH)
        found = prompt(page)
        marks = {n: one for n, one in found.items() if one["class_type"] == "I2AM_MarkRedux"}
        names = {number: one["_meta"]["title"] for number, one in found.items()}
        stands = {
            names[mark["inputs"]["conditioning"][0]]: names[mark["inputs"]["clip_vision_output"][0]]
            for mark in marks.values()
        }
        assert stands == {"style first": "see first", "style second": "see second"}
        assert titled(found)["sampler"]["positive"][0] == "Mark Redux Tokens"
        assert references(titled(found)) == {"1": ("first", 0), "2": ("second", 0)}
        command(page, STOP)
        assert saved(page) == unwatched

    def test_styles_and_adapters_on_the_models_wire(self, page: Page) -> None:
        seen = {"clip_vision": ["vision", 0], "image": ["first", 0]}
        style = {"model": ["model", 0], "model_patch": ["patch", 0]}
        spec = PLAIN | {
            "vision": ("CLIPVisionLoader", {}),
            "see": ("CLIPVisionEncode", seen),
            "patch": ("ModelPatchLoader", {}),
            "style": ("USOStyleReference", style | {"clip_vision_output": ["see", 0]}),
        }
        found = watched(page, spec | sampled(model="style"))
        assert references(found) == {"1": ("first", 0), "2": ("scaled", 0), "3": ("second", 0)}
        assert found[CAPTURE]["model"] == ("style", 0)


class TestGuiders:
    def spec(self, guider: str, positive: str, **more: Any) -> Spec:
        return (
            LOADERS
            | TWO_REFERENCES
            | {
                "guider": (guider, {"model": ["model", 0], positive: ["guidance", 0], **more}),
                "sampler": (
                    "SamplerCustomAdvanced",
                    {"guider": ["guider", 0], "latent_image": ["empty", 0]},
                ),
                "decode": ("VAEDecode", {"samples": ["sampler", 1], "vae": ["vae", 0]}),
                "save": ("SaveImage", {"images": ["decode", 0]}),
            }
        )

    @pytest.mark.parametrize(
        ("guider", "positive"),
        [("BasicGuider", "conditioning"), ("CFGGuider", "positive"), ("DualCFGGuider", "cond1")],
    )
    def test_the_guiders_model_is_watched(self, page: Page, guider: str, positive: str) -> None:
        build(page, self.spec(guider, positive))
        unwatched = saved(page)
        command(page, WATCH)
        found = titled(prompt(page))
        assert found["guider"]["model"] == (CAPTURE, 0)
        assert found[COLLECT]["samples"] == ("sampler", 0)
        assert found[COLLECT]["image"] == ("decode", 0)
        assert references(found) == {"1": ("scaled", 0), "2": ("second", 0)}
        command(page, STOP)
        assert saved(page) == unwatched

    def test_two_samplers_of_one_guider_share_its_capture(self, page: Page) -> None:
        spec = self.spec("CFGGuider", "positive")
        second = {"guider": ["guider", 0], "latent_image": ["sampler", 0]}
        spec |= {
            "second sampler": ("SamplerCustomAdvanced", second),
            "decode": ("VAEDecode", {"samples": ["second sampler", 0], "vae": ["vae", 0]}),
        }
        build(page, spec)
        unwatched = saved(page)
        command(page, WATCH)
        found = prompt(page)
        kinds = [node["class_type"] for node in found.values()]
        assert kinds.count("I2AM_Capture") == 1
        assert kinds.count("I2AM_Collect") == 2
        assert "Watching 2 samplers: 4 reference pictures connected." in toasts(page)
        command(page, STOP)
        assert saved(page) == unwatched


class TestSubgraphs:
    """The plain graph with parts of it put into subgraphs."""

    GROUP = """
    (titles) => {
        const items = new Set(app.graph.nodes.filter((node) => titles.includes(node.title)));
        const { subgraph, node } = app.graph.convertToSubgraph(items);
        node.title = 'subgraph';
        return String(node.id);
    }
    """

    @pytest.mark.parametrize(
        "inside",
        [
            ("model", "sampler", "decode", *TWO_REFERENCES),
            ("sampler",),
            ("sampler", "decode"),
            ("encode 1", "encode 2", "reference 1", "reference 2"),
            ("scaled", "encode 1", "reference 1"),
            ("decode", "save"),
        ],
        ids=lambda inside: f"{len(inside)} nodes with {inside[0]}",
    )
    def test_wherever_the_border_runs(self, page: Page, inside: tuple[str, ...]) -> None:
        build(page, PLAIN)
        page.evaluate(self.GROUP, list(inside))
        page.wait_for_timeout(200)
        unwatched = saved(page)
        command(page, WATCH)
        found = titled(prompt(page))
        assert found["sampler"]["model"] == (CAPTURE, 0)
        assert found[CAPTURE]["model"] == ("model", 0)
        assert found[COLLECT]["samples"] == ("sampler", 0)
        assert found[COLLECT]["image"] == ("decode", 0)
        assert references(found) == {"1": ("scaled", 0), "2": ("second", 0)}
        assert found[VIEWER]["attribution"] == (COLLECT, 0)
        viewers = page.evaluate(
            "() => app.rootGraph.nodes.filter((node) => node.type === 'I2AM_Viewer').length"
        )
        assert viewers == 1, "the viewer is not where one looks"
        command(page, STOP)
        assert saved(page) == unwatched

    def test_a_subgraph_that_stands_twice_is_watched_once(self, page: Page) -> None:
        build(page, PLAIN)
        number = page.evaluate(self.GROUP, ["model", "sampler", "decode", *TWO_REFERENCES])
        page.evaluate(
            """(number) => {
                const again = app.graph.getNodeById(number).clone();
                again.pos = [0, 2500];
                app.graph.add(again);
            }""",
            number,
        )
        unwatched = saved(page)
        command(page, WATCH)
        kinds = [node["class_type"] for node in prompt(page).values()]
        assert kinds.count("I2AM_Viewer") == 1
        assert kinds.count("I2AM_Collect") == 2, "one in each place of the one subgraph"
        command(page, STOP)
        assert saved(page) == unwatched

    def test_a_watched_sampler_that_moves_into_a_subgraph_can_be_let_go(self, page: Page) -> None:
        build(page, PLAIN)
        command(page, WATCH)
        page.evaluate(self.GROUP, ["sampler", "decode"])
        command(page, STOP)
        found = titled(prompt(page))
        assert found["sampler"]["model"] == ("model", 0)
        assert found["save"]["images"] == ("decode", 0)
        assert not [name for name in found if name in (CAPTURE, COLLECT, VIEWER)]

    def test_from_within(self, page: Page, shots: Path) -> None:
        """Where the sampler is looked at in its subgraph, the viewer is put there."""
        build(page, PLAIN)
        number = page.evaluate(self.GROUP, ["model", "sampler", "decode", *TWO_REFERENCES])
        page.evaluate(
            "(number) => app.canvas.setGraph(app.graph.getNodeById(number).subgraph)", number
        )
        page.wait_for_timeout(300)
        unwatched = saved(page)
        command(page, WATCH)
        inner = page.evaluate("() => app.canvas.graph.nodes.map((node) => node.type)")
        assert {"I2AM_Capture", "I2AM_Collect", "I2AM_Viewer"} <= set(inner)
        assert references(titled(prompt(page))) == {"1": ("scaled", 0), "2": ("second", 0)}
        page.wait_for_timeout(300)
        page.screenshot(path=shots / "watch_within.png")
        command(page, STOP)
        restored = saved(page)
        page.evaluate("() => app.canvas.setGraph(app.rootGraph)")
        assert restored == unwatched


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


# The demo as an artist has it who does not know us: without all that watches.
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
    """And the picture is that of the run without us, to the last bit."""
    load_demo = "(data) => app.loadGraphData(data)"
    page.evaluate(load_demo, demo_workflow())
    page.evaluate(UNWATCHED)
    plain = prompt(page)
    assert not {kind for node in plain.values() if "I2AM_C" in (kind := node["class_type"])}
    (save,) = (name for name, node in plain.items() if node["class_type"] == "SaveImage")
    without = server.download(server.run(plain)[save]["images"][0])
    close_toasts(page)
    command(page, WATCH)
    assert "Watching KSampler: 2 reference pictures connected. Press Run." in toasts(page)
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
        filled |= {"pixels": ["first", 0], "mask": ["first", 1]}
        build(page, LOADERS | {"fill": ("InpaintModelConditioning", filled)} | sampled("fill"))
        unwatched = saved(page)
        command(page, WATCH)
        assert "Not watched: sampler" in toasts(page)
        assert "pixels of fill enters as channels of the result" in toasts(page)
        assert saved(page) == unwatched

    def test_a_sampler_without_a_model(self, page: Page) -> None:
        spec = PLAIN | sampled()
        del spec["sampler"][1]["model"]
        build(page, spec)
        unwatched = saved(page)
        command(page, WATCH)
        assert "sampler gets no model. Connect one, then watch it." in toasts(page)
        assert saved(page) == unwatched

    def test_a_graph_without_a_sampler(self, page: Page) -> None:
        build(page, LOADERS)
        command(page, WATCH)
        assert "No node that samples runs on this graph." in toasts(page)

    def test_what_is_not_found_stays_open_and_is_said(self, page: Page) -> None:
        """A reference latent that no picture is known of, and no decoder."""
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
        said = toasts(page)
        assert "The picture of reference 2 (latent of reference 2) was not found." in said
        assert "The finished picture was not found." in said
