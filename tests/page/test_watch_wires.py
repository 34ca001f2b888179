"""Watch the references: what it finds past guiders, reroutes and subgraph borders."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from page_graphs import (
    BYPASSED,
    CAPTURE,
    COLLECT,
    LOADERS,
    PLAIN,
    STOP,
    TWO_REFERENCES,
    VIEWER,
    WATCH,
    Spec,
    build,
    command,
    prompt,
    references,
    sampled,
    saved,
    says,
    titled,
    watched,
)
from playwright.sync_api import Page


@pytest.fixture
def page(empty_page: Page) -> Page:
    return empty_page


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
        """Like those of ComfyUI-KJNodes: virtual; a Get's wire is the one into its Set."""
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
            "masked": ("SetLatentNoiseMask", {"samples": ["encode 1", 0], "mask": ["mask", 0]})
        }
        found = watched(page, spec | sampled(latent="masked"))
        assert found[COLLECT]["mask"] == ("mask", 0)

    def test_text_encoders_with_pictures(self, page: Page) -> None:
        edit = {"clip": ["text encoder", 0], "image1": ["first", 0], "image2": ["second", 0]}
        node = "TextEncodeQwenImageEditPlus"
        found = watched(
            page, LOADERS | {"edit": (node, edit | {"vae": ["vae", 0]})} | sampled("edit")
        )
        assert references(found) == {"1": ("first", 0), "2": ("second", 0)}
        watched(page, LOADERS | {"edit": (node, edit)} | sampled("edit"))
        says(page, "No reference was found on the positive conditioning.")

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
        says(page, "Watching 2 samplers: 4 reference pictures connected.")
        command(page, STOP)
        assert saved(page) == unwatched


class TestSubgraphs:
    """The plain graph with parts of it moved into subgraphs."""

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
        """If the command runs on the sampler inside its subgraph, the viewer is placed there."""
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
