"""Watches a template and runs it small: is the picture the same, and what was recorded?"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

from PIL import Image
from playwright.sync_api import Page

from i2am.display.payload import read_payload_header
from tools.comfyui.server import ComfyServer, ServerError

from .official import read
from .page import Visit, visit
from .small import small, watched_links, with_digests

_SECONDS = 300
_ONE_TOKEN = 1.0  # half a token on either side, since sizes are rounded
_SQUARE = ("CLIP image tokens", "vision tokens", "image tokens", "style tokens")
_REFUSED_BY = ("I2AM_Capture", "I2AM_Collect")


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of watching one template.

    family: of the models that were read, as named in docs/models.md. samplers: how many were
    watched. references: how many reference pictures they were given in total. said: what the page
    reported as not found or not watchable. refused: a node's message in place of a recording. same:
    whether pictures and latents are bit for bit those of the unwatched run; None if there is
    nothing to compare. misplaced: pictures whose proportions differ from what the model saw, in
    words. restored: whether the graph was left byte for byte as before.
    """

    name: str
    kinds: tuple[str, ...]
    switched_on: bool
    family: str
    samplers: int
    references: int
    said: str
    refused: str
    same: bool | None
    restored: bool
    misplaced: tuple[str, ...] = ()

    @property
    def is_right(self) -> bool:
        return self.same is not False and self.restored and not self.misplaced

    @property
    def is_read(self) -> bool:
        return self.samplers > 0 and not self.refused


def try_out(
    page: Page,
    server: ComfyServer,
    name: str,
    kinds: tuple[str, ...] = (),
    *,
    switched_on: bool = False,
) -> Outcome:
    """Opens a template, watches it, and runs it with and without the watching nodes."""
    seen = visit(page, read(name), switched_on=switched_on)
    links = watched_links(seen.watched)
    said = "; ".join(
        dict.fromkeys(_words(one) for one in seen.said if one["severity"] != "success")
    )
    plan = (name, kinds, switched_on)
    if not links:
        return Outcome(*plan, "", 0, 0, said, "", None, seen.restored)
    plain = _digests(server.run(small(with_digests(seen.plain, links)), _SECONDS))
    references = _references(seen)
    samplers = sum(node["class_type"] == "I2AM_Collect" for node in seen.watched.values())
    try:
        shown = server.run(small(with_digests(seen.watched, links)), _SECONDS)
    except ServerError as error:
        refused = str(error)
        if not refused.startswith(_REFUSED_BY):
            raise
        reason = refused.partition("): ")[2]
        return Outcome(*plan, "", samplers, references, said, reason, None, seen.restored)
    families = dict.fromkeys(
        f"{one['architecture']} (`{one['model']}`)"
        for node in shown.values()
        for one in node.get("i2am", ())
        if "architecture" in one
    )
    same = _digests(shown) == plain
    misplaced = tuple(
        line
        for name, node in shown.items()
        for view in node.get("i2am_viewer", ())
        if not _cut_by_collect(seen.watched, name)
        for line in _misplaced(server, view)
    )
    return Outcome(
        *(*plan, ", ".join(families), samplers, references, said, "", same, seen.restored),
        misplaced=misplaced,
    )


def _words(message: dict[str, str]) -> str:
    return " ".join((message["detail"] or message["summary"]).split())


def _references(seen: Visit) -> int:
    return sum(
        name.startswith("references.")
        for node in seen.watched.values()
        if node["class_type"] == "I2AM_Collect"
        for name in node["inputs"]
    )


def _cut_by_collect(prompt: dict[str, Any], viewer: str) -> bool:
    """Whether a viewer's Collect Attribution was set to crop the pictures."""
    collect = prompt[prompt[viewer]["inputs"]["attribution"][0]]
    return collect["inputs"].get("reference_fit", "auto") != "auto"


def _misplaced(server: ComfyServer, view: dict[str, Any]) -> list[str]:
    """References whose picture is not cropped like their tokens. A vision encoder's are square."""
    header = read_payload_header(server.download(view["payload"]))
    lines: list[str] = []
    for number, (seen, files) in enumerate(
        zip(header["references"], view["references"], strict=True)
    ):
        if not files or seen["kind"] in _SQUARE:
            continue
        with Image.open(io.BytesIO(server.download(files[0]))) as picture:
            width, height = picture.size
        rows, columns = seen["covered"]
        if abs(columns - rows * width / height) > _ONE_TOKEN:
            lines.append(f"reference {number + 1}: {width}×{height}, tokens {columns}×{rows}")
    return lines


def _digests(outputs: dict[str, Any]) -> dict[str, str]:
    """The output of each digest node. Raises ServerError if a picture is not a picture."""
    found = {name: shown for name, shown in outputs.items() if "digest" in shown}
    for name, shown in found.items():
        if not shown["finite"][0]:
            raise ServerError(f"{name} has values that are no numbers: the stand-ins are wrong.")
    return {name: shown["digest"][0] for name, shown in found.items()}
