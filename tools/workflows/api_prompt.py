"""Turns a workflow file, as ComfyUI's page saves it, into the prompt its API takes.

The page does the same in JavaScript when Run is pressed. Complete for what this pack's workflows
use: links, widgets in the order of the node's schema, growing inputs (`references.reference_1`),
reroutes, primitives and notes. Anything else is refused by name rather than guessed at.
"""

from __future__ import annotations

from typing import Any

ALWAYS, NEVER, BYPASSED = 0, 2, 4  # a node's `mode`
NOTES = {"Note", "MarkdownNote"}
REROUTE = "Reroute"
PRIMITIVE = "PrimitiveNode"
WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", "COLOR"}
# Inputs whose schema alone does not say what they look like on the page.
REFUSED_TYPES = {"COMFY_DYNAMICCOMBO_V3", "COMFY_DYNAMICSLOT_V3"}
SEEDS = {"seed", "noise_seed"}
AFTER_GENERATE = {"fixed", "increment", "decrement", "randomize"}

Json = dict[str, Any]


class WorkflowError(ValueError):
    """The workflow contains something that this conversion does not know."""


def to_prompt(workflow: Json, object_info: Json) -> Json:
    """The API prompt of a workflow. object_info: the server's answer under that name."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    links = _links(workflow)
    prompt: Json = {}
    for node in workflow["nodes"]:
        kind = node["type"]
        if kind in NOTES or kind in (REROUTE, PRIMITIVE):
            continue
        if node.get("mode", ALWAYS) != ALWAYS:
            state = {NEVER: "muted", BYPASSED: "bypassed"}.get(node["mode"], "not always run")
            raise WorkflowError(f"{_name(node)} is {state}. Enable it, or take it out.")
        if kind not in object_info:
            raise WorkflowError(
                f"{_name(node)}: the server has no node of this type. "
                "Is its pack installed, and did it load? Subgraphs are not supported."
            )
        inputs = _widget_values(node, object_info[kind])
        for slot in node.get("inputs", ()):
            if slot.get("link") is not None:
                source = _source(slot["link"], links, nodes)
                if source is None:
                    raise WorkflowError(f"{_name(node)}: the wire to {slot['name']} is loose.")
                inputs[slot["name"]] = source[0] if len(source) == 1 else source
        prompt[str(node["id"])] = {
            "class_type": kind,
            "inputs": inputs,
            "_meta": {"title": node.get("title") or object_info[kind].get("display_name", kind)},
        }
    return prompt


def _name(node: Json) -> str:
    return f"{node.get('title') or node['type']} (node {node['id']})"


def _links(workflow: Json) -> dict[int, tuple[int, int]]:
    """Link id → (node id, output slot). Version 0.4 has lists, version 1 objects."""
    found = {}
    for link in workflow.get("links", ()):
        if isinstance(link, dict):
            found[link["id"]] = (link["origin_id"], link["origin_slot"])
        else:
            found[link[0]] = (link[1], link[2])
    return found


def _source(
    link: int, links: dict[int, tuple[int, int]], nodes: dict[int, Json]
) -> list[Any] | None:
    """Where a link starts, past reroutes: [node, slot], a primitive's [value], or None."""
    for _ in range(len(links) + 1):
        if link not in links:
            return None
        origin, slot = links[link]
        node = nodes.get(origin)
        if node is None:
            return None
        if node["type"] == PRIMITIVE:
            return [node["widgets_values"][0]]
        if node["type"] != REROUTE:
            return [str(origin), slot]
        link = node["inputs"][0].get("link")
    return None


def _schema(info: Json) -> list[tuple[str, Any, Json]]:
    """A node's inputs in the order of its schema: (name, type or list of choices, options)."""
    order = info.get("input_order") or {part: list(found) for part, found in info["input"].items()}
    inputs = []
    for part in ("required", "optional"):
        for name in order.get(part, ()):
            kind, options = (*info["input"][part][name], {})[:2]
            inputs.append((name, kind, options or {}))
    return inputs


def _is_widget(kind: Any, options: Json) -> bool:
    if options.get("forceInput") or options.get("rawLink"):
        return False
    return isinstance(kind, list) or kind in WIDGET_TYPES


def _widget_values(node: Json, info: Json) -> Json:
    """The values of the node's widgets by input name."""
    saved = node.get("widgets_values") or []
    if isinstance(saved, dict):  # saved by name
        return {name: saved[name] for name, _, _ in _schema(info) if name in saved}
    values: Json = {}
    at = 0
    for name, kind, options in _schema(info):
        if kind in REFUSED_TYPES if isinstance(kind, str) else False:
            raise WorkflowError(f"{_name(node)}: its input {name} changes with others: {kind}.")
        if not _is_widget(kind, options):
            continue
        if at >= len(saved):
            if "default" in options:  # saved before the node had this input
                values[name] = options["default"]
                continue
            raise WorkflowError(
                f"{_name(node)}: {len(saved)} values are saved, none of them for {name}. "
                "Was the workflow saved with another version of the node?"
            )
        values[name] = saved[at]
        at += 1
        # After a seed the page adds a widget of its own and saves it with the others. (Its upload
        # buttons come after all inputs.)
        controlled = options.get("control_after_generate") or name in SEEDS
        if controlled and at < len(saved) and saved[at] in AFTER_GENERATE:
            at += 1
    return values


def bypass(prompt: Json, node: str, input_name: str, slot: int = 0) -> Json:
    """The prompt without a node: what its output `slot` fed is now fed by its `input_name`."""
    source = prompt[node]["inputs"][input_name]
    without: Json = {}
    for other, found in prompt.items():
        if other == node:
            continue
        inputs = {
            name: source if value == [node, slot] else value
            for name, value in found["inputs"].items()
        }
        without[other] = {**found, "inputs": inputs}
    return without


def only(prompt: Json, wanted: str) -> Json:
    """The part of a prompt that a node needs, the node included."""
    needed: Json = {}
    waiting = [wanted]
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed[node] = prompt[node]
            waiting += [
                value[0]
                for value in prompt[node]["inputs"].values()
                if isinstance(value, list) and len(value) == 2 and value[0] in prompt
            ]
    return needed


def find(prompt: Json, class_type: str, **inputs: Any) -> str:
    """The id of the one node of a type that has these widget values."""
    found = [
        node
        for node, what in prompt.items()
        if what["class_type"] == class_type
        and all(what["inputs"].get(name) == value for name, value in inputs.items())
    ]
    if len(found) != 1:
        wish = f"{class_type} with {inputs}" if inputs else class_type
        raise WorkflowError(f"Expected one {wish} in the workflow, found {len(found)}.")
    return found[0]
