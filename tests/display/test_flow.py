"""The pictures of a correspondence: colours by direction, arrows where the matches are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from i2am.display import arrow_image, flow_image, most_confident
from i2am.display.flow import ARROW_GAP
from i2am.maps import BestMatches, Correspondence, best_matches
from i2am.tokens import Grid

GRID = Grid(4, 4)


def moved(down: int, across: int) -> BestMatches:
    """Every place matches the one at this offset; outside the picture, the border."""
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    to = ((rows + down).clamp(0, 3) * 4 + (columns + across).clamp(0, 3)).flatten()
    values = torch.full((1, 16, 16), 0.2 / 15)
    values[0, torch.arange(16), to] = 0.8
    return best_matches(Correspondence(values, GRID, GRID))


@pytest.mark.parametrize(
    ("down", "across", "strongest"),
    [(0, 3, (1, 0, 0)), (0, -3, (0, 1, 1)), (3, 0, None), (-3, 0, None)],
    ids=["right is red", "left is cyan", "down", "up"],
)
def test_hue_is_the_direction(
    down: int, across: int, strongest: tuple[int, int, int] | None
) -> None:
    picture, longest = flow_image(moved(down, across), (64, 64))
    assert picture.shape[:2] == (1, 64)
    assert float(longest) == pytest.approx(0.75)
    row, column = (8 if down >= 0 else 56), (8 if across >= 0 else 56)  # moves the full offset
    found = picture[0, row, column]
    if strongest is not None:
        torch.testing.assert_close(found, torch.tensor(strongest).float(), atol=1e-5, rtol=0)
    back = flow_image(moved(-down, -across), (64, 64))[0][0, 64 - row, 64 - column]
    torch.testing.assert_close(found + back, torch.ones(3), atol=1e-5, rtol=0)  # opposite hues


def test_no_way_is_white_and_no_confidence_black() -> None:
    still = moved(0, 0)
    picture = flow_image(still, (16, 16))[0][:, :, :16]
    torch.testing.assert_close(picture, torch.ones(1, 16, 16, 3))
    still.confidence[0, 5] = 0
    picture = flow_image(still, (4, 4))[0][0, :, :4]
    assert not picture[1, 1].any()
    assert (picture.sum(-1) == 0).sum() == 1


def test_the_surest_come_first_and_apart() -> None:
    found = moved(0, 0)
    order = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    found.confidence[0] = order / 16 + 0.01
    cells = most_confident(found, 0, 4)
    assert int(cells[0]) == int(order.argmax())
    confidence = found.confidence[0, cells]
    assert torch.equal(confidence, confidence.sort(descending=True).values)
    places = torch.stack((cells // 4, cells % 4), -1).float()
    assert (torch.pdist(places) >= ARROW_GAP).all()
    inside = torch.zeros(16, dtype=torch.bool)
    inside[3] = True
    assert most_confident(found, 0, 4, inside).tolist() == [3]
    found.confidence[:] = 0
    assert most_confident(found, 0, 4).tolist() == []


def test_an_arrow_goes_from_the_match_to_the_place() -> None:
    """Only pixels along the line between them change."""
    found = moved(0, 3)
    result, reference = torch.full((96, 96, 3), 0.5), torch.full((48, 48, 3), 0.5)
    plain = arrow_image(result, reference, found, 0, torch.tensor([], dtype=torch.long))
    drawn = arrow_image(result, reference, found, 0, torch.tensor([0]))
    assert drawn.shape == plain.shape == (1, 96, 96 + 8 + 96, 3)
    changed: Tensor = (drawn - plain).abs().amax(-1)[0] > 0.05
    rows, columns = changed.nonzero().unbind(-1)
    assert columns.min() < 84 < 114 < columns.max()  # from x 84 on the left to 12 on the right
    assert columns.min() > 78
    assert columns.max() < 104 + 18
    assert rows.min() >= 4
    assert rows.max() <= 20
