"""The README says what is so."""

import re
from pathlib import Path

from bot.settings import BotSettings
from bot.table import COMMANDS
from engine.work.settings import EngineSettings
from storage.settings import table

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_settings_table_is_the_codes() -> None:
    expected = table(BotSettings, EngineSettings)
    assert expected in README, f"put this table into README.md:\n{expected}"


def test_every_chat_command_is_explained() -> None:
    assert all(f"`/{name}" in README for name in COMMANDS)


def test_every_picture_and_file_it_points_at_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)|src=\"(?!https?:)([^\"]+)\"", README)
    assert links and all((ROOT / (plain or quoted)).exists() for plain, quoted in links)


def test_every_make_target_it_names_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", README, re.MULTILINE)) <= targets
