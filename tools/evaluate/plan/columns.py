"""Which input of which node each column of the table sets."""

from __future__ import annotations

import difflib
import math
from dataclasses import dataclass
from typing import Any

from ..errors import EvaluationError
from .table import LABEL, RESERVED, Table
from .workflow import Workflow

SHOWN_CHOICES = 8  # choices of a list shown in a message


@dataclass(frozen=True)
class Binding:
    """A column and the input it sets. picture: whether its cells name picture files."""

    column: str
    node: str
    input: str
    kind: Any  # the input's type, or the list of its choices
    options: dict[str, Any]

    @property
    def picture(self) -> bool:
        return is_picture(self.options)

    @property
    def choices(self) -> list[Any] | None:
        """The choices of a list; None for any other input."""
        if isinstance(self.kind, list):
            return self.kind
        return self.options.get("options") if self.kind == "COMBO" else None


@dataclass(frozen=True)
class Bindings:
    """What the columns of a table set, and which columns are only carried along."""

    inputs: tuple[Binding, ...]
    labels: tuple[str, ...]


def is_picture(options: dict[str, Any]) -> bool:
    """Whether an input with these options takes a picture's name in ComfyUI's folders."""
    return bool(options.get("image_upload"))


def bind(workflow: Workflow, table: Table) -> Bindings:
    """Finds the input of each column: by a picture loader's title, as “title.widget”, as
    “node id.widget”, or by the name of a widget that only one node has.

    Raises EvaluationError for any other column, and for two columns that set one input.
    """
    places = _places(workflow)
    found: list[Binding] = []
    labels: list[str] = []
    for column in table.columns:
        if column in RESERVED:
            continue
        if column.startswith(LABEL):
            labels.append(column)
            continue
        at = places.get(column.casefold(), [])
        if len(at) != 1:
            raise EvaluationError(_which(workflow, column, at, places))
        node, name = at[0]
        for other in found:
            if (other.node, other.input) == (node, name):
                raise EvaluationError(
                    f"The columns “{other.column}” and “{column}” both set {name} of "
                    f"{workflow.name(node)}. Take one of them out."
                )
        found.append(Binding(column, node, name, *workflow.options(node, name)))
    return Bindings(tuple(found), tuple(labels))


def _places(workflow: Workflow) -> dict[str, list[tuple[str, str]]]:
    """Every name a column may have, in lower case → the inputs it could mean."""
    places: dict[str, list[tuple[str, str]]] = {}
    for node, found in workflow.prompt.items():
        title = workflow.title(node)
        for name, value in found["inputs"].items():
            if isinstance(value, list):  # a link
                continue
            names = {name, f"{node}.{name}", f"{title}.{name}"}
            if is_picture(workflow.options(node, name)[1]):
                names.add(title)
            for known in names:
                places.setdefault(known.casefold(), []).append((node, name))
    return places


def _full_name(
    workflow: Workflow, places: dict[str, list[tuple[str, str]]], node: str, name: str
) -> str:
    """“title.widget” if that is unique, else “node id.widget”."""
    full = f"{workflow.title(node)}.{name}"
    return full if len(places[full.casefold()]) == 1 else f"{node}.{name}"


def _which(
    workflow: Workflow,
    column: str,
    at: list[tuple[str, str]],
    places: dict[str, list[tuple[str, str]]],
) -> str:
    if at:
        ways = ", ".join(f"“{_full_name(workflow, places, *place)}”" for place in at)
        return (
            f"The column “{column}” could set {len(at)} inputs of {workflow.path.name}. Name it as "
            f"one of: {ways}."
        )
    usual = sorted({name for name in places if "." not in name})
    near = difflib.get_close_matches(column.casefold(), usual, 3, 0.5)
    meant = f" Did you mean {' or '.join(f'“{name}”' for name in near)}?" if near else ""
    return (
        f"The column “{column}” is unknown: {workflow.path.name} has no picture loader of that "
        f"title and no widget of that name.{meant} It could set: {', '.join(usual)}. A column that "
        f"is only carried into the results is called “{LABEL}…”; {', '.join(RESERVED)} are ours."
    )


def read_value(binding: Binding, cell: str) -> Any:
    """A cell as its input's value. Raises a readable ValueError if it does not fit."""
    choices = binding.choices
    if choices is not None and not binding.picture:
        for choice in choices:
            if str(choice) == cell:
                return choice
        near = difflib.get_close_matches(cell, map(str, choices), 3, 0.6)
        some = near or [str(choice) for choice in choices[:SHOWN_CHOICES]]
        more = "" if len(choices) <= len(some) else f" … ({len(choices)} in all)"
        raise ValueError(f"there is no “{cell}”; there are {', '.join(some)}{more}")
    if binding.kind == "BOOLEAN":
        if cell.casefold() not in ("true", "false", "0", "1", "yes", "no"):
            raise ValueError(f"“{cell}” is neither true nor false")
        return cell.casefold() in ("true", "1", "yes")
    if binding.kind not in ("INT", "FLOAT"):
        return cell
    try:
        value = int(cell) if binding.kind == "INT" else float(cell)
    except ValueError:
        what = "a whole number" if binding.kind == "INT" else "a number"
        raise ValueError(f"“{cell}” is not {what}") from None
    low, high = (binding.options.get(end) for end in ("min", "max"))
    if not math.isfinite(value):
        raise ValueError(f"“{cell}” is not finite")
    if (low is not None and value < low) or (high is not None and value > high):
        raise ValueError(f"{cell} is not between {low} and {high}")
    return value
