"""A recording and its pictures: the value that travels between the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from einops import rearrange
from torch import Tensor

from ..errors import I2AMError
from ..tokens import Picture, frames_of
from .recording import Header, Recording

_MOST_PIXELS = 4096  # of one side of a picture


class Definition(str, Enum):
    """Which softmax a map is made of (`key_scope`)."""

    PAPER = "paper"  # over one side's tokens alone: I2AM section 3, M_g and M_r
    MODEL = "model"  # the model's own, over all of its keys


class Direction(str, Enum):
    """Which picture a map lies over."""

    REFERENCE_TO_GENERATED = "reference to generated"
    GENERATED_TO_REFERENCE = "generated to reference"


@dataclass(frozen=True)
class Attribution:
    """A recording and the pictures to lay its maps over: what travels between the nodes.

    image: (batch, height, width, 3) in 0–1, the result. references: for each of them
    (1 or batch, height, width, 3) in 0–1, several where each batch item was given its own.
    mask: (1 or batch, height, width), 1 where the reference was meant to go. Each may be missing.
    mask_sampled: whether that mask is the inpainting mask of the run itself.
    All of a video's pictures stand for one: (batch × pictures, …), (pictures, …) for a reference.
    """

    recording: Recording
    image: Tensor | None = None
    references: tuple[Tensor | None, ...] = ()
    mask: Tensor | None = None
    mask_sampled: bool = False

    def picture(self, direction: Direction, reference: int) -> Tensor | None:
        """The pictures a direction's maps lie over: (1 or batch, height, width, 3)."""
        if direction is Direction.REFERENCE_TO_GENERATED:
            return self.image
        return self.references[reference] if reference < len(self.references) else None

    def frames(self, direction: Direction, reference: int) -> int:
        """How many latent frames a direction's maps have."""
        return side_of(self.recording, direction, reference).grid.frames

    def video(self, direction: Direction, reference: int) -> Tensor | None:
        """The same with a video's pictures apart: (1 or batch, pictures, height, width, 3)."""
        picture = self.picture(direction, reference)
        if picture is None:
            return None
        if self.frames(direction, reference) == 1:
            return picture.unsqueeze(1)
        # A reference that is a video is one for all results.
        results = direction is Direction.REFERENCE_TO_GENERATED or self.recording.header.plan.within
        batch = self.recording.header.run.batch if results else 1
        return rearrange(picture, "(b pictures) h w c -> b pictures h w c", b=batch)

    def size(self, direction: Direction, reference: int) -> tuple[int, int]:
        """The (height, width) in pixels of that picture; of its latent × 8 where none was given.

        A latent that would be larger than any picture so is taken for one of pixels.
        """
        picture = self.picture(direction, reference)
        if picture is not None:
            return picture.shape[1], picture.shape[2]
        side = side_of(self.recording, direction, reference)
        if side.latent == (0, 0):
            return side.grid.height * 16, side.grid.width * 16
        pixels = 8 if max(side.latent) * 8 <= _MOST_PIXELS else 1
        return side.latent[0] * pixels, side.latent[1] * pixels


def side_of(recording: Recording, direction: Direction, reference: int) -> Picture:
    header = recording.header
    if direction is Direction.REFERENCE_TO_GENERATED:
        return header.generated
    return header.references[reference]


def fits_results(count: int, header: Header) -> bool:
    """Whether so many pictures are one for each result, or all of each result's video."""
    each, rest = divmod(count, header.run.batch)
    return rest == 0 and bool(frames_of(each, header.generated.grid.frames))


def fits_reference(count: int, header: Header, reference: int) -> bool:
    """Whether so many pictures are a reference: one for all results or for each, or a video's."""
    frames = header.references[reference].grid.frames
    return bool(frames_of(count, frames)) or (frames == 1 and count == header.run.batch)


def best_definition(recording: Recording) -> Definition:
    """The definition to look at first.

    Where text, result and references share one softmax, most layers hardly read the reference and
    the few that do must weigh more: the model's own attention. Elsewhere the paper's.
    """
    return Definition.MODEL if recording.header.joint else Definition.PAPER


def check_reference(header: Header, reference: int, direction: Direction) -> None:
    """Raises I2AMError for a reference, from 0, that is not there or has no map in a direction."""
    if not 0 <= reference < len(header.references):
        raise I2AMError(
            f"Reference {reference + 1} does not exist: the model was given "
            f"{len(header.references)}. Choose 1 to {len(header.references)}."
        )
    over = header.references[reference]
    if direction is Direction.GENERATED_TO_REFERENCE and not over.has_places:
        raise I2AMError(
            f"There is no map over reference {reference + 1}: its tokens ({over.kind}) stand for "
            "the whole picture, not for places in it. Choose reference to generated, or read its "
            "share in Collect Attribution's report."
        )
