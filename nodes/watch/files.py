"""Save and Load Attribution: recordings as files under ComfyUI's output folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import folder_paths
from comfy_api.latest import io

from ...i2am.display import recording_report, recording_summary
from ...i2am.errors import I2AMError
from ...i2am.recording import Attribution, load_attribution, save_attribution
from ..sockets import AttributionSocket

_ENDING = ".safetensors"


class SaveAttribution(io.ComfyNode):
    """Write an attribution with its pictures."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Save",
            display_name="Save Attribution",
            category="I2AM",
            description="Saves a recording with its pictures as one .safetensors file in "
            "ComfyUI's output folder, for Load Attribution or any script.",
            search_aliases=["export", "raw", "I2AM"],
            is_output_node=True,
            inputs=[
                AttributionSocket.Input("attribution", tooltip="From Collect Attribution."),
                io.String.Input(
                    "filename_prefix",
                    default="i2am/attribution",
                    optional=True,
                    tooltip="Where to save it below the output folder. A number is added, so "
                    "nothing is overwritten. Placeholders such as %date:yyyy-MM-dd% work as in "
                    "Save Image.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="file",
                    tooltip="Its name below the output folder, as Load Attribution takes it.",
                )
            ],
        )

    @classmethod
    def execute(
        cls, attribution: Attribution, filename_prefix: str = "i2am/attribution"
    ) -> io.NodeOutput:
        root = folder_paths.get_output_directory()
        if not _inside(root, filename_prefix):
            raise I2AMError(
                f"“{filename_prefix[:200]}” is no name below the output folder, and nothing is "
                "saved elsewhere. Choose one such as i2am/attribution."
            )
        try:
            folder, name, number, subfolder, _ = folder_paths.get_save_image_path(
                filename_prefix, root
            )
            file = f"{name}_{number:05}_{_ENDING}"
            save_attribution(Path(folder) / file, attribution)
        except OSError as error:
            raise I2AMError(
                f"The attribution could not be saved: {error.strerror or error}. Nothing else is "
                "lost; free some space or choose another name, and run again."
            ) from None
        path = (Path(subfolder) / file).as_posix()
        shown = {"filename": file, "subfolder": subfolder, "type": "output"}
        return io.NodeOutput(path, ui={"i2am": [shown], "text": [path]})


class LoadAttribution(io.ComfyNode):
    """Read what Save Attribution wrote."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="I2AM_Load",
            display_name="Load Attribution",
            category="I2AM",
            description="Loads a recording that Save Attribution wrote, with its pictures.",
            search_aliases=["import", "I2AM"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=_saved_files(),
                    tooltip="A file below ComfyUI's output folder.",
                )
            ],
            outputs=[
                AttributionSocket.Output(
                    display_name="attribution", tooltip="The recording, for the other nodes."
                ),
                io.String.Output(display_name="report", tooltip="What was recorded."),
            ],
        )

    @classmethod
    def validate_inputs(cls, file: Any) -> bool | str:
        try:
            _path(str(file))
        except I2AMError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: str) -> Any:
        return _path(file).stat().st_mtime_ns

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        try:
            attribution = load_attribution(_path(file))
        except OSError as error:
            raise I2AMError(f"“{file}” cannot be read: {error.strerror or error}.") from None
        recording = attribution.recording
        return io.NodeOutput(
            attribution, recording_report(recording), ui={"i2am": [recording_summary(recording)]}
        )


def _path(file: str) -> Path:
    """A name → the file below the output folder. Raises I2AMError if there is none."""
    root = folder_paths.get_output_directory()
    path = os.path.join(root, file)
    # A file outside the folder counts as missing, even if it exists.
    if not file.endswith(_ENDING) or not _inside(root, file) or not os.path.isfile(path):
        raise I2AMError(f"There is no “{file[:200]}” in the output folder.")
    return Path(path)


def _inside(root: str, name: str) -> bool:
    """Whether a name leads to a place inside a folder. Links are followed."""
    try:
        top, place = os.path.realpath(root), os.path.realpath(os.path.join(root, name))
        return os.path.commonpath((top, place)) == top
    except (OSError, ValueError):  # not a file name: a null byte, another drive, too long
        return False


def _saved_files() -> list[str]:
    root = Path(folder_paths.get_output_directory())
    return sorted(path.relative_to(root).as_posix() for path in root.rglob(f"*{_ENDING}"))
