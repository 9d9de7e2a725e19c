"""The comparison says what is so: every test that it names is there, every figure is the computed one."""

import re
from pathlib import Path

import pytest

from tests.benchmarks import paper

ROOT = Path(__file__).parents[2]
README = (ROOT / "docs" / "comparison.md").read_text("utf-8")
TABLE = [line for line in README.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]

TESTS = {
    name
    for path in (ROOT / "tests").rglob("test_*.py")
    for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))
}


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.removeprefix("|").removesuffix("|").split("|")]


COLUMNS = cells(next(line for line in README.splitlines() if line.startswith("| Feature")))


@pytest.mark.parametrize("line", TABLE, ids=lambda line: cells(line)[0])
def test_every_row_has_its_cells_and_every_yes_names_a_test_that_exists(line: str) -> None:
    found = cells(line)
    assert len(found) == len(COLUMNS) and line.endswith("|")
    *theirs, ours, proofs = found
    named = re.findall(r"`(test_\w+)`", proofs)
    assert all(theirs) and ours
    assert bool(named) == (ours != "-")
    assert set(named) <= TESTS, set(named) - TESTS


def test_the_table_has_the_trainers_and_what_they_are_compared_by() -> None:
    assert ["Feature", *"DKAOSLTR", "ours", "proven by"] == COLUMNS
    features = {cells(line)[0] for line in TABLE}
    assert len(features) == len(TABLE) > 30
    assert {"Quantised base", "Families", "Export", "Mixed precision", "Validation loss", "Auto caption"} <= features


def test_the_figures_for_gpus_are_the_ones_that_are_computed() -> None:
    assert paper.table() in README
