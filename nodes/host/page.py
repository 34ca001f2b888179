"""Messages to the page: to the client whose prompt is running, if there is one.

While a run is sampled, `i2am.live` is sent at most three times a second and once at the end: what
`i2am/display/live.py` makes of the steps so far, and `node`, the id of the Capture Attention node
as prompts name it ("7"; within subgraphs "3:7", the ids of the nodes around it first).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from ...i2am.display import Live
from ...i2am.recording import Recorder

LIVE_MESSAGE = "i2am.live"


def page_sender() -> Callable[[str, dict[str, Any]], None] | None:
    """What sends a message (its name, its facts) to the page; None if no client is connected."""
    # The module is there if ComfyUI serves. Outside it, importing it is of no use and can fail.
    server: Any = getattr(
        getattr(sys.modules.get("server"), "PromptServer", None), "instance", None
    )
    client = getattr(server, "client_id", None)
    if client is None or client not in server.sockets:
        return None
    return lambda name, facts: server.send_sync(name, facts, client)


def live_maps(recorder: Recorder, node: str) -> Live | None:
    """What shows the page a run's maps so far; None if no client is connected."""
    send = page_sender()
    return send and Live(recorder, lambda facts: send(LIVE_MESSAGE, {"node": node} | facts))
