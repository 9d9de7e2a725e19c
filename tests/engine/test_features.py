"""The engine's README says what is so: every test that it names is there, every figure is the computed one."""

import re
from pathlib import Path

from tests.benchmarks import paper

ROOT = Path(__file__).parents[2]
README = (ROOT / "engine" / "README.md").read_text("utf-8")
TABLE = [line for line in README.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]


def test_every_yes_names_a_test_that_exists() -> None:
    tests = {
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    assert len(TABLE) > 20
    for line in TABLE:
        *_, ours, proofs = [cell.strip() for cell in line.strip("| ").split("|")] if line.count("|") == 9 else ("-", "")
        named = re.findall(r"`(test_\w+)`", proofs)
        assert named or ours == "-" or line.endswith("| - | |"), line
        assert set(named) <= tests, set(named) - tests


def test_the_figures_for_gpus_are_the_ones_that_are_computed() -> None:
    assert paper.table() in README
