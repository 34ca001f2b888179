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
from dataclasses import asdict, replace
from pathlib import Path

import torch

from tools.bench.cases import cases
from tools.bench.measure import GROWTH, Bench, Figure, growth, pack_names, show
from tools.bench.variants import variants
from tools.comfyui.in_process import import_comfyui, import_pack


def surroundings(device: torch.device) -> str:
    """The hardware and software that the figures were measured on."""
    if device.type == "cuda":
        where = torch.cuda.get_device_name(device)
    else:
        load = ", ".join(f"{x:.1f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "?"
        where = f"{platform.machine()} CPU, {torch.get_num_threads()} threads, load {load}"
    return f"{where}, torch {torch.__version__}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--cases", default="", help="which cases, for example a,c,e")
    parser.add_argument("--variants", default="", help="which variants, for example exact,dense")
    parser.add_argument("--dtypes", default="fp32,bf16", help="precisions, for example fp32,bf16")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="CPU threads")
    parser.add_argument("--steps", type=int, default=0, help="of each run; 0: the case's own")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of runs for each figure")
    parser.add_argument("--tokens", type=int, default=GROWTH[-1], help="the most tokens in case e")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    import_comfyui(cpu=options.device == "cpu")
    pack = pack_names(import_pack().__name__)
    device = torch.device(options.device)
    figures: list[Figure] = []
    print(surroundings(device))
    with torch.inference_mode():
        for dtype in options.dtypes.split(","):
            for case in cases(device):
                if options.cases and case.name not in options.cases.split(","):
                    continue
                case = replace(case, steps=options.steps or case.steps)
                print(f"{case.name}: {case.title}, {dtype}, {case.steps} steps", flush=True)
                wanted = variants(case, device)
                if options.variants:
                    wanted = [v for v in wanted if v.name in options.variants.split(",")]
                rounds = options.rounds * (5 if case.name == "d" else 1)
                for figure in Bench(pack, case, dtype, device).figures(wanted, rounds):
                    show(figure)
                    figures.append(figure)
            if not options.cases or "e" in options.cases.split(","):
                print(f"e: growth, attention alone, tokens per side, {dtype}", flush=True)
                figures += growth(pack, dtype, device, options.tokens, options.rounds)
    print(surroundings(device))
    if options.json:
        options.json.write_text(json.dumps([asdict(f) for f in figures], indent=1) + "\n")


if __name__ == "__main__":
    main()
