"""`dev.py evaluate` gives the same numbers as the nodes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from demo_graph import OBJECT, demo_graph
from graph import node

from tools.demo.scenes import make_scenes
from tools.evaluate.worker.scores import Scores

pytestmark = pytest.mark.usefixtures("tiny_nodes")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"preset": "robust", "penalty": 2.0, "complement": True},
        {"definition": "paper", "threshold": 0.2, "within_mask": True},
    ],
)
def test_figures_are_those_of_the_nodes(
    run_graph: Any, comfy: Any, settings: dict[str, Any]
) -> None:
    scenes = make_scenes(2)
    links = {"attribution": ["collect", 0], "reference_mask": ["shape", 0]}
    graph = demo_graph(
        scenes,
        score=node("I2AM_IMACS", reference=OBJECT, **links, **settings),
        influence=node("I2AM_Influence", attribution=["collect", 0], region=["hole", 0]),
    )
    run = run_graph(graph, targets=["score", "influence", "collect"])
    assert run.ok, run.errors
    attribution = run.value("collect", 0)
    given = {"reference": OBJECT, "reference_mask": scenes.object, **settings}
    rows, _ = Scores(comfy.pack).figures(attribution, given, None)
    for slot, name in (
        (0, "imacs_generated"),
        (1, "imacs_reference"),
        (3, "inside_generated"),
        (4, "inside_reference"),
    ):
        assert [row[name] for row in rows] == run.outputs["score"][slot]
    shares = run.outputs["influence"][1]
    for number, share in enumerate(shares, start=1):
        found = torch.tensor([row[f"share_reference_{number}_inside"] for row in rows])
        assert float(found.mean()) == pytest.approx(share, rel=1e-5)


def test_matches_are_held_against_the_truth(run_graph: Any, comfy: Any) -> None:
    from tools.evaluate.example import points

    scenes = make_scenes(1)
    run = run_graph(demo_graph(scenes), targets=["collect"])
    attribution = run.value("collect", 0)
    scores = Scores(comfy.pack)
    given = {"reference": OBJECT, "reference_mask": scenes.object}
    truth = points(scenes)
    right = scores.figures(attribution, given, truth.to_csv(index=False).encode())[0][0]
    assert right["match_near"] > 0.9
    assert right["match_exact"] <= right["match_near"]
    shifted = truth.assign(reference_x=(truth["reference_x"] + 0.5) % 1)
    wrong = scores.figures(attribution, given, shifted.to_csv(index=False).encode())[0][0]
    assert wrong["match_near"] < 0.1
    assert wrong["match_distance"] == pytest.approx(4, abs=0.5)  # half of eight cells
