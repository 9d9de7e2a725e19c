"""README and docs say what is so: commands run as printed, links lead somewhere, tables are the code's."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from bot.settings import BotSettings
from bot.table import COMMANDS
from engine.__main__ import parser
from engine.work.settings import EngineSettings
from storage.settings import table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
"""A fenced block. `sh` marks those that this test runs from top to bottom, as a reader would."""

COMPARISON = (ROOT / "docs" / "comparison.md").read_text("utf-8")


def blocks(page: Path, *languages: str) -> list[str]:
    return [body for language, body in BLOCK.findall(page.read_text("utf-8")) if language in languages]


def copy_of_the_project(folder: Path) -> Path:
    """The tracked files in a folder of their own, with the installed environment."""
    copy = folder / "avatar-diffusion"
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.split(b"\0")
    for name in (name.decode() for name in files if name):
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).symlink_to(ROOT / name)
    (copy / ".venv").symlink_to(Path(sys.prefix))
    return copy


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "sh")], ids=lambda page: page.name)
def test_the_commands_run_as_printed_in_a_fresh_shell(page: Path, tmp_path: Path) -> None:
    """From the project's folder, with an empty home and nothing of this process's environment but the path."""
    script = "\n".join(blocks(page, "sh"))
    environment = {"PATH": os.environ["PATH"].replace(str(Path(sys.prefix) / "bin") + ":", ""), "HOME": str(tmp_path)}
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=copy_of_the_project(tmp_path), env=environment, capture_output=True, text=True, timeout=1200, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-2000:] + run.stderr[-2000:]


def engine_commands() -> list[str]:
    """Every `python -m engine ...` line of the pages, whole and without its comment."""
    lines = [line for page in PAGES for body in blocks(page, "", "sh") for line in body.splitlines()]
    found = [re.search(r"-m engine (?!\.)(.*?)(?:\s{2,}#.*)?$", line) for line in lines]
    return sorted({match[1].strip() for match in found if match})


@pytest.mark.parametrize("line", engine_commands())
def test_every_engine_command_is_one_that_the_parser_takes(line: str) -> None:
    # Optional parts are taken as given, the first of several choices, and capitals as some value.
    plain = re.sub(r"\|[\w|]+", "", line.replace("[", "").replace("]", "")).replace("PHOTOS...", "1.jpg 2.jpg")
    words = ["4" if word == "N" else word for word in shlex.split(plain)]
    assert parser().parse_args(words)


def test_there_are_commands_to_check() -> None:
    assert len(engine_commands()) > 12 and sum(bool(blocks(page, "sh")) for page in PAGES) >= 2


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    text = page.read_text("utf-8")
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(?:#([\w-]+))?\)", text):
        other = (page.parent / target).resolve() if target else page
        assert other.exists(), target
        if anchor:
            titles = re.findall(r"^#+ (.+)$", other.read_text("utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}, anchor


def test_every_page_is_reached_from_the_readme() -> None:
    for page in (ROOT / "docs").glob("*.md"):
        assert f"(docs/{page.name})" in README


def test_the_settings_table_is_the_codes() -> None:
    expected = table(BotSettings, EngineSettings)
    assert expected in (ROOT / "docs" / "self-hosting.md").read_text("utf-8"), f"put this into the page:\n{expected}"


def test_every_chat_command_is_explained() -> None:
    assert all(f"`/{name}" in README for name in COMMANDS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_make_target_exists(page: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", page.read_text("utf-8"), re.MULTILINE)) <= targets


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 110


def test_the_changelog_has_ten_points() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert all(len(re.findall(r"^- ", part, re.MULTILINE)) <= 10 for part in text.split("\n## ")[1:])


def test_the_comparison_has_every_trainer_in_every_row() -> None:
    rows = [line for line in COMPARISON.partition("\n## ")[0].splitlines() if line.startswith("| ")]
    assert rows[0] == "| Feature | D | K | A | O | S | L | T | R | ours |" and len(rows) > 30
    for row in rows:
        cells = [cell.strip() for cell in row.strip("|").split("|")]
        assert len(cells) == 10 and all(cells), row


def test_the_figures_for_gpus_are_the_computed_ones() -> None:
    """`python -m tests.benchmarks.paper` prints them."""
    from tests.benchmarks import paper

    assert paper.table() in COMPARISON
