"""A recording with its pictures: what travels between the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from einops import rearrange
from torch import Tensor

from ..errors import I2AMError
from ..tokens import Picture, frames_of
from .definitions import Definition, first_definition
from .recording import Header, Recording
from .seen import Whole
from .words import Word

_MAX_SIDE = 4096  # pixels, for a picture with a latent eight times smaller


class Direction(str, Enum):
    """Which picture a map lies over."""

    REFERENCE_TO_GENERATED = "reference to generated"
    GENERATED_TO_REFERENCE = "generated to reference"


@dataclass(frozen=True)
class Attribution:
    """A recording and the pictures to draw its maps on. Any of the pictures may be missing.

    image: the result, (batch, height, width, 3) in 0–1. references: one for each reference,
    (1 or batch, height, width, 3) in 0–1; `batch` if each batch item was given its own.
    mask: (1 or batch, height, width), 1 where the reference was meant to go. mask_sampled: whether
    it is the run's own inpainting mask. wholes: for each reference, the whole picture if the model
    saw only a part; `references` then holds only the part. words: of the prompt, if they were asked
    for (Word Attribution).

    The pictures of a video follow one another on the first axis: (batch × pictures, …) for the
    result, (pictures, …) for a reference.
    """

    recording: Recording
    image: Tensor | None = None
    references: tuple[Tensor | None, ...] = ()
    mask: Tensor | None = None
    mask_sampled: bool = False
    wholes: tuple[Whole | None, ...] = ()
    words: tuple[Word, ...] = ()

    def whole(self, direction: Direction, reference: int) -> Whole | None:
        """The whole picture under maps of this direction, if the model saw only a part of it."""
        if direction is Direction.REFERENCE_TO_GENERATED or reference >= len(self.wholes):
            return None
        return self.wholes[reference]

    def picture(self, direction: Direction, reference: int) -> Tensor | None:
        """The pictures that maps of this direction lie over: (1 or batch, height, width, 3)."""
        if direction is Direction.REFERENCE_TO_GENERATED:
            return self.image
        return self.references[reference] if reference < len(self.references) else None

    def frames(self, direction: Direction, reference: int) -> int:
        """The number of latent frames that maps of this direction have."""
        return side_of(self.recording, direction, reference).grid.frames

    def video(self, direction: Direction, reference: int) -> Tensor | None:
        """`picture` with an axis for the pictures of a video: (1 or batch, pictures, h, w, 3)."""
        picture = self.picture(direction, reference)
        if picture is None:
            return None
        if self.frames(direction, reference) == 1:
            return picture.unsqueeze(1)
        # All results share a reference video. With `within`, the reference is the result itself.
        of_results = (
            direction is Direction.REFERENCE_TO_GENERATED or self.recording.header.plan.within
        )
        batch = self.recording.header.run.batch if of_results else 1
        return rearrange(picture, "(b pictures) h w c -> b pictures h w c", b=batch)

    def size(self, direction: Direction, reference: int) -> tuple[int, int]:
        """The (height, width) in pixels of `picture`, or from its latent if there is no picture.

        A latent is eight times smaller than its picture. One too large for that is in pixels.
        """
        picture = self.picture(direction, reference)
        if picture is not None:
            return picture.shape[1], picture.shape[2]
        side = side_of(self.recording, direction, reference)
        if side.latent == (0, 0):
            return side.grid.height * 16, side.grid.width * 16
        pixels = 8 if max(side.latent) * 8 <= _MAX_SIDE else 1
        return side.latent[0] * pixels, side.latent[1] * pixels


def side_of(recording: Recording, direction: Direction, reference: int) -> Picture:
    """The grid and latent that maps of this direction lie over: the result or a reference."""
    header = recording.header
    if direction is Direction.REFERENCE_TO_GENERATED:
        return header.generated
    return header.references[reference]


def fits_results(count: int, header: Header) -> bool:
    """Whether `count` pictures are one for each result, or all pictures of each result's video."""
    each, rest = divmod(count, header.run.batch)
    return rest == 0 and bool(frames_of(each, header.generated.grid.frames))


def fits_reference(count: int, header: Header, reference: int) -> bool:
    """Whether `count` pictures are one for all results, one for each, or those of one video."""
    frames = header.references[reference].grid.frames
    return bool(frames_of(count, frames)) or (frames == 1 and count == header.run.batch)


def best_definition(recording: Recording) -> Definition:
    """The definition to show first."""
    return first_definition(recording.header.plan.recorded, recording.header.joint)


def check_definition(header: Header, definition: Definition) -> None:
    """Raises I2AMError if a definition was not recorded."""
    if definition not in header.plan.recorded:
        raise I2AMError(
            f"This recording holds no {definition.value} definition: Capture Attention recorded "
            f"{' and '.join(kept.value for kept in header.plan.recorded)}. Set its definitions to "
            "all and sample again, or choose one of these."
        )


def check_reference(header: Header, reference: int, direction: Direction) -> None:
    """Raises I2AMError if a reference (from 0) does not exist or has no map of this direction."""
    if not header.references:
        raise I2AMError(
            "This recording holds words alone: the model was given no reference. Use Word "
            "Attribution to see what each word did, or give the model a reference and sample again."
        )
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
