"""HiDream-E1 and HiDream-O1: maps equal the dense oracle's."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
import tiny
import torch
from oracle import Place, Seen
from proof import arm_model, prove, refusal_reason
from tiny_joint import e1, e1_conditioning

both = pytest.mark.parametrize("both", [False, True], ids=["on positive", "on both"])


@both
def test_e1(comfy: Any, both: bool, record_property: Any) -> None:
    """Rows of 3 tokens of the result and 5 of the reference, four of them; 13 of text.

    A result of 7×6 latent pixels, a reference of 7×9, both one row short of whole tokens.
    """
    layers = count()
    reference = {"concat_latent_image": tiny.latent(62, 1, 16, 7, 9)}
    result = [0, 1, 2, 8, 9, 10, 16, 17, 18, 24, 25, 26]
    beside = [*range(3, 8), *range(11, 16), *range(19, 24), *range(27, 32)]

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != 45:
            return None  # the pass without a reference
        return Place(
            layer=next(layers) % 3,
            generated=result,
            grid=(4, 3),
            own=result,
            references=(beside,),
            reference_grids=((4, 5),),
            keys=45,
            # one encoder's five tokens, and twice the other's four
            words=(*((32 + n,) for n in range(5)), *((37 + n, 41 + n) for n in range(4))),
        )

    record, _ = prove(
        *(comfy, e1, e1_conditioning(60, **reference)),
        *(e1_conditioning(64, **(reference if both else {})), tiny.latent(63, 2, 16, 7, 6), place),
        grid=(4, 3),
        heads=2,
        note=record_property,
        cfg=3.0,
    )
    assert record.header.architecture == "HiDream-E1"
    names = [layer.name for layer in record.header.layers]
    assert names == ["double 0", "single 0", "single 1"]
    assert record.header.references[0].grid.covered == (3.5, 4.5)


def test_e1_of_an_odd_width(comfy: Any) -> None:
    """Both pictures fill one column of tokens: the picture is made, a map is refused."""
    given = e1_conditioning(60, concat_latent_image=tiny.latent(62, 1, 16, 6, 5))
    armed = arm_model(comfy, e1())
    latent = tiny.sample(armed, given, given, tiny.latent(63, 1, 16, 6, 5), steps=1)
    reason = refusal_reason(comfy, latent)
    assert "Use a width that is a multiple of 16 pixels" in reason


def o1() -> Any:
    """Two decoder blocks with four query heads and two key heads; one vision block."""
    return tiny.build(
        "HiDreamO1",
        image_model="hidream_o1",
        text_config_overrides={
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "rope_dims": [6, 5, 5],
        },
        vision_config_overrides={
            "hidden_size": 32,
            "num_heads": 2,
            "intermediate_size": 64,
            "depth": 1,
            "num_position_embeddings": 16,
        },
    )


@both
def test_o1(comfy: Any, both: bool, record_property: Any) -> None:
    """A result of 96×128 pixels, 3×4 patches; references of 100×90 and 64×96.

    Two references may have the area of 96×96 pixels each: 3×2 and 2×3 whole patches. The vision
    encoder sees them as 14×9 and 9×14 tokens, marked at both ends, in a text of six.
    [text 262, of which only the last has a query | result 12 | reference 1 6 | reference 2 6]
    """
    pictures = (tiny.latent(72, 1, 100, 90, 3).sigmoid(), tiny.latent(73, 1, 64, 96, 3).sigmoid())
    ids = torch.tensor([[151644, 872, 198, 9707, 11, 151673]])
    positive = tiny.conditioning(70, 1, 4, pictures, text_input_ids=ids)
    negative = tiny.conditioning(71, 1, 4, pictures if both else (), text_input_ids=ids)

    def place(call: Seen) -> Place | None:
        if call.k.shape[2] != 286:
            return None  # the pass without references
        assert call.q.shape[2] == 25
        return Place(
            layer=call.options["block_index"],
            generated=(1, 13),
            grid=(3, 4),
            own=(262, 274),
            references=((274, 280), (280, 286)),
            reference_grids=((3, 2), (2, 3)),
            keys=286,
        )

    record, _ = prove(
        *(comfy, o1, positive, negative, tiny.latent(74, 2, 3, 96, 128), place),
        words=False,
        grid=(3, 4),
        heads=4,
        note=record_property,
        cfg=3.0,
    )
    assert record.header.architecture == "HiDream-O1"
    assert [layer.name for layer in record.header.layers] == ["double 0", "double 1"]
