"""Messages to the page while it samples: what Capture Attention has seen so far.

Message `i2am.live`, to the client whose prompt runs, at most three a second and one at the end of
a run: what `i2am/live.py` tells, and `node`, the id of the Capture Attention node as prompts name
it ("7"; within subgraphs "3:7", the ids of the nodes that hold it first).
"""

from __future__ import annotations

from ...i2am.display import Live
from ...i2am.recording import Recorder
from .page import to_page

MESSAGE = "i2am.live"


def live(recorder: Recorder, node: str) -> Live | None:
    """What tells the page of a run, or None where nobody listens."""
    send = to_page()
    return send and Live(recorder, lambda facts: send(MESSAGE, {"node": node} | facts))
