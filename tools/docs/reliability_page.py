"""Write docs/reliability.md, what can go wrong and what happens then, from the tests that prove it.

python -m tools.docs.reliability_page          # run them, and write the page if all pass
python -m tools.docs.reliability_page --check  # only check that the page names the present tests

A test says what it proves: `@pytest.mark.fault(what, happens, lost)`, `neighbour(what, happens)`
or `bad_input(what, happens)`.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter

import pytest

from tools.setup.paths import ROOT

PAGE = ROOT / "docs" / "reliability.md"
KINDS = ("fault", "neighbour", "bad_input")
Row = tuple[str, ...]

_INTRODUCTION = """\
# What can go wrong, and what happens then

<!-- Written by tools/docs/reliability_page.py. -->

Each row is a test in real ComfyUI, and this page is written only when all of them have passed. \
A test of several cases says how many.
"""
_TABLES = {
    "fault": (
        "Faults",
        "Recording never breaks a render: an error ends the recording, and the node that needs it "
        "says why. Tests that make a run fail also check that sampling without Capture Attention "
        "then gives exactly the same latent as before.",
        ("What goes wrong", "What happens", "What is lost"),
    ),
    "neighbour": (
        "Other nodes and packs",
        "Together with each of these, the latent is bit for bit the same as without Capture "
        "Attention, and the maps are right or there is a stated reason why there are none.",
        ("Together with", "What happens"),
    ),
    "bad_input": (
        "Bad input",
        "Nothing outside ComfyUI's own folders is read or written, nothing in a file is executed, "
        "and no map is drawn from input that cannot be right: the node says what is wrong.",
        ("Input", "What happens"),
    ),
}


class Marked:
    """A pytest plugin: selects the marked tests, and keeps their rows and outcomes."""

    def __init__(self) -> None:
        self.cases: dict[str, Counter[tuple[Row, str]]] = {kind: Counter() for kind in KINDS}
        self.chosen: set[str] = set()
        self.passed: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for kind in KINDS:
                for mark in item.iter_markers(kind):
                    self.cases[kind][mark.args, item.nodeid.partition("[")[0]] += 1
                    self.chosen.add(item.nodeid)
        items[:] = [item for item in items if item.nodeid in self.chosen]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            self.passed.add(report.nodeid)


def page(marked: Marked) -> str:
    """The whole page."""
    parts = [_INTRODUCTION]
    for kind, (title, text, columns) in _TABLES.items():
        rows = [
            [*row, f"`{test}`" + (f" ({count} cases)" if count > 1 else "")]
            for (row, test), count in sorted(
                marked.cases[kind].items(), key=lambda case: case[0][1]
            )
        ]
        lines = ([*columns, "Proven by"], ["---"] * (len(columns) + 1), *rows)
        table = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
        parts.append(f"\n## {title}\n\n{text}\n\n{table}")
    return "".join(parts)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--check", action="store_true", help="run nothing, write nothing")
    options = parser.parse_args()
    marked = Marked()
    words = ["--collect-only", "-qq"] if options.check else ["-q"]
    code = pytest.main(["--rootdir", str(ROOT), *words, str(ROOT / "tests")], [marked])
    if code:
        return int(code)
    if options.check:
        fresh = PAGE.is_file() and PAGE.read_text("utf-8") == page(marked)
        print("The page is up to date." if fresh else "The page is out of date.")
        return 0 if fresh else 1
    if lacking := marked.chosen - marked.passed:
        print("These have not passed:", *sorted(lacking), sep="\n")
        return 1
    PAGE.write_text(page(marked), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
