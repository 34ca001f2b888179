"""Attribution Viewer: an attribution, sent to the page to be explored there."""

from __future__ import annotations

import hashlib
import os
import uuid
from itertools import chain
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io, ui
from torch import Tensor

from ...i2am.display import pack_payload, read_payload_header
from ...i2am.errors import I2AMError
from ...i2am.recording import Attribution, Direction
from ..sockets import AttributionSocket, temporary_folder


class _Written:
    """The files written for the page, and how often some were found missing."""

    def __init__(self) -> None:
        self._paths = set[Path]()
        self._losses = 0

    def add(self, file: dict[str, Any]) -> None:
        """Note a file. file: its entry in the message to the page."""
        self._paths.add(
            Path(folder_paths.get_temp_directory()) / file["subfolder"] / file["filename"]
        )

    def losses(self) -> int:
        """Check the files; return how often some were missing, so far."""
        gone = {path for path in self._paths if not path.is_file()}
        self._paths -= gone
        self._losses += bool(gone)
        return self._losses


_WRITTEN = _Written()


class AttributionViewer(io.ComfyNode):
    """ATTRIBUTION → its payload and pictures as files for the page. Python keeps no values."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Viewer",
            display_name="Attribution Viewer",
            category="I2AM",
            description="Point at a place of the result and see where in the reference it came "
            "from, or the other way round. Shows all maps, steps, layers and heads without "
            "running anything again.",
            search_aliases=["interactive", "hover", "heatmap", "attention map", "explain", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                io.Mask.Input(
                    "reference_mask",
                    optional=True,
                    tooltip="White on the wanted object in the first reference. It is outlined "
                    "there and scored. The mask over the result is the one of Collect "
                    "Attribution.",
                ),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **_: Any) -> int:
        """A number that changes once files are missing: ComfyUI's cached output is stale then."""
        return _WRITTEN.losses()

    @classmethod
    def execute(
        cls, attribution: Attribution, reference_mask: Tensor | None = None
    ) -> io.NodeOutput:
        payload = pack_payload(attribution, {} if reference_mask is None else {0: reference_mask})
        items, batch = read_payload_header(payload)["batch"], attribution.recording.header.run.batch
        image = attribution.image
        # Only the pictures of the items that are sent; a video's are stored item by item.
        result = _saved(cls, None if image is None else image[: len(image) // batch * items])
        shown: dict[str, Any] = {
            "payload": _written(payload),
            "result": result,
            "references": [
                result if pictures is image else _saved(cls, _all_of(attribution, number))
                for number, pictures in enumerate(attribution.references)
            ],
            "bytes": len(payload),
        }
        for file in (shown["payload"], *shown["result"], *chain(*shown["references"])):
            _WRITTEN.add(file)
        return io.NodeOutput(ui={"i2am_viewer": [shown]})


def _all_of(attribution: Attribution, reference: int) -> Tensor | None:
    """A reference's pictures; the whole ones if the model saw only a part."""
    whole = attribution.whole(Direction.GENERATED_TO_REFERENCE, reference)
    return attribution.references[reference] if whole is None else whole.pictures


def _written(payload: bytes) -> dict[str, str]:
    """Payload → the entry of its file: in ComfyUI's temporary folder, named by its content."""
    folder: Path = temporary_folder()
    path = folder / f"{hashlib.blake2b(payload, digest_size=16).hexdigest()}.i2am"
    if not path.exists():
        part = path.with_name(f".{path.name}.{uuid.uuid4().hex}.part")
        try:
            part.write_bytes(payload)
            os.replace(part, path)
        except OSError as error:
            raise I2AMError(
                "What the viewer shows could not be written to ComfyUI's temporary folder: "
                f"{error.strerror or error}. Free some space and run again."
            ) from None
        finally:
            part.unlink(missing_ok=True)
    return {"filename": path.name, "subfolder": folder.name, "type": "temp"}


def _saved(node: type[io.ComfyNode], pictures: Tensor | None) -> list[dict[str, Any]]:
    """Pictures → the entries of their files, saved the way ComfyUI saves its own previews."""
    if pictures is None:
        return []
    return ui.PreviewImage(pictures, cls=node).as_dict()["images"]
