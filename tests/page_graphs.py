"""Graphs on ComfyUI's page, written as tables, and what watching makes of them."""

from __future__ import annotations

from typing import Any

from playwright.sync_api import Page, expect

from tools.comfyui.viewer_page import PATIENCE

Spec = dict[str, tuple[str, dict[str, Any]]]
WATCH, STOP = "I2AM.Watch", "I2AM.StopWatching"

CAPTURE, COLLECT, VIEWER = "Capture Attention", "Collect Attribution", "Attribution Viewer"
TOAST = ".p-toast-message"
BYPASSED = 4  # the mode of a node
LOADERS: Spec = {
    "model": ("UNETLoader", {}),
    "text encoder": ("CLIPLoader", {}),
    "vae": ("VAELoader", {}),
    "first": ("EmptyImage", {}),
    "second": ("EmptyImage", {}),
    "mask": ("SolidMask", {}),
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

# name → (type, inputs): a wire is [name, slot], everything else the value of a widget.
_BUILD = """
(spec) => {
  app.graph.clear();
  const nodes = {};
  Object.entries(spec).forEach(([name, [type]], index) => {
    const node = LiteGraph.createNode(type);
    node.title = name;
    node.pos = [(index % 5) * 420, Math.floor(index / 5) * 420];
    app.graph.add(node);
    nodes[name] = node;
  });
  for (const [name, [type, inputs]] of Object.entries(spec))
    for (const [input, value] of Object.entries(inputs)) {
      const node = nodes[name];
      if (input === 'mode') node.mode = value;
      else if (Array.isArray(value)) {
        const at = node.inputs.findIndex((one) => one.name === input);
        nodes[value[0]].connect(value[1], node, at < 0 ? 0 : at);
      } else node.widgets.find((one) => one.name === input).value = value;
    }
  return Object.fromEntries(Object.entries(nodes).map(([name, node]) => [name, node.id]));
}
"""
# A node takes its size when it is drawn: until nothing changes over several frames.
_DRAWN = """
async () => {
  const sizes = () => JSON.stringify(app.graph.nodes.map(({ size }) => [...size]));
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  for (let before = "", same = 0; same < 5; before = sizes()) {
    await frame();
    same = sizes() === before ? same + 1 : 0;
  }
}
"""
_COMMAND = "(name) => app.extensionManager.command.execute(name)"


def build(page: Page, spec: Spec) -> dict[str, str]:
    """Puts a graph on the page, with each name as title; the nodes' numbers by name."""
    close_toasts(page)
    names = page.evaluate(_BUILD, {name: list(one) for name, one in spec.items()})
    page.evaluate(_DRAWN)
    # What was built so far is a state of its own for undo.
    page.evaluate("() => { app.canvas.emitBeforeChange(); app.canvas.emitAfterChange(); }")
    return {name: str(number) for name, number in names.items()}


def command(page: Page, name: str) -> None:
    page.evaluate(_COMMAND, name)
    page.wait_for_timeout(100)


def saved(page: Page) -> str:
    """The workflow as the page saves it, but for where one looks at it."""
    return page.evaluate(
        """() => {
            const data = app.rootGraph.serialize();
            delete data.extra.ds;
            return JSON.stringify(data);
        }"""
    )


def prompt(page: Page) -> dict[str, Any]:
    """The API prompt that Run would send."""
    return page.evaluate("async () => (await app.graphToPrompt()).output")


def titled(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The nodes of a prompt by title, each wire as (title, slot)."""
    names = {number: node["_meta"]["title"] for number, node in found.items()}

    def end(value: Any) -> Any:
        is_wire = isinstance(value, list) and len(value) == 2
        return (names[str(value[0])], value[1]) if is_wire else value

    return {
        names[number]: {key: end(value) for key, value in node["inputs"].items()}
        for number, node in found.items()
    }


def says(page: Page, text: str) -> None:
    """Waits until one of the page's messages says this."""
    expect(page.locator(TOAST, has_text=text).first).to_be_visible(timeout=PATIENCE)


def close_toasts(page: Page) -> None:
    """Closes all messages at once: one by one, some would go by themselves meanwhile."""
    page.evaluate("() => app.extensionManager.toast.removeAll()")
    expect(page.locator(TOAST)).to_have_count(0, timeout=PATIENCE)


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
