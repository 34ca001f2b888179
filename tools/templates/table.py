"""docs/templates.md, from the results of trying every template."""

from __future__ import annotations

from .run import Outcome

_INTRODUCTION = """\
# ComfyUI's own templates

<!-- Written by python dev.py templates, from what ran. -->

ComfyUI offers {count} templates that give a model a picture to go by. Each was opened in \
ComfyUI's page, watched with one press of *Watch the references (I2AM)*, and run twice: with what \
watches, and without. For that, tiny models of the same classes stood in for the files a template \
loads, and pictures and steps were cut down; nothing else was changed. Where a template bypasses a \
variant, that was switched on and tried too.

- {read} templates are read. Their pictures and latents are the same with and without us, to the \
last bit.
- {unread} are not, each for the reason given. Nothing is added to their graphs, except where it \
says *Run*: there the node says it when the workflow runs.
- Let go with *Stop watching the references (I2AM)*, every graph is saved as it was before, to the \
byte.
"""


def table(outcomes: list[Outcome]) -> str:
    """The whole page."""
    names = dict.fromkeys(one.name for one in outcomes)
    read = {one.name for one in outcomes if one.is_read}
    wrong = [one.name for one in outcomes if not one.is_right]
    if wrong:
        raise ValueError(f"There is no page to write while these are wrong: {wrong}")
    counts = {"count": len(names), "read": len(read), "unread": len(names) - len(read)}
    titles = ["Template", "References come in by", "Model", "Samplers", "References", "Outcome"]
    rows = [_row(one) for one in outcomes]
    lines = (titles, ["---"] * len(titles), *rows)
    text = "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
    return f"{_INTRODUCTION.format(**counts)}\n{text}"


def _row(one: Outcome) -> list[str]:
    name = f"`{one.name}`" + (", bypassed parts on" if one.switched_on else "")
    if one.is_read:
        outcome = "read; same picture" + (f". {one.said}" if one.said else "")
    else:
        outcome = f"*Run*: {one.refused}" if one.refused else one.said
    counts = [str(one.samplers), str(one.references)] if one.samplers else ["", ""]
    return [name, ", ".join(one.kinds), one.family, *counts, outcome]
