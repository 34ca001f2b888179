"""Takes docs/viewer.png: the demo on ComfyUI's own page, with the pointer on the result.

    python -m tools.docs.viewer_picture

Run it in .venv after the viewer's looks have changed.
"""

from __future__ import annotations

import io

from PIL import Image

from tools.comfyui.in_process import comfyui_path
from tools.comfyui.server import ROOT, ComfyServer
from tools.comfyui.viewer_page import NODE, open_browser, open_page, point, press_run, true_origins

PICTURE = ROOT / "docs" / "viewer.png"
MARGIN = 12  # CSS pixels around the node
WIDTH = 1200  # pixels of the picture


def main() -> None:
    with ComfyServer(comfyui_path(), threads=1) as server, open_browser() as browser:
        page = open_page(browser, server)
        press_run(page)
        point(page, 0, *true_origins()[0][0])
        left, top, width, height = page.evaluate(
            f"() => {{ const {{ pos, size }} = {NODE}, view = app.canvas.ds;"
            " const canvas = app.canvas.canvas.getBoundingClientRect();"
            " return [canvas.left + (pos[0] + view.offset[0]) * view.scale,"
            " canvas.top + (pos[1] + view.offset[1] - 30) * view.scale,"
            " size[0] * view.scale, (size[1] + 30) * view.scale]; }"
        )
        around = {"x": left - MARGIN, "y": top - MARGIN}
        around |= {"width": width + 2 * MARGIN, "height": height + 2 * MARGIN}
        shot = page.screenshot(clip=around)  # type: ignore[arg-type]
    with Image.open(io.BytesIO(shot)) as picture:
        size = WIDTH, round(WIDTH * picture.height / picture.width)
        small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    small.save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
