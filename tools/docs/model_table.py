"""Write docs/models.md, the models that can be read and how, from the registry of architectures.

python -m tools.docs.model_table
"""

from __future__ import annotations

from i2am.tokens.architectures import ARCHITECTURES, NOT_YET, WITHOUT_REFERENCES, Architecture
from tools.setup.paths import ROOT

PAGE = ROOT / "docs" / "models.md"
_INTRODUCTION = """\
# Models

<!-- Written by tools/docs/model_table.py. -->

What Capture Attention can read, and what it cannot. A model is recognised by the name of its \
class in ComfyUI; a model that derives from a class below is read like it.

## Read

Unless the notes say otherwise, each of them gives maps over the result and over every reference, \
by step, layer and head; the share of attention that text, result and each reference get; and \
which place looked where. In *joint* models, text, result and references compete in one softmax, \
so their maps start with the model's own definition; the others start with the paper's. A test \
runs ComfyUI's own class, in the releases named, and compares everything recorded with a dense \
computation.

Families into which no reference gets are read for the words of the prompt, if `words` is on in \
Capture Attention, and refused if it is off. With `words` on, the other families, too, may be \
given a prompt without a reference. HiDream-O1 and the last of the UNets give no words.
"""
_WITHOUT = """
## Nothing to watch

Capture Attention refuses these. Their attention holds no token of a reference picture or of a \
prompt that can be watched, or their result is not a picture.
"""
_NOT_YET = """
## Not yet

Capture Attention refuses these too, although they have something to read.
"""


def _table(titles: list[str], rows: list[list[str]]) -> str:
    lines = (titles, ["---"] * len(titles), *rows)
    return "\n" + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _classes(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _how_given(one: Architecture) -> str:
    return one.reference_kind or f"none: {one.without}"


def page() -> str:
    """The whole page."""
    read = [
        [
            *(f"**{one.name}**", _classes(one.models), _how_given(one)),
            *("yes" if one.joint else "no", one.tested, one.note),
        ]
        for one in ARCHITECTURES
    ]
    titles = ["Family", "Class", "How a reference gets in", "Joint", "Tested on ComfyUI", "Notes"]
    unread = [
        [[f"`{name}`", reason] for name, reason in sorted(reasons.items())]
        for reasons in (WITHOUT_REFERENCES, NOT_YET)
    ]
    return (
        _INTRODUCTION
        + _table(titles, read)
        + _WITHOUT
        + _table(["Class", "Why"], unread[0])
        + _NOT_YET
        + _table(["Class", "What it is"], unread[1])
    )


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
