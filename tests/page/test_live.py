"""The messages a page gets while the demo samples, over a real websocket."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from typing import Any

import aiohttp
import pytest

from tools.comfyui.server import ComfyServer
from tools.demo.run import WORKFLOW
from tools.workflows.api_prompt import find, only, to_prompt


async def messages(server: ComfyServer, prompt: dict[str, Any]) -> list[dict[str, Any]]:
    """All JSON messages to a client until its prompt is finished."""
    client = uuid.uuid4().hex
    got: list[dict[str, Any]] = []
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{server.url}/ws?clientId={client}") as socket,
    ):
        await asyncio.to_thread(server.queue, prompt, client)
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                continue
            got.append(json.loads(message.data))
            if got[-1]["type"] in ("execution_success", "execution_error"):
                break
    return got


def test_messages_of_the_demo(server: ComfyServer) -> None:
    prompt = to_prompt(json.loads(WORKFLOW.read_text("utf-8")), server.get_json("/object_info"))
    capture, sampler = find(prompt, "I2AM_Capture"), find(prompt, "KSampler")
    # Nodes in a subgraph have ids like this one, and the page gets this id.
    prompt = json.loads(json.dumps(prompt).replace(f'["{capture}", 0]', '["3:7", 0]'))
    prompt["3:7"] = prompt.pop(capture)
    prompt["3:7"]["inputs"]["live"] = True
    prompt[sampler]["inputs"]["seed"] = 31
    collect = find(prompt, "I2AM_Collect")
    prompt["show"] = {"class_type": "PreviewAny", "inputs": {"source": [collect, 2]}}

    got = asyncio.run(messages(server, only(prompt, "show")))
    assert got[-1]["type"] == "execution_success"
    told = [message["data"] for message in got if message["type"] == "i2am.live"]
    assert {facts["node"] for facts in told} == {"3:7"}
    steps = [facts["step"] for facts in told]
    assert steps == sorted(steps)
    assert (steps[0], told[-1]["step"], told[-1]["steps"]) == (1, 20, 20)
    assert [facts["done"] for facts in told] == [False] * (len(told) - 1) + [True]
    kinds = [message["type"] for message in got]
    last_progress = len(kinds) - 1 - kinds[::-1].index("progress")
    assert kinds.index("i2am.live") < last_progress, "told while it sampled, not after"
    for facts in told:
        assert len(facts["maps"]) == len(facts["share"]["references"]) == 2
        height, width = facts["grid"]
        for one in facts["maps"]:
            assert len(base64.b64decode(one["values"])) == height * width
            assert 0 <= one["low"] < one["high"] <= 1
        share = facts["share"]
        total = share["text"] + share["self"] + sum(share["references"])
        assert total == pytest.approx(1, abs=1e-3)


def test_turned_off(server: ComfyServer) -> None:
    prompt = to_prompt(json.loads(WORKFLOW.read_text("utf-8")), server.get_json("/object_info"))
    prompt[find(prompt, "I2AM_Capture")]["inputs"]["live"] = False
    prompt[find(prompt, "KSampler")]["inputs"]["seed"] = 32
    collect = find(prompt, "I2AM_Collect")
    prompt["show"] = {"class_type": "PreviewAny", "inputs": {"source": [collect, 2]}}
    got = asyncio.run(messages(server, only(prompt, "show")))
    assert got[-1]["type"] == "execution_success"
    assert "executed" in [message["type"] for message in got]
    assert "i2am.live" not in [message["type"] for message in got]
