"""The texts of our nodes on ComfyUI's page, as its translation files hold them.

    python -m tools.docs.locales    writes locales/en/nodeDefs.json from the nodes themselves

The other languages are written by hand. `git diff locales/en` then shows what has to be translated
again, and a test names what is missing. ComfyUI serves all of it to the page under /i18n. It does
not translate the values of a choice, so tooltips name them in English.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

from tools.comfyui.in_process import ROOT, import_comfyui, import_pack
from tools.workflows.node_schema import inputs_of

LOCALES = ROOT / "locales"
Texts = dict[str, Any]  # nested: node, "inputs" or "outputs", which one, "name" or "tooltip"


def texts_of(info: Any) -> Texts:
    """One node's part of the English file."""
    inputs: Texts = {}
    for name, (kind, options, _) in inputs_of(info).items():
        inputs[name] = {
            "name": options.get("display_name") or name,
            "tooltip": options["tooltip"],
        }
        if kind.startswith("COMFY_AUTOGROW"):
            # The page looks its sockets up as group_socket.
            template = options["template"]
            ((_, one),) = template["input"]["required"].values()
            for socket in template["names"]:
                inputs[f"{name}_{socket}"] = {"name": socket, "tooltip": one["tooltip"]}
    outputs = {
        str(index): {"name": name, "tooltip": tooltip}
        for index, (name, tooltip) in enumerate(
            zip(info.output_name, info.output_tooltips or (), strict=True)
        )
    }
    texts: Texts = {"display_name": info.display_name, "description": info.description}
    return texts | {key: part for key, part in (("inputs", inputs), ("outputs", outputs)) if part}


def lines(texts: Texts, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text with its path, for example I2AM_Map.inputs.level.tooltip."""
    for key, value in texts.items():
        if isinstance(value, str):
            yield path + key, value
        else:
            yield from lines(value, f"{path}{key}.")


async def _english() -> Texts:
    nodes = await (await import_pack().comfy_entrypoint()).get_node_list()
    infos = {node.GET_SCHEMA().node_id: node.GET_SCHEMA().get_v1_info(node) for node in nodes}
    return {name: texts_of(info) for name, info in sorted(infos.items())}


if __name__ == "__main__":
    import_comfyui()
    english = LOCALES / "en" / "nodeDefs.json"
    english.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asyncio.run(_english()), indent=2, ensure_ascii=False)
    english.write_text(text + "\n", encoding="utf-8")
