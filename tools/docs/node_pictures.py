"""Takes the pictures of the nodes for README.md and the help pages: web/docs/pictures/<id>.jpg.

    python -m tools.docs.node_pictures                # all of them, and docs/graph.jpg
    python -m tools.docs.node_pictures I2AM_Map graph # some

Run it in .venv (COMFYUI_PATH: another ComfyUI than the default) after a node's looks have changed,
and check the pictures by eye. Each is a screenshot of real ComfyUI's page in a headless browser: an
example workflow, run if the models are here, with the nodes of the picture side by side.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import uuid
from dataclasses import dataclass

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from tools.comfyui.browser import FLAGS, need_chromium
from tools.comfyui.in_process import comfyui_path
from tools.comfyui.server import ROOT, ComfyServer
from tools.demo.run import WORKFLOW
from tools.workflows.api_prompt import to_prompt
from tools.workflows.catalog import MODEL_WORKFLOWS, WORKFLOWS, Workflow
from tools.workflows.catalog.parts import GOLD, Group, Node
from tools.workflows.make import ARRANGE, BUILD, VIEW, open_page, plain, run_in_page

PICTURES = ROOT / "web" / "docs" / "pictures"
SCALE = 1.25  # pixels of the picture per pixel of the page
MARGIN, ABOVE = 16, 24  # pixels of the page around the nodes, and above their titles
HEIGHT = 1700  # pixels of the page: room for the tallest picture
POINTED = (0.7, 0.62)  # x, y in 0..1 of the viewer's first picture: inside the demo's hole
QUALITY = 82

# By their names without prefix and number: "demo", "inpaint_debug", …
TABLE = {flow.name.split("_", 2)[2]: flow for flow in (*WORKFLOWS, *MODEL_WORKFLOWS)}


@dataclass(frozen=True)
class Shot:
    """One picture: columns of a workflow's nodes, by their keys, and more nodes added to it."""

    workflow: str
    columns: tuple[tuple[str, ...], ...]
    more: tuple[Node, ...] = ()
    point: bool = False  # the pointer is in the viewer's first picture


def shot(workflow: str, *columns: str, more: tuple[Node, ...] = (), point: bool = False) -> Shot:
    return Shot(workflow, tuple(tuple(c.split()) for c in columns), more, point)


ATTRIBUTION = {"attribution": ("collect", 0)}

