"""What does capture cost? Models of real shapes in ComfyUI's own sampler, with and without it.

Weights are random: time and memory do not depend on what a model has learnt. Each figure is the
median over pairs of runs, one with capture and one without, one right after the other. On a single
CPU thread, seconds are processor time, which a busy machine does not disturb; otherwise they are
wall-clock time. The dense method, for comparison, does what tools that keep whole attention
matrices do: for every call it takes the logits of all heads at once, a softmax of them in each
direction, and their means.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from tools.bench.cases import Case, cases
from tools.bench.measure import GROWTH, Bench, Figure, growth, pack_names, show
from tools.bench.variants import Variant, variants
from tools.comfyui.in_process import import_comfyui, import_pack
from tools.setup.paths import ROOT, shown


def surroundings(device: torch.device) -> str:
    """The hardware and software that the figures were measured on."""
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        load = ", ".join(f"{x:.1f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "?"
        where = f"{platform.machine()} CPU, {torch.get_num_threads()} threads, load {load}"
    return f"{where}, torch {torch.__version__}"


@dataclass(frozen=True)
class Row:
    """Variants of a case that are measured together."""

    case: Case
    dtype: str
    variants: list[Variant]
    rounds: int


# The rows that say most, by device: precision, pairs of runs, and variants.
QUICK = {
    "cpu": {
        "c": ("fp32", 1, ("exact", "with the effect", "dense")),
        "d": ("fp32", 5, ("exact", "with the effect", "fast", "dense")),
    },
    "cuda": {
        "flux1": (
            *("bf16", 3),
            ("exact", "model definition", "no correspondence", "without triton", "fast", "dense"),
        ),
        "sdxl": ("fp16", 3, ("exact", "without triton", "fast", "dense")),
        "c": ("fp16", 3, ("exact", "without triton", "fast", "dense")),
        "wan": ("bf16", 1, ("exact", "without triton", "fast")),
    },
}
QUICK_JSON = ROOT / "output" / "bench.json"


def rows(options: argparse.Namespace, device: torch.device) -> Iterator[Row]:
    """What is to be measured."""
    found = cases(device)
    if options.quick:
        quick = QUICK[device.type]
        for case in sorted(
            (case for case in found if case.name in quick), key=lambda c: list(quick).index(c.name)
        ):
            dtype, rounds, names = quick[case.name]
            wanted = [v for v in variants(case, device) if v.name in names]
            yield Row(case, dtype, wanted, rounds)
        return
    for dtype in options.dtypes.split(","):
        for case in found:
            if options.cases and case.name not in options.cases.split(","):
                continue
            case = replace(case, steps=options.steps or case.steps)
            wanted = variants(case, device)
            if options.variants:
                wanted = [v for v in wanted if v.name in options.variants.split(",")]
            yield Row(case, dtype, wanted, options.rounds * (5 if case.name == "d" else 1))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="the rows that say most, in minutes; writes output/bench.json",
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--cases", default="", help="which cases, for example a,c,e")
    parser.add_argument("--variants", default="", help="which variants, for example exact,dense")
    parser.add_argument("--dtypes", default="fp32,bf16", help="precisions, for example fp32,bf16")
    parser.add_argument("--threads", type=int, default=0, help="of the CPU; with --quick, 1")
    parser.add_argument("--steps", type=int, default=0, help="of each run; 0: the case's own")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs for each figure")
    parser.add_argument("--tokens", type=int, default=GROWTH[-1], help="the most tokens in case e")
    options = parser.parse_args()
    torch.set_num_threads(options.threads or (1 if options.quick else torch.get_num_threads()))
    import_comfyui(cpu=options.device == "cpu")
    pack = pack_names(import_pack().__name__)
    device = torch.device(options.device)
    started = time.monotonic()
    figures: list[Figure] = []
    print(surroundings(device))
    with torch.inference_mode():
        for row in rows(options, device):
            case = row.case
            print(f"{case.name}: {case.title}, {row.dtype}, {case.steps} steps", flush=True)
            for figure in Bench(pack, case, row.dtype, device).figures(row.variants, row.rounds):
                show(figure)
                figures.append(figure)
        alone = not options.quick and (not options.cases or "e" in options.cases.split(","))
        for dtype in options.dtypes.split(",") if alone else ():
            print(f"e: growth, attention alone, tokens per side, {dtype}", flush=True)
            figures += growth(pack, dtype, device, options.tokens, options.rounds)
    print(f"{surroundings(device)}; {time.monotonic() - started:.0f} s")
    file = options.json or (QUICK_JSON if options.quick else None)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps([asdict(f) for f in figures], indent=1) + "\n")
        print(f"{shown(file)} has the figures.")


if __name__ == "__main__":
    main()
