"""Nothing of the product can learn from this folder, and this folder draws and asks with code of its own."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PRODUCT = ("bot", "engine", "storage")
OWN = ("albums", "drawing", "palette", "pixels", "prompts", "strangers")
"""Modules that draw, ask or measure without a model."""

FOREIGN = ("engine.cartoon", "engine.pretraining", "engine.toon.captions", "engine.toon.prompts", "engine.toon.world")
"""What drew and captioned the pictures of pre-training, and all that imports it."""


def offences(root: Path) -> list[str]:
    """Lines of the product that import tests, or name the evaluation in a string that could import or read it."""
    found = []
    for package in PRODUCT:
        for path in sorted((root / package).rglob("*.py")):
            tree = ast.parse(path.read_text("utf-8"))
            documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
            for node in (one for one in ast.walk(tree) if isinstance(one, ast.stmt | ast.expr)):
                names = []
                if isinstance(node, ast.Import):
                    names = [one.name for one in node.names]
                elif isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
                    text = node.value.replace("/", ".").replace("\\", ".")
                    names = ["tests"] if text.startswith("tests.") or ".tests." in text or text == "tests" else []
                if any(name == "tests" or name.startswith("tests.") for name in names):
                    found.append(f"{path.relative_to(root)}:{node.lineno}")
    return found


def test_the_product_neither_imports_nor_reads_the_evaluation() -> None:
    assert offences(ROOT) == []


@pytest.mark.parametrize(
    "line",
    [
        "import tests.evaluation.albums",
        "from tests.evaluation import prompts",
        "def f():\n    from tests.evaluation.prompts import PLACES",
        "import importlib\nimportlib.import_module('tests.evaluation.prompts')",
        "from pathlib import Path\nPath('tests/evaluation/prompts.py').read_text()",
        "from pathlib import Path\nPath('..') / 'tests' / 'evaluation'",
    ],
)
def test_an_offence_is_found(tmp_path: Path, line: str) -> None:
    folder = tmp_path / "engine" / "pretraining"
    folder.mkdir(parents=True)
    (folder / "pictures.py").write_text(f'"""Reads like tests/evaluation."""\n{line}\n')
    assert len(offences(tmp_path)) == 1


def loaded(modules: list[str]) -> set[str]:
    """All modules that importing these ones loads, in a process of its own."""
    code = "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code, *modules], capture_output=True, text=True, cwd=ROOT, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


def test_the_evaluation_draws_and_asks_without_the_code_of_pretraining() -> None:
    modules = loaded([f"tests.evaluation.{name}" for name in OWN])
    assert {f"tests.evaluation.{name}" for name in OWN} <= modules
    assert [name for name in modules if name.startswith(FOREIGN)] == []
    # Drawings of things and the meaning of colour names are shared: no picture of either is.
    assert {name for name in modules if name.startswith("engine.toon.")} - {"engine.toon.colours"} <= {
        f"engine.toon.things{name}"
        for name in ("", ".companions", ".costumes", ".drawing", ".headgear", ".held", ".places")
    }
