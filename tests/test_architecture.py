"""The layers that pyproject.toml declares hold, and importing a package does nothing but define things."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import structure

ROOT = Path(__file__).parents[1]
ENTRIES = [name for name in ("bot.__main__", "engine.__main__") if (ROOT / f"{name.replace('.', '/')}.py").exists()]

IMPORT = """
import builtins, importlib, os, socket, sqlite3, subprocess, sys

asked = []
real_get = os._Environ.__getitem__
def get(self, key):
    if key.startswith("AVATAR_"):
        asked.append(key)
    return real_get(self, key)
os._Environ.__getitem__ = get

def refused(*args, **kwargs):
    raise AssertionError("importing opened a connection, a database or a process")
socket.socket.connect = refused
sqlite3.connect = refused
subprocess.Popen.__init__ = refused

importlib.import_module(sys.argv[1])
assert not asked, asked
print(*sys.modules)
"""


def imported(module: str) -> set[str]:
    """The modules that importing one loads, in a process of its own where connections and databases are refused."""
    run = subprocess.run(
        [sys.executable, "-c", IMPORT, module], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_layers() -> None:
    tool = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run(
        [tool, "--no-cache"], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False, env={**os.environ}
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("module", ENTRIES)
def test_entry_imports_no_torch(module: str) -> None:
    """The bot never loads torch; the engine's supervisor leaves it to the GPU process."""
    loaded = imported(module)
    assert not loaded & {"torch", "diffusers", "transformers", "dlib"}
    other = {"bot": "engine", "engine": "bot"}[module.partition(".")[0]]
    assert other not in loaded


@pytest.mark.parametrize("module", ["storage", "engine.photos.inspection", *ENTRIES])
def test_importing_writes_nothing(module: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    imported(module)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("folder", ["tests/bot", "tests/platforms", "tests/storage"])
def test_these_tests_run_without_torch(folder: str) -> None:
    """Or the bot's tests would pay for torch, and could not show that the bot does without it."""
    code = "import pytest, sys; pytest.main(['--collect-only', '-q', sys.argv[1]]); print('torch' in sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code, folder], capture_output=True, text=True, cwd=ROOT, timeout=300, check=False
    )
    assert run.stdout.splitlines()[-1] == "False", run.stdout[-500:] + run.stderr[-500:]


def test_nothing_outgrows_its_room() -> None:
    """`python -m tests.structure` prints the figures. They may be lowered here, never raised."""
    found = structure.read()
    assert max(one.lines for one in found.functions) <= 90
    assert max(one.parameters for one in found.functions) <= 12
    assert max(found.methods.values()) <= 30
    assert max(found.files.values()) <= 750
    assert max(structure.shelves(found).values()) <= 20
