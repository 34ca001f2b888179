"""The command line: run, report, compare."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from .errors import EvaluationError

COMMANDS = ("run", "report", "compare")
PROGRAM = "dev.py evaluate"


def main(words: Sequence[str] | None = None) -> int:
    """0 if every pair was measured, 1 if some were not or nothing was done, 130 if interrupted."""
    words = list(sys.argv[1:] if words is None else words)
    command = words.pop(0) if words and words[0] in COMMANDS else "run"
    options = _parser(command).parse_args(words)
    try:
        return {"run": _run, "report": _report, "compare": _compare}[command](options)
    except EvaluationError as error:
        print(f"\nFailed: {error}", flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. What is done is kept; the same command goes on from there.", flush=True)
        return 130


def _run(options: argparse.Namespace) -> int:
    from .run import Request, evaluate

    request = Request(
        options.workflow,
        options.pairs,
        options.out,
        options.address,
        options.workers,
        options.threads,
        options.cards,
        options.cpu,
        options.strict,
        tuple(options.pictures),
        tuple(options.models),
        tuple(options.comfyui_arguments),
    )
    summary = evaluate(request, lambda text: print(text, flush=True), tuple(options.by))
    return 0 if summary.complete else 1


def _report(options: argparse.Namespace) -> int:
    from .report import write_report
    from .results import Results

    _say_written(write_report(Results.existing(options.folder), tuple(options.by)))
    return 0


def _compare(options: argparse.Namespace) -> int:
    from .report import compare
    from .results import Results

    before, after = (Results.existing(folder) for folder in (options.before, options.after))
    _say_written(compare(before, after, options.out))
    return 0


def _say_written(paths: list[Path]) -> None:
    print("Written: " + ", ".join(str(path) for path in paths), flush=True)


def _parser(command: str) -> argparse.ArgumentParser:
    if command == "report":
        parser = argparse.ArgumentParser(
            prog=f"{PROGRAM} report", description="Makes the report of a folder of results anew."
        )
        parser.add_argument("folder", type=Path)
        _add_by(parser)
        return parser
    if command == "compare":
        parser = argparse.ArgumentParser(
            prog=f"{PROGRAM} compare",
            description="Compares two folders of results pair by pair: before and after.",
        )
        parser.add_argument("before", type=Path)
        parser.add_argument("after", type=Path)
        parser.add_argument("--out", type=Path, required=True, help="folder of the comparison")
        return parser
    return _run_parser()


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description="Runs a workflow of this pack over a table of pairs and reports the scores. "
        "Stopped and started again, it does what is missing.",
        epilog="Also: evaluate report FOLDER; evaluate compare BEFORE AFTER --out FOLDER. "
        "docs/evaluate.md explains the table and every figure.",
    )
    add = parser.add_argument
    add("--workflow", type=Path, required=True, help="a workflow with an IMACS node, page or API")
    add("--pairs", type=Path, required=True, help="CSV or Parquet, one row a run")
    add("--out", type=Path, required=True, help="folder of the results")
    add("--address", help="a Ray cluster, host:port or auto; without it, Ray runs on this machine")
    add("--workers", type=_positive, help="default: one a graphics card, else one for --threads")
    add("--threads", type=_positive, default=1, help="processor cores of a worker; default: 1")
    add("--cards", type=float, default=1.0, help="part of a card that a worker takes; default: 1")
    add("--cpu", action="store_true", help="use no graphics card")
    add("--strict", action="store_true", help="run nothing if any pair cannot be run")
    add(
        "--pictures",
        type=Path,
        action="append",
        default=[],
        metavar="FOLDER",
        help="where pictures are that the workflow itself names",
    )
    add(
        "--models",
        type=_kind_and_folder,
        action="append",
        default=[],
        metavar="KIND=FOLDER",
        help="more models of a kind, for example diffusion_models=checkpoints",
    )
    _add_by(parser)
    add(
        "--comfyui-arguments",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="…",
        help="everything after this goes to ComfyUI, for example --lowvram",
    )
    return parser


def _add_by(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--by",
        action="append",
        default=[],
        metavar="COLUMN",
        help="group the report by this column; default: labels, else models, else settings",
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return value


def _kind_and_folder(text: str) -> tuple[str, str]:
    kind, equals, folder = text.partition("=")
    if not equals or not Path(folder).is_dir():
        raise argparse.ArgumentTypeError(f"“{text}” is not KIND=FOLDER with a folder that exists")
    return kind, str(Path(folder).resolve())
