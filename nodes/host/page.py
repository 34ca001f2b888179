"""The page that listens: the client whose prompt runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any


def to_page() -> Callable[[str, dict[str, Any]], None] | None:
    """What sends a message (its name, its facts) to the page, or None where nobody listens."""
    # The module is there if ComfyUI serves; outside it, importing it is no use and can fail.
    server: Any = getattr(
        getattr(sys.modules.get("server"), "PromptServer", None), "instance", None
    )
    client = getattr(server, "client_id", None)
    if client is None or client not in server.sockets:
        return None
    return lambda name, facts: server.send_sync(name, facts, client)
