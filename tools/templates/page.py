"""An official template in ComfyUI's page: opened, watched with one command, and restored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from playwright.sync_api import Page

WATCH, STOP = "I2AM.Watch", "I2AM.StopWatching"

# Bypassed nodes are switched on: templates offer variants that way.
_SWITCH_ON = """
() => {
  const root = app.rootGraph;
  for (const graph of [root, ...root.subgraphs.values()])
    for (const node of graph.nodes) if (node.mode === 4) node.mode = 0;
}
"""
_COMMAND = """
async (name) => {
  const { toast, command } = app.extensionManager, said = [], add = toast.add;
  toast.add = (message) => said.push(message);
  try { await command.execute(name); } finally { toast.add = add; }
  return said.map(({ severity, summary, detail }) => ({ severity, summary, detail }));
}
"""
_PROMPT = "async () => (await app.graphToPrompt()).output"
_SAVED = "() => JSON.stringify(app.rootGraph.serialize())"


@dataclass(frozen=True, slots=True)
class Visit:
    """What one press of the command did to a template.

    plain, watched: the page's API prompts without and with the watching nodes. said: the messages
    shown. restored: whether the graph, after stopping, is saved byte for byte as before.
    """

    plain: dict[str, Any]
    watched: dict[str, Any]
    said: tuple[dict[str, str], ...]
    restored: bool


def visit(page: Page, workflow: dict[str, Any], *, switched_on: bool = False) -> Visit:
    """Opens a workflow, watches and stops. switched_on: with all its bypassed nodes."""
    page.evaluate("(data) => app.loadGraphData(data)", workflow)
    page.wait_for_timeout(200)  # the page fits its view, which is saved too
    if switched_on:
        page.evaluate(_SWITCH_ON)
    before, plain = page.evaluate(_SAVED), page.evaluate(_PROMPT)
    said = page.evaluate(_COMMAND, WATCH)
    watched = page.evaluate(_PROMPT)
    page.evaluate(_COMMAND, STOP)
    after = page.evaluate(_SAVED)
    return Visit(plain, watched, tuple(said), before == after)
