"""One command for everything a developer or a curious artist does with this pack.

    python dev.py demo       run the demo in real ComfyUI on the CPU; results in output/demo/
    python dev.py test       run every test; more arguments go to pytest
    python dev.py serve      the same ComfyUI for your browser
    python dev.py check      formatter, linter, types
    python dev.py evaluate   a workflow over a table of pairs: scores, statistics, a report
    python dev.py templates  ComfyUI's own templates, watched and run; writes docs/templates.md

Each command first sets up what is missing: a virtual environment in .venv, the pinned development
requirements, torch and a real ComfyUI in .comfyui/. After the first time, that takes no time.
Standard library only; Python 3.10 or newer.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import time
from pathlib import Path

from tools.comfyui.server import ComfyServer, ServerError, link, port_in_use
from tools.setup.comfyui import DEFAULT, RELEASES, ComfyUI
from tools.setup.install import set_up
from tools.setup.page import find_node, get_chromium, page_tools
from tools.setup.paths import ROOT, STORE, WINDOWS, shown
from tools.setup.pictures import get_objects
from tools.setup.running import Trouble, call, say

OLDEST_PYTHON = (3, 10)
MOST_TEST_PROCESSES = 4  # each holds a ComfyUI
NEEDED_GROUPS = {"evaluate": ("evaluate",)}  # of pyproject.toml, by command
LINT_IMPORTS = "from importlinter.cli import lint_imports_command as main; main()"


def surroundings(comfyui: ComfyUI, **more: str) -> dict[str, str]:
    return {**os.environ, "COMFYUI_PATH": str(comfyui.path), "PYTHONUTF8": "1", **more}


def run_tool(name: str, options: argparse.Namespace) -> int:
    comfyui, python = set_up(options.comfyui, *NEEDED_GROUPS.get(name, ()))
    return call([python, "-m", f"tools.{name}", *options.rest], surroundings(comfyui))


def run_templates(options: argparse.Namespace) -> int:
    comfyui, python = set_up(options.comfyui)
    env = surroundings(comfyui, CHROMIUM=str(get_chromium()))
    return call([python, "-m", "tools.templates", *options.rest], env)


def run_test(options: argparse.Namespace) -> int:
    comfyui, python = set_up(options.comfyui, "evaluate")
    get_objects(python)
    chosen = [word for word in options.rest if not word.startswith("-")]
    env = surroundings(comfyui, NODE=find_node(python))
    if not chosen or any("page" in word for word in chosen):
        env["CHROMIUM"] = str(get_chromium())
    start = time.monotonic()
    code = call([python, "-m", "pytest", *(options.rest or side_by_side())], env)
    page_tests = sorted((ROOT / "tests" / "web").rglob("*.test.mjs"))
    if page_tests and not options.rest:
        code = call([env["NODE"], "--test", *page_tests]) or code
    what = "All tests passed" if code == 0 else "There are failing tests (see above)"
    say(f"{what}; {time.monotonic() - start:.0f} s.")
    return code


def side_by_side() -> list[str]:
    """Options for pytest: at least two processes; tests/conftest.py says what stays together."""
    count = min(MOST_TEST_PROCESSES, max(2, os.cpu_count() or 1))
    return ["-n", str(count)]


def run_check(options: argparse.Namespace) -> int:
    _, python = set_up(options.comfyui, "evaluate")
    node, tools = find_node(python), page_tools(python)
    biome, tsc = tools / "@biomejs/biome/bin/biome", tools / "typescript/bin/tsc"
    commands: dict[str, list[str | Path]] = {
        "ruff format": [python, "-m", "ruff", "format", "--check", *options.rest],
        "ruff check": [python, "-m", "ruff", "check", *options.rest],
        "import rules": [python, "-c", LINT_IMPORTS, "--no-cache", "pyproject.toml"],
        "pyright": [python, "-m", "pyright"],
        "biome": [node, biome, "ci", "web", "tests/web"],
        "tsc": [node, tsc, "-p", "jsconfig.json"],
    }
    # The rules follow relative imports, up to the root: there it must be a package with a name.
    packages = STORE / "packages"
    packages.mkdir(parents=True, exist_ok=True)
    link(ROOT, packages / "comfyui_i2am")
    env = {**os.environ, "PYTHONPATH": str(packages)}
    failed = []
    for name, command in commands.items():
        say(f"{name}:")
        if call(command, env):
            failed.append(name)
    say(f"Failed: {', '.join(failed)}." if failed else "Formatter, linter and types found nothing.")
    return 1 if failed else 0


def run_serve(options: argparse.Namespace) -> int:
    comfyui, python = set_up(options.comfyui)
    if port_in_use(options.port):
        raise Trouble(f"Port {options.port} is in use. Choose another: dev.py serve --port 8189")
    base = ROOT / "output" / "serve"
    if comfyui.own and (comfyui.path / "models").is_dir() and not (base / "models").exists():
        base.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):
            (base / "models").symlink_to(comfyui.path / "models", target_is_directory=True)
    server = ComfyServer(
        comfyui.path,
        python,
        base=base,
        port=options.port,
        log=base / "server.log",
        cpu=not options.gpu,
        arguments=tuple(options.rest),
    )
    say("Starting ComfyUI ...")
    with server:
        say(f"Open {server.url} in your browser; Ctrl-C stops it. Log: {shown(server.log)}")
        say("The demo: menu Workflow > Browse Templates > comfyui-i2am > i2am_01_demo, then Run.")
        assert server.process is not None
        return server.process.wait()


def arguments() -> argparse.ArgumentParser:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="dev.py", description=summary)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def add(name: str, text: str, own_help: bool = True) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False, add_help=own_help
        )
        command.add_argument(
            "--comfyui",
            metavar="VERSION",
            choices=tuple(RELEASES),
            help=f"a release of ComfyUI: {', '.join(RELEASES)}. Without it: COMFYUI_PATH, else "
            f"the ComfyUI whose custom_nodes holds this folder, else {DEFAULT}",
        )
        return command

    add("demo", "run the demo in real ComfyUI on the CPU; pictures and numbers in output/demo/")
    add("test", "run every test; more arguments go to pytest")
    serve = add("serve", "the same ComfyUI for your browser; more arguments go to ComfyUI")
    serve.add_argument("--port", type=int, default=8188, help="default: 8188")
    serve.add_argument("--gpu", action="store_true", help="let ComfyUI use the graphics card")
    add("check", "formatter, linter, types")
    for name, text in (
        ("fidelity", "do the maps tell the truth? prints tables; --json FILE for the figures"),
        ("bench", "benchmarks; --json FILE for the figures"),
        ("templates", "watch and run ComfyUI's own templates; words choose among their names"),
    ):
        add(name, text)
    add("evaluate", "a workflow over a table of pairs, with a report; --help says more", False)
    return parser


COMMANDS = {"templates": run_templates, "test": run_test, "check": run_check, "serve": run_serve}


def main() -> int:
    if sys.version_info < OLDEST_PYTHON:
        say("dev.py needs Python 3.10 or newer.")
        return 2
    if not WINDOWS:
        # A polite end from outside stops the children too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    options, options.rest = arguments().parse_known_args()
    command = COMMANDS.get(options.command)
    try:
        return command(options) if command else run_tool(options.command, options)
    except (Trouble, ServerError) as trouble:
        say(f"\nFailed: {trouble}")
        return 1
    except KeyboardInterrupt:
        say("\nStopped.")
        return 130


if __name__ == "__main__":
    sys.exit(main())
