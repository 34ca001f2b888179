"""Runs the demo workflow through the API of a real ComfyUI and writes its pictures and numbers.

Called by `python dev.py demo`. The workflow file is run as it is. A second prompt, made from it in
memory without the Capture Attention node, measures what plain sampling costs.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import math
import shutil
import statistics
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tools.comfyui.in_process import comfyui_path
from tools.comfyui.server import ROOT, ComfyServer, ServerError
from tools.workflows.api_prompt import WorkflowError, bypass, find, only, to_prompt

WORKFLOW = ROOT / "example_workflows" / "i2am_01_demo.json"
INPUTS = ROOT / "example_workflows" / "inputs"
TARGET = INPUTS / "i2am_demo_target.png"
HOLE = INPUTS / "i2am_demo_hole_mask.png"
README_PICTURE = ROOT / "docs" / "demo.png"
TIMED_RUNS = 3  # after one to warm up
PANEL = 256  # pixels a side in the overview
GAP = 12
NAME = 20  # pixels for a picture's name

Json = dict[str, Any]


def saver_of(prompt: Json, node: str, slot: int = 0) -> str:
    """The SaveImage node that a node's picture goes to."""
    return find(prompt, "SaveImage", images=[node, slot])


async def sampling_seconds(server: ComfyServer, prompt: Json, sampler: str) -> float:
    """Seconds between the start of the sampler node and the start of the next, for one run."""
    client = uuid.uuid4().hex
    started = None
    async with aiohttp.ClientSession() as session:
        async with session.ws_connect(f"{server.url}/ws?clientId={client}") as socket:
            prompt_id = await asyncio.to_thread(server.queue, prompt, client)
            async for message in socket:
                now = time.perf_counter()
                if message.type != aiohttp.WSMsgType.TEXT:
                    continue
                event = json.loads(message.data)
                data = event.get("data") or {}
                if data.get("prompt_id") != prompt_id:
                    continue
                if event["type"] == "execution_error":
                    raise ServerError(f"{data['node_type']}: {data['exception_message'].strip()}")
                if event["type"] != "executing":
                    continue
                if started is not None:
                    await asyncio.to_thread(server.wait, prompt_id)
                    return now - started
                if data.get("node") == sampler:
                    started = now
    raise ServerError("The sampler did not run.")


def compare_seconds(server: ComfyServer, prompt: Json, sampler: str, saver: str) -> Json:
    """Seconds of sampling with and without capture, alternately: medians of the warm runs."""
    captured = only(prompt, saver)
    plain = bypass(captured, find(captured, "I2AM_Capture"), "model")
    seconds: dict[str, list[float]] = {"sample": [], "sample_plain": []}
    for run in range(1 + TIMED_RUNS):
        for name, variant in (("sample_plain", plain), ("sample", captured)):
            inputs = {**variant[sampler]["inputs"]}
            inputs["seed"] += 1 + run
            seeded = {**variant, sampler: {**variant[sampler], "inputs": inputs}}
            seconds[name].append(asyncio.run(sampling_seconds(server, seeded, sampler)))
    return {name: round(statistics.median(found[1:]), 4) for name, found in seconds.items()}


def psnr(result: Image.Image, target: Image.Image, mask: Image.Image) -> float:
    """Peak signal-to-noise ratio in dB where the mask is white."""
    size = target.size
    inside = np.asarray(mask.convert("L").resize(size)) > 127
    found, wanted = (
        np.asarray(picture.convert("RGB").resize(size), dtype=np.float64)[inside] / 255
        for picture in (result, target)
    )
    error = float(np.mean((found - wanted) ** 2))
    return math.inf if error == 0 else -10 * math.log10(error)


