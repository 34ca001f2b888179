"""The pictures of the help pages are taken of workflows and nodes that exist."""

from __future__ import annotations

import pytest

from tools.docs.node_pictures import SHOTS, TABLE


@pytest.mark.parametrize("name", SHOTS)
def test_a_picture_s_nodes_are_in_its_workflow(name: str) -> None:
    shot = SHOTS[name]
    workflow = TABLE[shot.workflow]
    added = {node.key for node in shot.more}
    for column in shot.columns:
        for key in column:
            assert key in added or workflow.node(key).key == key
