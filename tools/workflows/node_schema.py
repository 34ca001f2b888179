"""What saved workflows depend on in our nodes: ids, inputs with their types, outputs.

    python -m tools.workflows.node_schema     writes tests/nodes/released_schema.json at a release

From then on, a test keeps all of it unchanged.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tools.comfyui.in_process import ROOT, import_comfyui, import_pack

RELEASED = ROOT / "tests" / "nodes" / "released_schema.json"


def inputs_of(info: Any) -> dict[str, tuple[str, dict[str, Any], bool]]:
    """In order: name → type, options, and whether it must be connected or set."""
    return {
        name: (spec[0] if isinstance(spec[0], str) else "COMBO", spec[1], kind == "required")
        for kind in ("required", "optional")
        for name, spec in info.input.get(kind, {}).items()
    }


def schema_of(info: Any) -> dict[str, Any]:
    """One node's part of the file."""
    return {
        "inputs": {name: kind for name, (kind, _, _) in inputs_of(info).items()},
        "outputs": [
            [name, kind if isinstance(kind, str) else "COMBO"]
            for name, kind in zip(info.output_name, info.output, strict=True)
        ],
    }


async def _schemas() -> dict[str, Any]:
    nodes = await (await import_pack().comfy_entrypoint()).get_node_list()
    infos = {node.GET_SCHEMA().node_id: node.GET_SCHEMA().get_v1_info(node) for node in nodes}
    return {name: schema_of(info) for name, info in sorted(infos.items())}


if __name__ == "__main__":
    import_comfyui()
    RELEASED.write_text(json.dumps(asyncio.run(_schemas()), indent=1) + "\n", encoding="utf-8")
