"""What saved workflows depend on and what users are told: every node's inputs and outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools.workflows.node_schema import RELEASED, inputs_of, schema_of

PACK = Path(__file__).resolve().parents[2]
WIDGETS = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}


@pytest.fixture(scope="module")
def nodes(comfy: Any) -> dict[str, Any]:
    """Each of our nodes as described to the page, by its id."""
    ours = {name: node for name, node in comfy.nodes.NODE_CLASS_MAPPINGS.items() if "I2AM" in name}
    assert ours
    return {name: node.GET_SCHEMA().get_v1_info(node) for name, node in ours.items()}


def test_saved_workflows_still_fit(nodes: dict[str, Any]) -> None:
    """In a released node nothing is renamed, moved or removed; new inputs are optional."""
    for name, released in json.loads(RELEASED.read_text(encoding="utf-8")).items():
        assert name in nodes, f"{name} was released, and is gone"
        now = schema_of(nodes[name])
        kept = [one for one in now["inputs"] if one in released["inputs"]]
        assert kept == list(released["inputs"]), f"{name}: inputs were moved or taken away"
        for one, kind in released["inputs"].items():
            assert now["inputs"][one] == kind, f"{name}: {one} is of another type"
        count = len(released["outputs"])
        assert now["outputs"][:count] == released["outputs"], f"{name}: outputs changed"
        for one, (_, _, required) in inputs_of(nodes[name]).items():
            # Prompts saved for the API do not name it, and would be refused.
            assert one in released["inputs"] or not required, f"{name}: {one} must be optional"
        widgets = [one for one, (kind, _, _) in inputs_of(nodes[name]).items() if kind in WIDGETS]
        old = [one for one in widgets if one in released["inputs"]]
        assert widgets[: len(old)] == old, f"{name}: new widgets must come after the old ones"


def test_everything_is_explained(nodes: dict[str, Any]) -> None:
    """A description, search aliases, a help page, a tooltip for each input and output."""
    for name, info in nodes.items():
        assert info.category == "I2AM", name
        assert info.description, f"{name} has no description"
        assert info.search_aliases, f"{name} cannot be found by another name"
        assert (PACK / "web" / "docs" / f"{name}.md").is_file(), f"{name} has no help page"
        for one, (kind, options, _) in inputs_of(info).items():
            grows = kind.startswith("COMFY_AUTOGROW")
            assert options.get("tooltip") or grows, f"{name}: {one} has no tooltip"
        tips = info.output_tooltips or ()
        assert len(tips) == len(info.output), f"{name}: outputs without tooltips"
        assert all(tips), f"{name}: an output without a tooltip"


def test_no_help_page_without_a_node(nodes: dict[str, Any]) -> None:
    pages = {page.stem for page in (PACK / "web" / "docs").glob("*.md")}
    assert pages <= nodes.keys()
