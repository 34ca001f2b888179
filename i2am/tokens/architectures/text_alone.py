"""Models that are given text alone: there are words to watch, and no reference.

A Krea, a Flux or a UNet without a reference is read by its own family; these families have no way
to take one. Each is read as its network puts its tokens in order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from torch import nn

from ...errors import LayoutMismatch
from ..layout import Picture, Role, Span, TokenLayout
from .base import (
    Architecture,
    Call,
    Forward,
    Layer,
    Piece,
    blocks,
    consecutive_spans,
    counted_layer,
    generated_grid,
    joint_layout,
    named_layer,
    prompt,
)
from .flux import FLUX
from .hunyuan_video import HUNYUAN_VIDEO

_TEXT_ONLY = "it gets text only"


def no_references(forward: Forward) -> tuple[Picture, ...]:
    """For `Architecture.references`: none, whatever is given."""
    del forward
    return ()


def _joint(
    name: str,
    model: str,
    layers: Callable[[nn.Module], tuple[Layer, ...]],
    pieces: Callable[[Forward, Call], tuple[Piece, ...]],
    *,
    named: bool = False,
    tested: str = "0.24.1, 0.30.0",
    note: str = "",
    video: bool = False,
) -> Architecture:
    """A family whose blocks attend to one sequence of text and picture.

    pieces: of the sequence. named: whether the host names the block of a call. If not, blocks are
    counted: calls of other counts come between them, and are left out.
    """

    def read(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
        own = pieces(forward, call)
        count = consecutive_spans(*own)[-1].stop
        if not named and (call.queries, call.keys) != (count, count):
            return None
        layer = named_layer(call) if named else counted_layer(forward.layers, call.nth)
        return layer, joint_layout(call, *own)

    return Architecture(
        name=name,
        models=frozenset({model}),
        joint=True,
        reference_kind="",
        layers=layers,
        references=no_references,
        read=read,
        note=note,
        tested=tested,
        video=video,
        without=_TEXT_ONLY,
    )


def _result(forward: Forward) -> Piece:
    return Role.GENERATED, generated_grid(forward)


def _registers_first(forward: Forward, _: Call) -> tuple[Piece, ...]:
    """[registers | text | result]."""
    registers = (Role.TEXT, forward.numbers["register_length"])
    return registers, prompt(forward), _result(forward)


def _aura_flow(forward: Forward, _: Call) -> tuple[Piece, ...]:
    """[registers, eight of them | text | result]."""
    return (Role.TEXT, 8), prompt(forward), _result(forward)


def _cells_first(forward: Forward, _: Call) -> tuple[Piece, ...]:
    """[result | text]; a token is one cell of the latent."""
    return _result(replace(forward, patch=1)), prompt(forward)


def _cells_last(forward: Forward, _: Call) -> tuple[Piece, ...]:
    """[text | result]; a token is one cell of the latent."""
    return prompt(forward), _result(replace(forward, patch=1))


def _cut_text_last(forward: Forward, call: Call) -> tuple[Piece, ...]:
    """[result | text, its padding cut off]."""
    result = generated_grid(forward)
    kept = min(max(call.keys - result.area, 0), forward.context)
    return (Role.GENERATED, result), (Role.TEXT, kept, 0)


def _cut_text_first(forward: Forward, _: Call) -> tuple[Piece, ...]:
    """[text, as much as the model reads | result]."""
    kept = min(forward.context, forward.numbers["txt_max_length"])
    return (Role.TEXT, kept, 0), _result(forward)


SD3 = _joint(
    *("Stable Diffusion 3", "SD3", blocks(joint="joint_blocks"), _registers_first),
    note="In 3.5 medium the picture also attends to itself alone; those calls are left out.",
)
AURA_FLOW = _joint(
    "AuraFlow",
    "AuraFlow",
    blocks(double="double_layers", single="single_layers"),
    _aura_flow,
)
LENS = _joint(
    *("Lens", "Lens", blocks(double="transformer_blocks"), _cells_first),
    named=True,
    tested="0.30.0",
)
IDEOGRAM4 = _joint(
    *("Ideogram 4", "Ideogram4", blocks(layer="layers"), _cells_last),
    tested="0.30.0",
)
MOCHI = _joint(
    *("Mochi", "GenmoMochi", blocks(block="blocks"), _cut_text_last),
    video=True,
)
PIXEL_DIT = _joint(
    *("PixelDiT", "PixelDiTT2I", blocks(patch="patch_blocks"), _cut_text_first),
    tested="0.30.0",
)


def _kandinsky5(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """Queries: the result. Keys: the text. Before that, in every block, the result attends to
    itself."""
    if "block_index" not in call.options:
        return None  # the text's own blocks
    grid = generated_grid(forward)
    if (call.queries, call.keys) != (grid.area, forward.context):
        if call.queries == call.keys == grid.area:
            return None
        raise LayoutMismatch(
            f"{call.queries} queries and {call.keys} keys, but the result has {grid.area} tokens "
            f"and the text {forward.context}"
        )
    if call.nth != (call.queries == call.keys):
        return None
    keys = consecutive_spans(prompt(forward))
    return named_layer(call), TokenLayout((Span(Role.GENERATED, 0, grid.area, grid),), keys)


KANDINSKY5 = Architecture(
    name="Kandinsky 5 Image",
    models=frozenset({"Kandinsky5Image"}),
    joint=False,
    reference_kind="",
    layers=blocks(double="visual_transformer_blocks"),
    references=no_references,
    read=_kandinsky5,
    tested="0.30.0",
    without=_TEXT_ONLY,
)


def _chroma(forward: Forward, call: Call) -> tuple[Layer, TokenLayout] | None:
    """As Flux without its references."""
    return FLUX.read(replace(forward, references=()), call)


CHROMA = replace(
    FLUX,
    name="Chroma",
    models=frozenset({"Chroma"}),
    reference_kind="",
    references=no_references,
    read=_chroma,
    note="",
    without="it ignores reference latents",
)
HUNYUAN_IMAGE = replace(
    HUNYUAN_VIDEO,
    name="HunyuanImage 2.1",
    models=frozenset({"HunyuanImage21"}),
    reference_kind="",
    references=no_references,
    note="Glyphs count as text, not as words.",
    video=False,
    without=_TEXT_ONLY,
)
