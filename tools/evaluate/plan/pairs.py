"""The plan: every row of the table as a prompt, with a key for everything its figures depend on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from ..errors import EvaluationError
from ..task import Measured, Task
from .columns import Bindings, bind, is_picture, read_value
from .files import Found, inspect_correspondences, inspect_pictures
from .table import CORRESPONDENCE, NAME, TARGET, Table
from .workflow import Json, Workflow

SHOWN_PROBLEMS = 5


@dataclass(frozen=True)
class Settings:
    """What figures depend on besides workflow, pictures and models."""

    pack: str  # versions
    comfyui: str
    device: str  # cpu or cuda
    threads: int  # CPU threads of one worker
    lpips: str  # the network; empty without weights
    arguments: tuple[str, ...] = ()  # ComfyUI's


@dataclass(frozen=True)
class Pair:
    """A row of the table. problem: why it cannot be run; empty if it can."""

    number: int  # of the row, from 1
    name: str
    key: str = ""
    prompt: Json = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)  # by their names in the prompt
    target: Path | None = None
    correspondence: Path | None = None
    problem: str = ""


@dataclass(frozen=True)
class Plan:
    """A workflow, a table and what the columns set. `models`: fingerprints of model files by name.

    Pairs are made on demand. Only the table itself and one digest per file grow with their number.
    """

    workflow: Workflow
    table: Table
    bindings: Bindings
    settings: Settings
    models: dict[str, str]
    constants: dict[tuple[str, str], Path]  # picture inputs that no column sets

    @classmethod
    def make(
        cls,
        workflow: Workflow,
        table: Table,
        settings: Settings,
        fingerprints: Callable[[list[str]], dict[str, str]],
        folders: list[Path],
    ) -> Plan:
        """Binds the columns and checks every value; no picture is read yet.

        fingerprints: filters names for model files; returns a digest for each.
        folders: where to look for pictures that the workflow itself names.
        Raises EvaluationError for a table that does not fit the workflow.
        """
        bindings = bind(workflow, table)
        problems: list[str] = []
        names: set[str] = set()
        for binding in bindings.inputs:
            if binding.picture:
                continue
            for cell in dict.fromkeys(table.frame[binding.column]):
                try:
                    value = read_value(binding, cell)
                except ValueError as error:
                    row = list(table.frame[binding.column]).index(cell) + 1
                    problems.append(f"row {row}, column “{binding.column}”: {error}")
                else:
                    names |= {value} if isinstance(value, str) else set()
        if problems:
            shown = "\n  ".join(problems[:SHOWN_PROBLEMS])
            more = len(problems) - SHOWN_PROBLEMS
            rest = f"\n  … and {more} more" if more > 0 else ""
            raise EvaluationError(
                f"The table has values that {workflow.path.name} cannot take:\n  {shown}{rest}"
            )
        bound = {(binding.node, binding.input) for binding in bindings.inputs}
        constants: dict[tuple[str, str], Path] = {}
        for node, found in workflow.prompt.items():
            for name, value in found["inputs"].items():
                if isinstance(value, str) and (node, name) not in bound:
                    if is_picture(workflow.options(node, name)[1]):
                        constants |= _constant(workflow, (node, name), value, folders)
                    names.add(value)
        models = fingerprints(sorted(names))
        return cls(workflow, table, bindings, settings, models, constants)

    def __len__(self) -> int:
        return len(self.table)

    @property
    def measured(self) -> Measured:
        return tuple((node, self.workflow.prefix(node)) for node in self.workflow.imacs)

    @property
    def model_columns(self) -> list[str]:
        """The columns that choose a model file."""
        return [
            binding.column
            for binding in self.bindings.inputs
            if any(cell in self.models for cell in self.table.frame[binding.column].unique())
        ]

    @cached_property
    def pictures(self) -> dict[Path, Found]:
        """The findings for every picture that the table and the workflow name."""
        columns = [binding.column for binding in self.bindings.inputs if binding.picture]
        columns += [TARGET] if TARGET in self.table.frame else []
        cells = (cell for column in columns for cell in self.table.frame[column].unique())
        paths = [self.table.path(cell) for cell in cells if cell]
        return inspect_pictures([*paths, *self.constants.values()])

    @cached_property
    def correspondences(self) -> dict[Path, Found]:
        """The findings for the tables of points."""
        if CORRESPONDENCE not in self.table.frame:
            return {}
        cells = self.table.frame[CORRESPONDENCE].unique()
        return inspect_correspondences([self.table.path(cell) for cell in cells if cell])

    def pairs(self) -> Iterator[Pair]:
        """Every row, in the order that makes workers change models least."""
        order = self.table.frame[self.model_columns]
        if len(order.columns):
            first = order.apply(tuple, axis=1)
            ranks = {models: rank for rank, models in enumerate(dict.fromkeys(first))}
            numbers = sorted(range(len(self)), key=lambda number: ranks[first.iloc[number]])
        else:
            numbers = list(range(len(self)))
        for number in numbers:
            yield self.pair(number)

    def pair(self, number: int) -> Pair:
        """A row, counted from 0, as a prompt; or the reason it cannot be run."""
        cells = self.table.row(number)
        name = cells.get(NAME) or str(number + 1)
        prompt = {
            node: {**found, "inputs": dict(found["inputs"])}
            for node, found in self.workflow.prompt.items()
        }
        files: dict[str, Path] = {}
        truth: dict[str, tuple[Path, Found]] = {}
        problems: list[str] = []

        def use(place: tuple[str, str], path: Path) -> None:
            found = self.pictures[path]
            if found.problem:
                problems.append(found.problem)
                return
            file = found.digest + path.suffix.lower()
            files[file] = path
            prompt[place[0]]["inputs"][place[1]] = f"{file} [temp]"

        for binding in self.bindings.inputs:
            cell = cells[binding.column]
            place = (binding.node, binding.input)
            if not binding.picture:
                prompt[binding.node]["inputs"][binding.input] = read_value(binding, cell)
            elif cell:
                use(place, self.table.path(cell))
            else:
                problems.append(f"the column “{binding.column}” is empty")
        for place, path in self.constants.items():
            use(place, path)
        for column, known in ((TARGET, self.pictures), (CORRESPONDENCE, self.correspondences)):
            if cell := cells.get(column):
                path = self.table.path(cell)
                truth[column] = path, known[path]
                problems += [known[path].problem] if known[path].problem else []
        if problems:
            return Pair(number + 1, name, problem="; ".join(problems))
        key = self._key(prompt, {column: found.digest for column, (_, found) in truth.items()})
        target, points = (truth.get(column, (None,))[0] for column in (TARGET, CORRESPONDENCE))
        return Pair(number + 1, name, key, prompt, files, target, points)

    def task(self, pair: Pair) -> Task:
        """What a worker needs for a pair, with its files read."""
        return Task(
            pair.prompt,
            self.measured,
            {name: path.read_bytes() for name, path in pair.files.items()},
            pair.target and pair.target.read_bytes(),
            pair.correspondence and pair.correspondence.read_bytes(),
            self.settings.lpips,
        )

    def cells(self, number: int) -> dict[str, Any]:
        """A row for the results, with numbers converted."""
        cells: dict[str, Any] = dict(self.table.row(number))
        for binding in self.bindings.inputs:
            if not binding.picture:
                cells[binding.column] = read_value(binding, cells[binding.column])
        return cells

    def described(self) -> Json:
        """The facts for a report."""
        return {
            "workflow": self.workflow.path.name,
            "folder": str(self.table.folder),
            "table_columns": self.table.columns,
            "pairs": len(self),
            "settings": asdict(self.settings),
            "models": self.models,
            "columns": {
                binding.column: f"{binding.input} of {self.workflow.name(binding.node)}"
                for binding in self.bindings.inputs
            },
            "model_columns": self.model_columns,
            "setting_columns": [
                binding.column for binding in self.bindings.inputs if not binding.picture
            ],
            "labels": list(self.bindings.labels),
            "prefixes": [prefix for _, prefix in self.measured],
        }

    def _key(self, prompt: Json, truth: dict[str, str]) -> str:
        """A key over everything a pair's figures depend on: equal keys mean equal figures."""
        values = {
            value
            for found in prompt.values()
            for value in found["inputs"].values()
            if isinstance(value, str)
        }
        nodes = {node: (found["class_type"], found["inputs"]) for node, found in prompt.items()}
        models = {name: digest for name, digest in self.models.items() if name in values}
        facts = [nodes, self.measured, truth, models, asdict(self.settings)]
        text = json.dumps(facts, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _constant(
    workflow: Workflow, place: tuple[str, str], value: str, folders: list[Path]
) -> dict[tuple[str, str], Path]:
    """The file of a picture that the workflow itself names."""
    for folder in folders:
        if (folder / value).is_file():
            return {place: folder / value}
    where = ", ".join(str(folder) for folder in folders)
    raise EvaluationError(
        f"{workflow.name(place[0])} loads {value}, which is in none of {where}. Set it with a "
        "column of the table, or name its folder with --pictures."
    )
