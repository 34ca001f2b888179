"""A prompt → what the graph does with a reference picture on its way to the sampler."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

Link = tuple[str, int]  # a node's id and the number of its output


@dataclass(frozen=True)
class Taker:
    """A node above Collect's latent. values: its widgets' values by name. links: other inputs."""

    name: str
    class_type: str
    values: dict[str, Any]
    links: tuple[str, ...] = ()


@dataclass(frozen=True)
class Takers:
    """The nodes that take a picture on its way to the model.

    direct: nodes that take it as it is and make something other than a picture. changed: nodes that
    make another picture from it, each the last to do so before the model.
    """

    direct: tuple[Taker, ...] = ()
    changed: tuple[Taker, ...] = ()


@dataclass
class Upstream:
    """The nodes that made the latent of one Collect Attribution, in an API prompt.

    starts: the inputs that lead to them; of Probe a Picture, its own model and conditioning.
    """

    prompt: dict[str, Any]
    collect: str
    starts: tuple[str, ...] = ("samples",)
    _above: dict[str, dict[str, Any]] = field(default_factory=dict[str, "dict[str, Any]"])

    def __post_init__(self) -> None:
        waiting = [self._link(self.collect, start) for start in self.starts]
        while waiting:
            link = waiting.pop()
            if link is None or link[0] in self._above or link[0] not in self.prompt:
                continue
            inputs: dict[str, Any] = self.prompt[link[0]].get("inputs", {})
            self._above[link[0]] = inputs
            waiting += map(_as_link, inputs.values())

    def giver(self) -> Taker | None:
        """The node that Collect's latent comes from."""
        link = self._link(self.collect, "samples")
        return self._taker(link[0]) if link is not None and link[0] in self._above else None

    def takers(self, input_name: str) -> Takers:
        """An input of Collect → the nodes that take the picture linked to it."""
        link = self._link(self.collect, input_name)
        if link is None:
            return Takers()
        direct: list[Taker] = []
        changed: dict[str, Taker] = {}
        for node in self._taking(link):
            pictures = list(self._pictures_of(node))
            if not pictures:
                direct.append(self._taker(node))
            for made in pictures:
                changed |= {last: self._taker(last) for last in self._last(made, {node})}
        return Takers(tuple(direct), tuple(changed.values()))

    def _last(self, link: Link, seen: set[str]) -> Iterator[str]:
        """The last nodes before the model that make a picture from this one."""
        for node in self._taking(link):
            pictures = list(self._pictures_of(node))
            if not pictures:
                yield link[0]
            for made in pictures:
                if node not in seen:
                    yield from self._last(made, seen | {node})

    def _taking(self, link: Link) -> Iterator[str]:
        for node, inputs in self._above.items():
            if any(_as_link(value) == link for value in inputs.values()):
                yield node

    def _pictures_of(self, node: str) -> Iterator[Link]:
        """The picture outputs of a node that lead on towards the sampler."""
        types = getattr(_class_of(self.prompt[node]), "RETURN_TYPES", ())
        for slot, kind in enumerate(types):
            if kind == "IMAGE" and any(self._taking((node, slot))):
                yield node, slot

    def _taker(self, node: str) -> Taker:
        entry = self.prompt[node]
        title = entry.get("_meta", {}).get("title") or entry["class_type"]
        inputs = self._above[node]
        links = tuple(name for name, one in inputs.items() if _as_link(one) is not None)
        values = {name: one for name, one in inputs.items() if name not in links}
        return Taker(f"“{title}” (node {node})", entry["class_type"], values, links)

    def _link(self, node: str, name: str) -> Link | None:
        return _as_link(self.prompt.get(node, {}).get("inputs", {}).get(name))


def _as_link(value: Any) -> Link | None:
    if isinstance(value, (list, tuple)) and len(value) == 2 and isinstance(value[1], int):
        return str(value[0]), value[1]
    return None


def _class_of(entry: dict[str, Any]) -> Any:
    """A prompt's entry → the class of its node, from ComfyUI's own module `nodes`."""
    return sys.modules["nodes"].NODE_CLASS_MAPPINGS.get(entry.get("class_type"))