SHOTS = {
    "graph": shot("demo", "capture sampler", "collect", "viewer", point=True),
    "I2AM_Capture": shot("demo", "unet", "capture", "sampler"),
    "I2AM_Collect": shot("demo", "sampler", "collect", "report"),
    "I2AM_Viewer": shot("demo", "collect", "viewer", point=True),
    "I2AM_Map": shot("demo", "r2g", "g2r"),
    "I2AM_Point": shot(
        "demo",
        "collect",
        "point",
        more=(
            Node(
                "point",
                "I2AM_Point",
                wires=ATTRIBUTION,
                widgets={"reference": 2, "x": 0.7, "y": 0.7},
                width=340,
                height=660,
            ),
        ),
    ),
    "I2AM_Flow": shot(
        "demo",
        "collect",
        "flow",
        more=(
            Node(
                "flow",
                "I2AM_Flow",
                wires=ATTRIBUTION,
                widgets={"reference": 2},
                width=400,
                height=500,
            ),
        ),
    ),
    "I2AM_IMACS": shot("demo", "hole shape", "imacs", "scores"),
    "I2AM_Influence": shot("two_references", "collect", "influence"),
    "I2AM_Compare": shot("two_references", "compare"),
    "I2AM_ToMask": shot("auto_mask", "mask"),
    "I2AM_Locate": shot("locate_object", "collect", "locate"),
    "I2AM_PickBest": shot("best_of_eight", "imacs", "pick"),
    "I2AM_Steer": shot("reference_strength", "unet", "steer", "influence_after"),
    "I2AM_TopPart": shot("truth_test", "part", "show_top", "show_random"),
    "I2AM_TruthTest": shot("truth_test", "truth"),
    "I2AM_Save": shot("demo", "collect", "save_record"),
    "I2AM_Load": shot(
        "demo",
        "load",
        "loaded",
        more=(
            Node("load", "I2AM_Load", width=300),
            Node(
                "loaded",
                "I2AM_Map",
                wires={"attribution": ("load", 0)},
                widgets={"reference": 2},
                width=340,
                height=660,
            ),
        ),
    ),
    "I2AM_ImageTokens": shot(
        "locate_object",
        "look",
        "image_tokens",
        more=(
            Node("clip_vision", "CLIPVisionLoader", width=300),
            Node(
                "look",
                "CLIPVisionEncode",
                wires={"clip_vision": ("clip_vision", 0), "image": ("object", 0)},
                width=300,
            ),
            Node(
                "image_tokens",
                "I2AM_ImageTokens",
                wires={"clip_vision_output": ("look", 0)},
                width=340,
            ),
        ),
    ),
    "I2AM_MarkRedux": shot("flux_fill_redux", "style", "mark"),
    "I2AM_TraceAdapter": shot(
        "demo",
        "collect",
        "trace",
        more=(Node("trace", "I2AM_TraceAdapter", wires={**ATTRIBUTION, "model": ("unet", 0)}),),
    ),
    "I2AM_LoadInsertion": shot("locate_object", "insertion", "capture", "sampler"),
    "I2AM_LoadWords": shot(
        "locate_object",
        "words",
        "prompt nothing",
        "fill",
        more=(
            Node("words", "I2AM_LoadWords"),
            Node(
                "prompt",
                "CLIPTextEncode",
                wires={"clip": ("words", 1)},
                widgets={"text": "a red circle and a blue star"},
                width=320,
            ),
            Node("nothing", "CLIPTextEncode", wires={"clip": ("words", 1)}, width=320),
            Node(
                "fill",
                "InpaintModelConditioning",
                wires={
                    "positive": ("prompt", 0),
                    "negative": ("nothing", 0),
                    "vae": ("vae", 0),
                    "pixels": ("scene", 0),
                    "mask": ("box", 0),
                },
                widgets={"noise_mask": False},
            ),
        ),
    ),
    "I2AM_ReferenceTokens": shot("locate_object", "object", "tokens", "inpaint"),
    "I2AM_BlankPrompt": shot("demo", "blank", "reference_1", "reference_2"),
}
# Their workflows, or the nodes added to them, need files that are not here.
NOT_RUN = {"I2AM_MarkRedux", "I2AM_ImageTokens", "I2AM_TraceAdapter"}

# Runs in the page: opens what was built, as a file is opened, and finds its nodes again.
OPEN = """
async ([data, ids]) => {
  await app.loadGraphData(data);
  await new Promise((done) => setTimeout(done, 500));
  window.i2amNodes = Object.fromEntries(
    Object.entries(ids).map(([key, id]) => [key, app.graph.getNodeById(id)]));
}
"""

