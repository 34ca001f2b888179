"""Live maps are sent to the page during sampling, and change nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graph import Server, changed, flux_graph, same, sampler

TARGET = ["collect"]
pytestmark = pytest.mark.usefixtures("tiny_nodes")


@pytest.fixture
def every_step(comfy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps are sent after every step, at any speed."""
    monkeypatch.setattr(comfy.pack("i2am.display.live"), "INTERVAL", 0.0)


@pytest.mark.usefixtures("every_step")
def test_messages_name_the_node(server: Server, run_graph: Any) -> None:
    run = run_graph(flux_graph(), TARGET)
    assert run.ok, run.errors
    assert [(event, sid) for event, _, sid in server.sent] == [("i2am.live", "page")] * 3
    facts = [data for _, data, _ in server.sent]
    assert {data["node"] for data in facts} == {"capture"}
    assert [(data["step"], data["steps"], data["done"]) for data in facts] == [
        (1, 3, False),
        (2, 3, False),
        (3, 3, True),
    ]
    (summary,) = run.ui["collect"]["i2am"]
    assert facts[-1]["share"]["references"] == pytest.approx(
        summary["share"]["references"], rel=1e-4
    )


@pytest.mark.usefixtures("every_step")
def test_each_of_two_alike_is_named(server: Server, run_graph: Any) -> None:
    """Even if the cache holds the same node under another id from an older prompt."""
    graph = flux_graph()
    graph |= {"capture 2": graph["capture"], "sampler 2": sampler("capture 2", seed=2)}
    assert run_graph(graph, ["sampler", "sampler 2"]).ok
    assert sorted({data["node"] for _, data, _ in server.sent}) == ["capture", "capture 2"]
    server.sent.clear()
    graph["capture 3"] = graph.pop("capture")
    graph["sampler"]["inputs"]["model"] = ["capture 3", 0]
    assert run_graph(changed(graph, "sampler", seed=3), ["sampler"]).ok
    assert {data["node"] for _, data, _ in server.sent} == {"capture 3"}


@pytest.mark.usefixtures("every_step")
def test_the_latent_and_the_recording_are_the_same_without(server: Server, run_graph: Any) -> None:
    """Bit for bit the same, and Collect finds both recordings."""
    runs = [
        run_graph(changed(changed(flux_graph(), "sampler", seed=5), "capture", live=live), TARGET)
        for live in (True, False)
    ]
    assert len(server.sent) == 3, "only the first one tells"
    assert all(run.ok for run in runs), runs[1].errors
    assert "sampler" in runs[1].executed
    latents = [run.value("sampler")["samples"] for run in runs]
    assert torch.equal(*latents)
    assert same(*(run.value("collect").recording for run in runs))


@pytest.mark.parametrize(
    "nobody", [{"client_id": None}, {"sockets": {}}, {"client_id": "gone"}], ids=str
)
def test_nothing_is_sent_where_nobody_listens(
    server: Server, run_graph: Any, nobody: dict[str, Any]
) -> None:
    vars(server).update(nobody)
    run = run_graph(flux_graph(), TARGET)
    assert run.ok, run.errors
    assert server.sent == []


def test_without_a_server(comfy: Any, run_graph: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(type(comfy.server), "instance")
    assert run_graph(flux_graph(), TARGET).ok


@pytest.mark.usefixtures("every_step")
def test_a_message_that_fails_is_the_last_and_harms_nothing(
    server: Server, run_graph: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def fail(*arguments: Any) -> None:
        calls.append(arguments[0])
        raise RuntimeError("the event loop is closed")

    monkeypatch.setattr(server, "send_sync", fail)
    run = run_graph(flux_graph(), TARGET)
    assert run.ok, run.errors
    assert calls == ["i2am.live"]
    assert run.value("collect").recording.header.evaluations == 3


def test_a_refused_run_tells_nothing(server: Server, run_graph: Any) -> None:
    graph = changed(flux_graph(), "positive", references=0)
    run = run_graph(graph, TARGET)
    assert "collect" in run.errors
    assert [event for event, _, _ in server.sent if event == "i2am.live"] == []
