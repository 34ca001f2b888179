"""Which tokens of an attention call are text, result and references, and on which grids."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import cached_property

from ..errors import LayoutMismatch
from .grids import Grid

# Kinds of tokens that each describe a whole picture.
STYLE_TOKENS, ADAPTER_TOKENS = "style tokens", "IP-Adapter tokens"
UNCLIP_TOKENS = "unCLIP tokens"


@dataclass(frozen=True)
class Picture:
    """One side of the maps: the grid of its tokens, and the (height, width) of its latent.

    kind: what it is ("result", "reference latent", "image tokens", "style tokens"). latent: (0, 0)
    if there is none.
    """

    grid: Grid
    latent: tuple[int, int]
    kind: str

    @property
    def has_places(self) -> bool:
        """Whether its tokens have positions in the picture, so that there can be a map over it."""
        return self.kind not in (STYLE_TOKENS, ADAPTER_TOKENS, UNCLIP_TOKENS) and self.grid.area > 1


class Role(str, Enum):
    """What a token stands for."""

    TEXT = "text"  # the prompt, and whatever else is neither the result nor a reference's place
    GENERATED = "generated"
    REFERENCE = "reference"


@dataclass(frozen=True)
class Span:
    """A run of tokens with one role: positions start to stop - 1 of a sequence.

    softmax: the number of its softmax, if the call has several (IP-Adapters beside the text).
    prompt: if these are tokens of the conditioning's text, the number of the first of them in it.
    """

    role: Role
    start: int
    stop: int
    grid: Grid | None = None
    softmax: int = 0
    prompt: int | None = None

    @property
    def length(self) -> int:
        """The number of tokens."""
        return self.stop - self.start

    @property
    def slice(self) -> slice:
        """The positions, to index a token axis with."""
        return slice(self.start, self.stop)


@dataclass(frozen=True)
class TokenLayout:
    """The spans of the query axis and of the key axis of one attention call, in order.

    query_order, key_order: positions of the sequence in the order that the spans describe, if the
    tokens of a picture do not stand together.

    Raises LayoutMismatch if spans overlap or a grid does not have one cell for each token.
    """

    queries: tuple[Span, ...]
    keys: tuple[Span, ...]
    query_order: tuple[int, ...] | None = None
    key_order: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        for spans in (self.queries, self.keys):
            end = 0
            for span in spans:
                if span.start < end or span.stop < span.start:
                    raise LayoutMismatch(f"the {span.role.value} tokens start before {end}")
                if span.grid is not None and span.grid.area != span.length:
                    raise LayoutMismatch(
                        f"{span.length} {span.role.value} tokens do not fill a grid of "
                        f"{'×'.join(map(str, span.grid.shape))}"
                    )
                end = span.stop
        if sum(span.role is Role.GENERATED for span in self.queries) != 1:
            raise LayoutMismatch("a call must hold the generated tokens once among its queries")

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.queries, self.keys, self.query_order, self.key_order))

    @cached_property
    def generated(self) -> Span:
        """The generated tokens on the query axis."""
        return next(span for span in self.queries if span.role is Role.GENERATED)

    @cached_property
    def references(self) -> tuple[Span, ...]:
        """The reference tokens on the key axis, one span for each reference."""
        return tuple(span for span in self.keys if span.role is Role.REFERENCE)

    @cached_property
    def has_prompt(self) -> bool:
        """Whether tokens of the conditioning's text are among the keys."""
        return any(span.prompt is not None for span in self.keys)

    @cached_property
    def key_count(self) -> int:
        """How many keys the layout accounts for."""
        return sum(span.length for span in self.keys)


def grid_of(span: Span) -> Grid:
    """The grid of a span; tokens without positions count as one row."""
    return span.grid or Grid(1, span.length)