# Runs in the page: the nodes of the picture side by side, what feeds them far to the left, what
# they feed far to the right, and nothing else. Gives the box around them, on the screen.
LAY_OUT = """
async ([columns, margin, above]) => {
  const graph = app.graph, nodes = window.i2amNodes;
  const GAP = 48, TITLE = 30, FAR = 9000, PICTURE = 240;
  for (const group of [...graph.groups]) graph.remove(group);
  const shown = new Set(columns.flat().map((key) => nodes[key]));
  const before = new Set(), queue = [...shown];
  for (let node; (node = queue.pop()); )
    for (const input of node.inputs ?? []) {
      const from = graph.getNodeById(graph.links.get?.(input.link)?.origin_id ??
                                     graph.links[input.link]?.origin_id);
      if (from && !before.has(from)) { before.add(from); queue.push(from); }
    }
  const near = new Set(shown);
  for (const { origin_id, target_id } of graph.links.values()) {
    const ends = [graph.getNodeById(origin_id), graph.getNodeById(target_id)];
    if (ends.some((node) => shown.has(node))) ends.forEach((node) => near.add(node));
  }
  for (const node of [...graph.nodes]) if (!near.has(node)) graph.remove(node);
  let right = 0, bottom = 0;
  for (const column of columns) {
    let top = 0, widest = 0;
    for (const key of column) {
      const node = nodes[key], needed = node.computeSize()[1];
      // Below its widgets, where it shows one.
      if (!node.comfyClass.startsWith('I2AM_')) node.setSize([node.size[0], needed]);
      else if (node.imgs?.length) {
        node.setSize([node.size[0], Math.max(node.size[1], needed + PICTURE)]);
      }
      node.pos = [right, top + TITLE];
      top += node.size[1] + TITLE + GAP / 2;
      widest = Math.max(widest, node.size[0]);
    }
    bottom = Math.max(bottom, top - GAP / 2);
    right += widest + GAP;
  }
  right -= GAP;
  for (const node of graph.nodes) {
    if (!shown.has(node)) node.pos = [before.has(node) ? -FAR : FAR, node.pos[1] % bottom];
  }
  const view = app.canvas.ds;
  for (let still = 0; still < 3; ) {  // the page has a fitting of its own
    still = view.scale === 1 ? still + 1 : 0;
    view.scale = 1;
    view.offset[0] = 140; view.offset[1] = 140;
    app.canvas.deselectAll?.();
    app.canvas.setDirty(true, true);
    await new Promise((done) => setTimeout(done, 400));
  }
  return {x: 140 - margin, y: 140 - above, width: right + 2 * margin,
          height: bottom + above + margin};
}
"""


def take(server: ComfyServer, page: Page, name: str) -> bytes:
    """The picture of one shot, as PNG."""
    wanted = SHOTS[name]
    workflow: Workflow = TABLE[wanted.workflow]
    more = ((Group("", GOLD, (wanted.more,)),),) if wanted.more else ()
    columns = plain((*workflow.columns, *more))
    ids, problems = page.evaluate(BUILD, columns)
    if problems:
        raise SystemExit("\n".join(problems))
    data = json.loads(page.evaluate(ARRANGE, [str(uuid.uuid4()), columns, VIEW]))
    page.evaluate(OPEN, [data, ids])
    if name not in NOT_RUN:
        run_in_page(server, page)
    box = page.evaluate(LAY_OUT, [plain(wanted.columns), MARGIN, ABOVE])
    if wanted.point:
        box_of_it = page.locator(".i2am-box").first.bounding_box()
        assert box_of_it
        left, top = box_of_it["x"], box_of_it["y"]
        across, down = POINTED
        page.mouse.move(left + across * box_of_it["width"], top + down * box_of_it["height"])
    page.wait_for_timeout(800)
    return page.screenshot(clip=box)


def main() -> int:
    parser = argparse.ArgumentParser(description="Makes the pictures of the nodes.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SHOTS))
    names = parser.parse_args().names or list(SHOTS)
    if unknown := set(names) - set(SHOTS):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(SHOTS)}")
    chromium = need_chromium()
    comfyui = comfyui_path()
    PICTURES.mkdir(exist_ok=True)
    # Without a cache, each page gets the outputs of all nodes of its run.
    fresh = ComfyServer(comfyui, threads=1, arguments=("--cache-none",))
    with fresh as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=list(FLAGS))
        # Load Attribution offers what was saved before the page was opened.
        server.run(
            to_prompt(json.loads(WORKFLOW.read_text("utf-8")), server.get_json("/object_info"))
        )
        for name in names:
            page = open_page(server, browser, SCALE)
            page.set_viewport_size({"width": 2400, "height": HEIGHT})
            picture = take(server, page, name)
            page.close()
            path = ROOT / "docs" / "graph.jpg" if name == "graph" else PICTURES / f"{name}.jpg"
            with Image.open(io.BytesIO(picture)) as shown:
                shown.convert("RGB").save(path, quality=QUALITY, optimize=True, progressive=True)
                size = "×".join(map(str, shown.size))
            print(f"{path.relative_to(ROOT)}: {size}, {path.stat().st_size / 1000:.0f} kB")
        browser.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
