"""Makes the files of example_workflows/: ComfyUI's own page builds, arranges and saves them.

    python tools/make_workflows.py

Run it in .venv after a node of a workflow has changed. The page, in a headless browser, saves the
file just as a person would, so it opens without warnings. Thumbnails come from tools/demo.py.
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from browser import FLAGS, find_chromium
from comfy_server import ROOT, ComfyServer

FOLDER = ROOT / "example_workflows"
SEED = 20240712
# How the page shows it first: large enough that the words can be read.
VIEW = {"scale": 0.64, "offset": [140, 140]}

R2G, G2R = "reference to generated", "generated to reference"


@dataclass(frozen=True)
class Node:
    """A node to make. `wires`: input name to (node key, output slot)."""

    key: str
    type: str
    title: str | None = None
    wires: dict[str, tuple[str, int]] = field(default_factory=dict)
    widgets: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class Group:
    """Stacks of nodes side by side, in a frame with a title."""

    title: str
    color: str
    stacks: tuple[tuple[Node, ...], ...]


NOTE = """# Which part of the reference made which part of the picture?

A small model fills the **grey hole** of the scene with the **object of the reference picture**. \
To do that it has to *look* at the reference, and this workflow watches it look.

**Press Run.** Then point at a place in the **Attribution Viewer**: the other picture shows where \
it came from. Click to keep it, drag for a region. And look at the two maps:

- **Where it was used** lies over the result. Bright places drew on the reference: the hole should \
glow, the rest stay dark.
- **What was used** lies over the reference. The object should glow, its surroundings stay dark.

**IMACS** puts the second look into numbers: 1 is best, below 0 the model looked past the object.

**Try this**
- Change the seed, or swap the two reference pictures' loaders: do the maps follow?
- Set *reference* of a map to 1: that is the scene itself.
- Set *level* to *time*: early steps look around, late steps look sharply.

