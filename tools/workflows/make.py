"""Makes the files of example_workflows/: ComfyUI's own page builds, runs, arranges and saves them.

    python -m tools.workflows.make              # all of them
    python -m tools.workflows.make i2am_03_try_on  # one
    python -m tools.workflows.make i2am_14_sdxl_ip_adapter --pack ../ComfyUI_IPAdapter_plus

Run it in .venv after a node of a workflow has changed. The page, in a headless browser, saves the
file as it does for a person, so it opens without warnings. Each workflow is run first, so that
there is room for what its nodes will show. Its pictures make the thumbnail, and the picture in
docs/workflows/ that brings the workflow along when it is dragged onto the page. The demo's
thumbnail comes from tools/demo/run.py.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import Browser, Page, sync_playwright

from tools.comfyui.browser import FLAGS, need_chromium
from tools.comfyui.in_process import comfyui_path
from tools.comfyui.server import PACK, ROOT, ComfyServer, make_base
from tools.workflows.api_prompt import to_prompt
from tools.workflows.catalog import MODEL_WORKFLOWS, WORKFLOWS, Workflow

FOLDER = ROOT / "example_workflows"
PICTURES = ROOT / "docs" / "workflows"
SHOTS = ROOT / "output" / "workflows"  # a screenshot of each whole graph, to check by eye
SIDE = 256  # pixels of one picture of a thumbnail
# The part of the page that shows the graph, without the menus.
GRAPH: Any = {"x": 60, "y": 58, "width": 1130, "height": 1130}
# The view a workflow opens with: large enough to read the words.
VIEW = {"scale": 0.64, "offset": [140, 140]}

# Runs in the page: makes the nodes and wires them.
BUILD = """
async (columns) => {
  const graph = window.app.graph, LiteGraph = window.LiteGraph, problems = [];
  graph.clear();
  const nodes = {}, later = [];
  for (const spec of columns.flat().flatMap((group) => group.stacks.flat())) {
    const node = LiteGraph.createNode(spec.type);
    if (!node) throw new Error('no node type ' + spec.type);
    if (nodes[spec.key]) throw new Error('two nodes are called ' + spec.key);
    if (spec.title) node.title = spec.title;
    graph.add(node);
    nodes[spec.key] = node;
    later.push([spec, node]);
  }
  for (const [spec, node] of later) {
    Object.assign(node.properties, spec.properties);
    for (const [name, value] of Object.entries(spec.widgets)) {
      const widget = /^\\d+$/.test(name) ? node.widgets[name]
                                         : node.widgets.find((w) => w.name === name);
      if (!widget) { problems.push(`${spec.key}: no widget ${name}`); continue; }
      widget.value = value;
      widget.callback?.(value);
    }
    for (const [name, [from, slot]] of Object.entries(spec.wires)) {
      const index = node.inputs.findIndex((input) => input.name === name);
      if (index < 0) {
        problems.push(`${spec.key}: no input ${name} among ` + node.inputs.map((i) => i.name));
        continue;
      }
      if (!nodes[from]?.connect(slot, node, index)) {
        problems.push(`${spec.key}: ${name} cannot be wired to ${from}, ${slot}`);
      }
      await new Promise((done) => setTimeout(done, 50));
    }
  }
  await new Promise((done) => setTimeout(done, 500));
  window.i2amNodes = nodes;
  return [Object.fromEntries(Object.entries(nodes).map(([key, { id }]) => [key, id])), problems];
}
"""

# Runs in the page: stacks the nodes, draws the groups, saves.
ARRANGE = """
async ([id, columns, view]) => {
  const graph = window.app.graph, LiteGraph = window.LiteGraph, nodes = window.i2amNodes;
  const GAP = 30, MARGIN = 20, ROW = 46, TITLE = 30;
  for (const group of [...graph.groups]) graph.remove(group);
  let left = 0;
  for (const column of columns) {
    let start = 0, right = 0;
    for (const group_spec of column) {
      let x = left, bottom = start;
      for (const stack of group_spec.stacks) {
        let top = start, widest = 0;
        for (const spec of stack) {
          const node = nodes[spec.key], size = node.computeSize();
          const height = Math.max(size[1], spec.height || 0);
          node.setSize([Math.max(size[0], spec.width || 270), height]);
          top += ROW;
          node.pos = [x, top];
          top += height;
          widest = Math.max(widest, node.size[0]);
        }
        for (const { key } of stack) nodes[key].setSize([widest, nodes[key].size[1]]);
        bottom = Math.max(bottom, top);
        x += widest + GAP;
      }
      const group = new LiteGraph.LGraphGroup(group_spec.title);
      group.pos = [left - MARGIN, start - TITLE];
      group.size = [x - GAP - left + 2 * MARGIN, bottom - start + TITLE + MARGIN];
      group.color = group_spec.color;
      graph.add(group);
      right = Math.max(right, x - GAP);
      start = bottom + MARGIN + TITLE + GAP;
    }
    left = right + 2 * MARGIN + GAP;
  }
  graph.setDirtyCanvas(true, true);
  await new Promise((done) => setTimeout(done, 300));
  graph.id = id;
  // The scores of the run that made room are not the user's.
  for (const node of graph.nodes) delete node.properties.i2am_imacs_history;
  const data = graph.serialize();
  data.extra = {...data.extra, ds: view};
  return JSON.stringify(data);
}
"""

# Runs in the page: shows the whole graph.
SHOW = """
async () => {
  const canvas = window.app.canvas, boxes = window.app.graph.groups.map((group) => group._bounding);
  const left = Math.min(...boxes.map((b) => b[0])), top = Math.min(...boxes.map((b) => b[1]));
  const right = Math.max(...boxes.map((b) => b[0] + b[2]));
  const bottom = Math.max(...boxes.map((b) => b[1] + b[3]));
  const scale = Math.min((innerWidth - 80) / (right - left), (innerHeight - 80) / (bottom - top));
  canvas.ds.scale = scale;
  canvas.ds.offset = [60 / scale - left, 60 / scale - top];
  canvas.setDirty(true, true);
  await new Promise((done) => setTimeout(done, 800));
}
"""


def plain(value: Any) -> Any:
    """The value as plain JSON, for the page."""
    return json.loads(json.dumps(value, default=vars))


def make(server: ComfyServer, page: Page, workflow: Workflow) -> list[str]:
    """Writes the files of one workflow; returns the problems it found."""
    columns = plain(workflow.columns)
    ids, problems = page.evaluate(BUILD, columns)
    if problems:
        return problems
    settings = [str(uuid.uuid5(uuid.NAMESPACE_URL, workflow.name)), columns, VIEW]
    data = json.loads(page.evaluate(ARRANGE, settings))
    outputs: dict[str, Any] = {}
    if workflow.runs:
        outputs = run_in_page(server, page)
        data = json.loads(page.evaluate(ARRANGE, settings))
    path = FOLDER / f"{workflow.name}.json"
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")
    page.evaluate(SHOW)
    SHOTS.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=SHOTS / f"{workflow.name}.png")
    thumb = path.with_suffix(".jpg")
    shown: list[bytes] = []
    for key in workflow.shown:
        if (loaded := workflow.node(key)).type == "LoadImage":
            shown.append((FOLDER / "inputs" / loaded.widgets["image"]).read_bytes())
            continue
        shown += [server.download(item) for item in outputs[str(ids[key])]["images"]]
    if not workflow.runs:  # nothing to see yet but the graph itself
        shown = [page.screenshot(clip=GRAPH)]
    if shown:
        thumbnail(shown[:4]).save(thumb, quality=90)
    write_picture(thumb, data, to_prompt(data, server.get_json("/object_info")))
    print(f"{path.relative_to(ROOT)}: {len(data['nodes'])} nodes, {len(data['links'])} wires")
    return []


def open_page(server: ComfyServer, browser: Browser, scale: float = 1) -> Page:
    """A page with a profile of its own. scale: pixels of a screenshot per pixel of the page."""
    viewport: Any = {"width": 2400, "height": 1200}
    page = browser.new_page(viewport=viewport, device_scale_factor=scale)
    page.goto(server.url)
    page.wait_for_function("() => window.app?.graph && window.app.extensionManager")
    page.wait_for_timeout(1500)
    page.keyboard.press("Escape")  # closes the templates that a first visit shows
    return page


def run_in_page(server: ComfyServer, page: Page) -> dict[str, Any]:
    """Presses Run and waits; node id → what the node showed."""
    before = set(server.get_json("/history"))
    page.evaluate("() => window.app.queuePrompt(0)")
    while not (new := set(server.get_json("/history")) - before):
        page.wait_for_timeout(200)
    outputs = server.wait(new.pop())["outputs"]
    page.wait_for_timeout(1500)  # until the page has taken the pictures in
    return outputs


def thumbnail(pictures: list[bytes]) -> Image.Image:
    """Up to four pictures in a square, for the template browser."""
    side = SIDE if len(pictures) > 1 else 2 * SIDE
    sheet = Image.new("RGB", (2 * SIDE, 2 * SIDE))
    for index, data in enumerate(pictures):
        with Image.open(io.BytesIO(data)) as picture:
            width = picture.width
            square = picture.convert("RGB").crop((0, 0, width, min(width, picture.height)))
            square = square.resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(square, (index % 2 * SIDE, index // 2 * SIDE))
    return sheet


def write_picture(picture: Path, workflow: dict[str, Any], prompt: dict[str, Any]) -> None:
    """A picture that brings its workflow along, as ComfyUI's Save Image writes it."""
    facts = PngInfo()
    facts.add_text("prompt", json.dumps(prompt))
    facts.add_text("workflow", json.dumps(workflow))
    PICTURES.mkdir(parents=True, exist_ok=True)
    with Image.open(picture) as shown:
        shown.save(PICTURES / f"{picture.stem}.png", pnginfo=facts, optimize=True)


