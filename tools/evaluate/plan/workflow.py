"""A workflow file → the part of its API prompt that scores need."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.workflows.api_prompt import NOTES, PRIMITIVE, REROUTE, WorkflowError, only, to_prompt

from ..errors import EvaluationError

IMACS = "I2AM_IMACS"
COLLECT = "I2AM_Collect"
Json = dict[str, Any]


@dataclass(frozen=True)
class Workflow:
    """An API prompt, cut down to what its IMACS nodes need.

    imacs: the ids of the IMACS nodes, in file order. object_info: of its node types.
    """

    path: Path
    prompt: Json
    imacs: tuple[str, ...]
    object_info: Json

    def title(self, node: str) -> str:
        """The title the page shows above a node."""
        found = self.prompt[node]
        kind = found["class_type"]
        title = found.get("_meta", {}).get("title")
        return title or self.object_info[kind].get("display_name") or kind

    def name(self, node: str) -> str:
        """A node's description for messages."""
        return f"“{self.title(node)}” (node {node})"

    def options(self, node: str, name: str) -> tuple[Any, Json]:
        """The type of an input (or its list of choices), and its options, from its schema."""
        inputs = self.object_info[self.prompt[node]["class_type"]]["input"]
        for part in ("required", "optional"):
            if name in inputs.get(part, {}):
                kind, options = (*inputs[part][name], {})[:2]
                return kind, options or {}
        return "*", {}

    def prefix(self, node: str) -> str:
        """The prefix for the figures of one of several IMACS nodes: its title and a point."""
        return "" if len(self.imacs) == 1 else f"{self.title(node)}."


def node_types(path: Path) -> list[str]:
    """The node types a workflow file uses, read without ComfyUI.

    Raises EvaluationError if the file is not a workflow or has nothing to score.
    """
    data = _load(path)
    nodes = data["nodes"] if "nodes" in data else data.values()
    types = {node.get("type") or node.get("class_type") for node in nodes}
    if IMACS not in types:
        raise EvaluationError(
            f"{path.name} has no IMACS node, so there is nothing to score. Add IMACS behind "
            "Collect Attribution, connect its masks, and save the workflow again."
        )
    return sorted(types - {*NOTES, REROUTE, PRIMITIVE})


def read_workflow(path: Path, object_info: Json) -> Workflow:
    """Reads a workflow saved by ComfyUI's page or for its API.

    object_info: of ComfyUI's node types, as its server returns it.
    Raises EvaluationError if the file is not a workflow or cannot be scored.
    """
    data = _load(path)
    try:
        prompt = to_prompt(data, object_info) if "nodes" in data else data
    except WorkflowError as error:
        raise EvaluationError(f"{path.name} cannot be run: {error}") from None
    missing = {node["class_type"] for node in prompt.values()} - set(object_info)
    if missing:
        raise EvaluationError(
            f"{path.name} uses nodes that ComfyUI does not know: {', '.join(sorted(missing))}. "
            "Install their pack into the ComfyUI that is used, and look at its log."
        )
    imacs = [node for node, found in prompt.items() if found["class_type"] == IMACS]
    needed: Json = {}
    for node in imacs:
        needed |= only(prompt, node)
    workflow = Workflow(path, needed, tuple(imacs), object_info)
    for node in imacs:
        _check_scored(workflow, node)
    prefixes = [workflow.prefix(node) for node in imacs]
    if len(set(prefixes)) < len(prefixes):
        raise EvaluationError(
            f"{path.name} has {len(imacs)} IMACS nodes, and some have the same title. Give each a "
            "title of its own: it stands before its figures."
        )
    return workflow


def _load(path: Path) -> Json:
    try:
        data = json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise EvaluationError(f"{path} cannot be read: {error.strerror or error}.") from None
    except ValueError as error:
        raise EvaluationError(f"{path} is not JSON: {error}. Save the workflow again.") from None
    data = data.get("prompt", data) if isinstance(data, dict) else data
    nodes = data.get("nodes") if isinstance(data, dict) else None
    api = isinstance(data, dict) and all(
        isinstance(node, dict) and "class_type" in node for node in data.values()
    )
    if not data or not (isinstance(nodes, list) or api):
        raise EvaluationError(
            f"{path} holds no workflow. Save one with Workflow > Save, or Workflow > Export (API)."
        )
    return data


def _check_scored(workflow: Workflow, node: str) -> None:
    """Checks that an IMACS node scores Collect Attribution's output, with its picture."""
    source = workflow.prompt[node]["inputs"].get("attribution")
    if not isinstance(source, list):
        raise EvaluationError(
            f"{workflow.name(node)}: nothing is connected to attribution. Connect Collect "
            "Attribution."
        )
    collect = source[0]
    if workflow.prompt[collect]["class_type"] != COLLECT:
        raise EvaluationError(
            f"{workflow.name(node)} scores what {workflow.name(collect)} gives. Only what Collect "
            "Attribution gives can be evaluated: a loaded recording is not sampled anew."
        )
    if not isinstance(workflow.prompt[collect]["inputs"].get("image"), list):
        raise EvaluationError(
            f"{workflow.name(collect)}: no image is connected. Connect the decoded result; it is "
            "kept and compared with the target."
        )
