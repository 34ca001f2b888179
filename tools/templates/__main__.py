"""Watches and runs all of ComfyUI's templates that use a reference; writes docs/templates.md.

python dev.py templates            all
python dev.py templates kontext    those with the word in their name, without writing the page
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from tools.comfyui.server import ROOT, ServerError
from tools.comfyui.viewer_page import open_browser, open_empty_page

from .official import bypasses, read, with_reference
from .run import Outcome, try_out
from .server import template_server
from .table import table

PAGE = ROOT / "docs" / "templates.md"
LOG = ROOT / "output" / "logs" / "templates.log"


def main(words: list[str]) -> int:
    chosen = [
        (name, kinds)
        for name, kinds in with_reference()
        if not words or any(word in name for word in words)
    ]
    outcomes: list[Outcome] = []
    failed: list[str] = []
    start = time.monotonic()
    comfyui = Path(os.environ["COMFYUI_PATH"])
    with template_server(comfyui, LOG) as server, open_browser() as browser:
        page = open_empty_page(browser, server)
        for name, kinds in chosen:
            for switched_on in (False, True) if bypasses(read(name)) else (False,):
                try:
                    outcome = try_out(page, server, name, kinds, switched_on=switched_on)
                except ServerError as error:
                    failed.append(name)
                    print(f"{name}: FAILED: {error}", flush=True)
                    continue
                outcomes.append(outcome)
                print(_line(outcome), flush=True)
    print(f"{len(outcomes)} tries of {len(chosen)} templates; {time.monotonic() - start:.0f} s.")
    wrong = [one for one in outcomes if not one.is_right]
    for one in wrong:
        print(f"Wrong: {one}")
    if failed:
        print(f"Failed: {', '.join(failed)}")
    elif not words:
        PAGE.write_text(table(outcomes), "utf-8")
        print(f"Written: {PAGE.relative_to(ROOT)}")
    return 1 if wrong or failed else 0


def _line(one: Outcome) -> str:
    what = one.refused or one.said or f"{one.references} references of {one.samplers} samplers"
    on = " (switched on)" if one.switched_on else ""
    misplaced = f"; MISPLACED {one.misplaced}" if one.misplaced else ""
    family = one.family or "not read"
    return f"{one.name}{on}: {family}; {what}; same picture: {one.same}{misplaced}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