def main() -> int:
    every = {workflow.name: workflow for workflow in (*WORKFLOWS, *MODEL_WORKFLOWS)}
    parser = argparse.ArgumentParser(description="Makes the example workflows.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(every))
    parser.add_argument(
        "--pack",
        type=Path,
        action="append",
        default=[],
        help="the folder of another pack that a workflow needs",
    )
    options = parser.parse_args()
    packs = {pack.resolve().name: pack.resolve() for pack in options.pack}
    names = options.names or [name for name in every if set(every[name].packs) <= set(packs)]
    if unknown := set(names) - set(every):
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are {', '.join(every)}")
    chromium = need_chromium()
    comfyui = comfyui_path()
    # Of several such arguments ComfyUI takes the last.
    more = ("--whitelist-custom-nodes", PACK, *packs)
    with tempfile.TemporaryDirectory() as folder:
        base = make_base(Path(folder))
        for name, pack in packs.items():
            (base / "custom_nodes" / name).symlink_to(pack, target_is_directory=True)
        server = ComfyServer(comfyui, base=base, threads=1, arguments=more)
        problems = make_all(server, [every[name] for name in names], chromium)
    print(*problems, sep="\n")
    return 1 if problems else 0


def make_all(server: ComfyServer, workflows: list[Workflow], chromium: Path) -> list[str]:
    """Makes them one after the other; returns the problems it found."""
    problems: list[str] = []
    with server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=list(FLAGS))
        for workflow in workflows:
            page = open_page(server, browser)
            found = make(server, page, workflow)
            problems += [f"{workflow.name}: {problem}" for problem in found]
            page.close()
        browser.close()
    return problems


if __name__ == "__main__":
    sys.exit(main())