def overview(panels: list[tuple[str, Path]]) -> Image.Image:
    """The pictures in a row, each with its name."""
    pictures = []
    for _, path in panels:
        with Image.open(path) as found:
            height = round(PANEL * found.height / found.width)
            pictures.append(found.convert("RGB").resize((PANEL, height), Image.Resampling.LANCZOS))
    width = len(panels) * (PANEL + GAP) + GAP
    sheet = Image.new("RGB", (width, max(p.height for p in pictures) + NAME + 2 * GAP), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(16)
    for index, ((name, _), picture) in enumerate(zip(panels, pictures, strict=True)):
        left = GAP + index * (PANEL + GAP)
        draw.text((left, GAP - 4), name, fill="black", font=font)
        sheet.paste(picture, (left, GAP + NAME))
    return sheet


def thumbnail(pictures: list[Path], side: int = 256) -> Image.Image:
    """Four pictures in a square, for the template browser."""
    sheet = Image.new("RGB", (2 * side, 2 * side))
    for index, path in enumerate(pictures):
        with Image.open(path) as picture:
            square = picture.convert("RGB").crop((0, 0, picture.width, picture.width))
            square = square.resize((side, side), Image.Resampling.LANCZOS)
        sheet.paste(square, (index % 2 * side, index // 2 * side))
    return sheet


def unwrapped(item: Any) -> Any:
    """The value of a list of one; anything else as it is."""
    return item[0] if isinstance(item, list) and len(item) == 1 else item


def run_demo(server: ComfyServer, output: Path) -> Json:
    """Runs everything, writes the files into `output` and returns the report."""
    prompt = to_prompt(json.loads(WORKFLOW.read_text("utf-8")), server.get_json("/object_info"))
    collect = find(prompt, "I2AM_Collect")
    sampler = prompt[collect]["inputs"]["samples"][0]
    picture = saver_of(prompt, prompt[collect]["inputs"]["image"][0])
    r2g = find(prompt, "I2AM_Map", direction="reference to generated")
    g2r = find(prompt, "I2AM_Map", direction="generated to reference")
    scores = find(prompt, "I2AM_IMACS")
    record = find(prompt, "I2AM_Save")

    print("Timing the sampler without and with capture ...", flush=True)
    seconds = compare_seconds(server, prompt, sampler, picture)
    print("Running the workflow ...", flush=True)
    outputs = server.run(prompt)

    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    for name, node in (
        ("result.png", picture),
        ("r2g.png", saver_of(prompt, r2g)),
        ("g2r.png", saver_of(prompt, g2r)),
    ):
        (output / name).write_bytes(server.download(outputs[node]["images"][0]))
    index = prompt[r2g]["inputs"]["reference"]
    loader = prompt[collect]["inputs"][f"references.reference_{index}"][0]
    shutil.copy(INPUTS / prompt[loader]["inputs"]["image"], output / "reference.png")
    scene = prompt[prompt[collect]["inputs"]["references.reference_1"][0]]["inputs"]["image"]
    for path in sorted((server.base / "output").rglob("*.safetensors")):
        shutil.copy(path, output / path.name)
    if not list(output.glob("*.safetensors")):
        raise ServerError(f"Save Attribution (node {record}) wrote no .safetensors file.")
    overview(
        [
            ("The scene", INPUTS / scene),
            ("The reference", output / "reference.png"),
            ("The result", output / "result.png"),
            ("Where it was used", output / "r2g.png"),
            ("What was used", output / "g2r.png"),
        ]
    ).save(output / "overview.png")

    facts = outputs[collect]["i2am"][0]
    imacs = outputs[scores]["i2am"][0]
    with (
        Image.open(io.BytesIO((output / "result.png").read_bytes())) as result,
        Image.open(TARGET) as target,
        Image.open(HOLE) as hole,
    ):
        in_mask = psnr(result, target, hole)
    system = server.get_json("/system_stats")["system"]
    report = {
        "imacs_generated": unwrapped(imacs["imacs_generated"]),
        "imacs_reference": unwrapped(imacs["imacs_reference"]),
        "share": facts["share"],
        "psnr_in_mask": round(in_mask, 2),
        "seconds": seconds,
        "coverage": facts["coverage"],
        "comfyui": system["comfyui_version"],
        "model": facts["model"],
    }
    (output / "report.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return report


def print_report(report: Json, output: Path, total: float) -> None:
    """The report in words, and what to try next."""
    share, seconds, coverage = report["share"], report["seconds"], report["coverage"]
    place = output.relative_to(ROOT) if output.is_relative_to(ROOT) else output
    ratio = seconds["sample"] / seconds["sample_plain"]
    references = ", ".join(
        f"reference {number} {part:.1%}" for number, part in enumerate(share["references"], start=1)
    )
    print(f"""
The model ({report["model"]}, ComfyUI {report["comfyui"]}) filled the hole in the scene.
  Result against the truth, in the hole     {report["psnr_in_mask"]:.1f} dB PSNR
  Its attention went to                     itself {share["self"]:.1%}, {references}
  IMACS over the result (in the hole)       {report["imacs_generated"]:+.2f}
  IMACS over the reference (in the object)  {report["imacs_reference"]:+.2f}   (best: +1)
  Recorded                                  {coverage["evaluations"]} of\
 {coverage["expected_evaluations"]} evaluations, {coverage["layers"]} of\
 {coverage["expected_layers"]} layers
  Sampling                                  {seconds["sample_plain"]:.2f} s plain,\
 {seconds["sample"]:.2f} s with capture (x {ratio:.2f})

Done in {total:.0f} s. Look at {place}:
  overview.png    everything side by side
  r2g.png         where in the result the reference was used (bright: a lot)
  g2r.png         which part of the reference was used
  report.json     these numbers;  *.safetensors  the record, for Load Attribution

Next: python dev.py serve, then Workflow > Browse Templates > comfyui-i2am > i2am_01_demo.
  Press Run, change the seed, load another reference picture, and watch the maps follow.""")


def main() -> int:
    parser = argparse.ArgumentParser(prog="dev.py demo", description="Runs the demo workflow.")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "demo")
    parser.add_argument(
        "--publish",
        action="store_true",
        help="also update the README's picture and the template's thumbnail",
    )
    options = parser.parse_args()
    comfyui = comfyui_path()
    start = time.monotonic()
    print("Starting ComfyUI ...", flush=True)
    try:
        log = ROOT / "output" / "logs" / "demo.log"
        with ComfyServer(comfyui, log=log, threads=1) as server:
            print(f"  ready in {time.monotonic() - start:.1f} s", flush=True)
            output = options.output.resolve()
            report = run_demo(server, output)
        print_report(report, output, time.monotonic() - start)
        if options.publish:
            README_PICTURE.parent.mkdir(exist_ok=True)
            shutil.copy(output / "overview.png", README_PICTURE)
            names = ("reference.png", "result.png", "g2r.png", "r2g.png")
            thumbnail([output / name for name in names]).save(
                WORKFLOW.with_suffix(".jpg"), quality=90
            )
    except (ServerError, WorkflowError) as error:
        print(f"\nFailed: {error}\n  The server's log: output/logs/demo.log")
        return 1
    except KeyboardInterrupt:
        print("\nStopped.")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