**With your own model** put *Capture Attention* right before your sampler and give the sampler's \
LATENT to *Collect Attribution*. Your picture does not change by a bit. The model here is tiny and \
made for this demo; it is no editor.
"""

PICTURE = 268  # height of a node that shows a small picture

MODELS = Group(
    "1 · Models",
    "#3f5159",
    (
        (
            Node("note", "MarkdownNote", "Read me", widgets={"0": NOTE}, width=420, height=700),
            Node("unet", "UNETLoader", widgets={"unet_name": "i2am_demo_inpaint.safetensors"}),
            Node("vae", "VAELoader", widgets={"vae_name": "i2am_demo_vae.safetensors"}),
        ),
    ),
)

PICTURES = Group(
    "2 · Pictures and masks",
    "#3f789e",
    (
        (
            Node(
                "scene",
                "LoadImage",
                "The scene, with a hole",
                widgets={"image": "i2am_demo_scene.png"},
                height=PICTURE,
            ),
            Node(
                "hole",
                "LoadImageMask",
                "Where the hole is",
                widgets={"image": "i2am_demo_hole_mask.png", "channel": "red"},
                height=PICTURE,
            ),
        ),
        (
            Node(
                "object",
                "LoadImage",
                "The reference, with the object",
                widgets={"image": "i2am_demo_reference.png"},
                height=PICTURE,
            ),
            Node(
                "shape",
                "LoadImageMask",
                "Where the object is",
                widgets={"image": "i2am_demo_object_mask.png", "channel": "red"},
                height=PICTURE,
            ),
        ),
    ),
)

GIVEN = Group(
    "3 · What the model is given",
    "#88A",
    (
        (
            Node("blank", "I2AM_BlankPrompt"),
            Node(
                "encode_scene",
                "VAEEncode",
                "Encode the scene",
                {"pixels": ("scene", 0), "vae": ("vae", 0)},
            ),
            Node(
                "encode_object",
                "VAEEncode",
                "Encode the reference",
                {"pixels": ("object", 0), "vae": ("vae", 0)},
            ),
            Node(
                "reference_1",
                "ReferenceLatent",
                "Reference 1: the scene",
                {"conditioning": ("blank", 0), "latent": ("encode_scene", 0)},
            ),
            Node(
                "reference_2",
                "ReferenceLatent",
                "Reference 2: the object",
                {"conditioning": ("reference_1", 0), "latent": ("encode_object", 0)},
            ),
            Node(
                "empty",
                "EmptySD3LatentImage",
                widgets={"width": 128, "height": 128, "batch_size": 1},
            ),
        ),
    ),
)

SAMPLE = Group(
    "4 · Sample, watched",
    "#8A8",
    (
        (
            # Room for what it shows while it samples.
            Node("capture", "I2AM_Capture", wires={"model": ("unet", 0)}, width=300, height=340),
            Node(
                "sampler",
                "KSampler",
                wires={
                    "model": ("capture", 0),
                    "positive": ("reference_2", 0),
                    "negative": ("blank", 0),
                    "latent_image": ("empty", 0),
                },
                widgets={
                    "seed": SEED,
                    "control_after_generate": "fixed",
                    "steps": 20,
                    "cfg": 1.0,
                    "sampler_name": "euler",
                    "scheduler": "simple",
                    "denoise": 1.0,
                },
            ),
            Node("decode", "VAEDecode", wires={"samples": ("sampler", 0), "vae": ("vae", 0)}),
            Node(
                "collect",
                "I2AM_Collect",
                wires={
                    "samples": ("sampler", 0),
                    "image": ("decode", 0),
                    "references.reference_1": ("scene", 0),
                    "references.reference_2": ("object", 0),
                    "mask": ("hole", 0),
                },
            ),
            Node(
                "save_result",
                "SaveImage",
                "The result",
                {"images": ("decode", 0)},
                {"filename_prefix": "i2am/demo_result"},
                height=PICTURE,
            ),
        ),
    ),
)

ASK = Group(
    "5 · Point at a place",
    "#7a5c9e",
    (
        (
            Node(
                "viewer",
                "I2AM_Viewer",
                wires={"attribution": ("collect", 0)},
                # The object's picture is the second reference.
                properties={"i2am_view": {"reference": 1}},
                width=820,
                height=650,
            ),
        ),
    ),
)

MAPS = Group(
    "6 · Where did it come from?",
    "#b58b2a",
    (
        (
            Node(
                "r2g",
                "I2AM_Map",
                "Where it was used (R2G)",
                {"attribution": ("collect", 0)},
                {"direction": R2G, "reference": 2},
                width=340,
                height=980,
            ),
        ),
        (
            Node(
                "g2r",
                "I2AM_Map",
                "What was used (G2R)",
                {"attribution": ("collect", 0)},
                {"direction": G2R, "reference": 2},
                width=340,
                height=980,
            ),
        ),
    ),
)

NUMBERS = Group(
    "7 · Numbers and files",
    "#A88",
    (
        (
            Node(
                "imacs",
                "I2AM_IMACS",
                wires={
                    "attribution": ("collect", 0),
                    "generated_mask": ("hole", 0),
                    "reference_mask": ("shape", 0),
                },
                widgets={"reference": 2},
                width=340,
                height=520,  # with room for the scores in words
            ),
            Node(
                "save_r2g",
                "SaveImage",
                "Save where it was used",
                {"images": ("r2g", 0)},
                {"filename_prefix": "i2am/demo_r2g"},
                height=PICTURE,
            ),
            Node(
                "save_record",
                "I2AM_Save",
                wires={"attribution": ("collect", 0)},
                widgets={"filename_prefix": "i2am/demo"},
            ),
        ),
        (
            Node(
                "scores",
                "PreviewAny",
                "The scores in words",
                {"source": ("imacs", 2)},
                width=340,
                height=172,
            ),
            Node(
                "save_g2r",
                "SaveImage",
                "Save what was used",
                {"images": ("g2r", 0)},
                {"filename_prefix": "i2am/demo_g2r"},
                height=PICTURE,
            ),
            Node(
                "report",
                "PreviewAny",
                "What was recorded",
                {"source": ("collect", 2)},
                height=260,
            ),
        ),
    ),
)

# Columns of groups.
DEMO = ((MODELS,), (PICTURES, GIVEN), (SAMPLE,), (ASK,), (MAPS, NUMBERS))

# Runs in the page: makes the nodes, wires them, stacks them, draws the groups, saves.
BUILD = """
async ([id, columns, view]) => {
  const app = window.app, graph = app.graph, LiteGraph = window.LiteGraph;
  const GAP = 30, MARGIN = 20, ROW = 46, TITLE = 30, problems = [];
  graph.clear();
  const nodes = {}, later = [];
  for (const wish of columns.flat().flatMap((group) => group.stacks.flat())) {
    const node = LiteGraph.createNode(wish.type);
    if (!node) throw new Error('no node type ' + wish.type);
    if (wish.title) node.title = wish.title;
    graph.add(node);
    nodes[wish.key] = node;
    later.push([wish, node]);
  }
  for (const [wish, node] of later) {
    Object.assign(node.properties, wish.properties);
    for (const [name, value] of Object.entries(wish.widgets)) {
      const widget = /^\\d+$/.test(name) ? node.widgets[name]
                                         : node.widgets.find((w) => w.name === name);
      if (!widget) { problems.push(`${wish.key}: no widget ${name}`); continue; }
      widget.value = value;
      widget.callback?.(value);
    }
    for (const [name, [from, slot]] of Object.entries(wish.wires)) {
      const index = node.inputs.findIndex((input) => input.name === name);
      if (index < 0) {
        problems.push(`${wish.key}: no input ${name} among ` + node.inputs.map((i) => i.name));
        continue;
      }
      nodes[from].connect(slot, node, index);
      await new Promise((done) => setTimeout(done, 50));
    }
  }
  await new Promise((done) => setTimeout(done, 500));
  let left = 0;
  for (const column of columns) {
    let start = 0, right = 0;
    for (const wished of column) {
      let x = left, bottom = start;
      for (const stack of wished.stacks) {
        let top = start, widest = 0;
        for (const wish of stack) {
          const node = nodes[wish.key], size = node.computeSize();
          const height = Math.max(size[1], wish.height || 0);
          node.setSize([Math.max(size[0], wish.width || 270), height]);
          top += ROW;
          node.pos = [x, top];
          top += height;
          widest = Math.max(widest, node.size[0]);
        }
        for (const { key } of stack) nodes[key].setSize([widest, nodes[key].size[1]]);
        bottom = Math.max(bottom, top);
        x += widest + GAP;
      }
      const group = new LiteGraph.LGraphGroup(wished.title);
      group.pos = [left - MARGIN, start - TITLE];
      group.size = [x - GAP - left + 2 * MARGIN, bottom - start + TITLE + MARGIN];
      group.color = wished.color;
      graph.add(group);
      right = Math.max(right, x - GAP);
      start = bottom + MARGIN + TITLE + GAP;
    }
    left = right + 2 * MARGIN + GAP;
  }
  graph.setDirtyCanvas(true, true);
  await new Promise((done) => setTimeout(done, 300));
  graph.id = id;
  const data = graph.serialize();
  data.extra = {...data.extra, ds: view};
  return [JSON.stringify(data), problems];
}
"""


def plain(columns: tuple[tuple[Group, ...], ...]) -> list[Any]:
    """Columns of groups as the page can take them."""
    return json.loads(json.dumps(columns, default=vars))


def main() -> int:
    chromium = find_chromium()
    if chromium is None:
        print("This needs Chromium; python dev.py test installs it.")
        return 1
    comfyui = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "0.30.0")
    with ComfyServer(comfyui) as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=list(FLAGS))
        page = browser.new_page(viewport={"width": 2400, "height": 1200})
        page.goto(server.url)
        page.wait_for_function("() => window.app?.graph && window.app.extensionManager")
        page.wait_for_timeout(1500)
        workflow_id = str(uuid.uuid5(uuid.NAMESPACE_URL, "i2am_demo"))
        saved, problems = page.evaluate(BUILD, [workflow_id, plain(DEMO), VIEW])
        browser.close()
    if problems:
        print("\n".join(problems))
        return 1
    data = json.loads(saved)
    path = FOLDER / "i2am_demo.json"
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(f"{path.relative_to(ROOT)}: {len(data['nodes'])} nodes, {len(data['links'])} wires")
    return 0


if __name__ == "__main__":
    sys.exit(main())
