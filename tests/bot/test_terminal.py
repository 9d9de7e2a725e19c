"""The demo: the scripted chat with the real storage, and an engine in the test instead of its own process."""

import asyncio
import io
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from rich.console import Console

from bot.__main__ import main
from bot.frontends import terminal
from bot.frontends.terminal import Terminal, demo
from bot.settings import BotSettings
from storage.blobs import FolderBlobs
from storage.jobs import Imagine
from storage.records import Records


@pytest.fixture
def album(tmp_path: Path, draw: Callable[..., bytes]) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for number in range(8):
        (folder / f"{number}.png").write_bytes(draw(number, 300))
    script = {"token": "mia7", "noun": "woman", "prompts": ["mia7 woman in a suit", "mia7 woman, smiling"]}
    (folder / "script.json").write_text(json.dumps(script))
    return folder


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BotSettings:
    monkeypatch.setenv("AVATAR_HOME", str(tmp_path / "home"))
    return BotSettings()


@pytest.fixture
def engine(bot: Any, settings: BotSettings, monkeypatch: pytest.MonkeyPatch) -> Any:
    @asynccontextmanager
    async def beside(_: BotSettings) -> AsyncIterator["asyncio.Task[None]"]:
        records = await Records.open(settings.records_url)
        bot.engine.records, bot.engine.blobs = records, FolderBlobs(settings.blob_folder)
        task = asyncio.create_task(bot.engine.run())
        try:
            yield task
        finally:
            bot.engine.stopping.set()
            await asyncio.gather(task, return_exceptions=True)
            await records.close()

    monkeypatch.setattr(terminal, "_engine", beside)
    return bot.engine


async def play(settings: BotSettings, album: Path, out: Path, **console: Any) -> tuple[int, str]:
    file = io.StringIO()
    status = await demo(settings, album, out, Console(file=file, width=100, **console))
    return status, file.getvalue()


async def test_the_demo_twice(settings: BotSettings, engine: Any, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "demo"
    status, text = await play(settings, album, out)
    assert status == 0
    for part in ("/train mia7 woman", "8 photos, all good.", "Train mia7", "mia7 is ready", "/imagine mia7 woman in a"):
        assert part in text
    assert len(list(out.glob("[0-9]-*.png"))) == 8
    with Image.open(out / "contact-sheet.png") as sheet:
        assert min(sheet.size) > 900

    # What the first left behind is in nobody's way.
    status, text = await play(settings, album, out, force_terminal=True, legacy_windows=False)
    assert status == 0


async def test_a_demo_that_fails_says_so_in_one_line(
    settings: BotSettings, engine: Any, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    engine.errors = {Imagine: {"code": "out_of_memory", "facts": {}}}
    status, _ = await play(settings, album, tmp_path / "demo")
    assert status == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "did not fit into memory" in error


async def test_an_engine_that_does_not_start(
    settings: BotSettings,
    album: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("bot.frontends.terminal.sys.executable", "/bin/false")
    status, _ = await play(settings, album, tmp_path / "demo")
    assert status == 1
    assert "the engine ended with status 1" in capsys.readouterr().err


@pytest.mark.parametrize("photos", [None, 0, 4])
def test_wrong_albums(
    settings: BotSettings, tmp_path: Path, capsys: pytest.CaptureFixture[str], photos: int | None
) -> None:
    folder = tmp_path / "album"
    if photos is not None:
        folder.mkdir()
        for number in range(photos):
            (folder / f"{number}.jpg").write_bytes(b"photo")
    assert main(["demo", "--album", str(folder), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_wrong_settings_are_one_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("AVATAR_CHAT_PORT", "many")
    assert main(["chat"]) == 2
    assert "AVATAR_CHAT_PORT" in capsys.readouterr().err


async def test_progress_without_a_terminal_is_a_line_for_each_tenth(bot: Any) -> None:
    from bot.replies import jobs

    file = io.StringIO()
    shown = Terminal(Console(file=file, width=100))
    await bot.avatar("mia7")
    reply = await bot.say("/imagine mia7")
    job = await bot.records.jobs.get(reply.job_id)
    ref = await shown.post("demo", reply.message)
    for step in range(1, 101):
        facts = {"step": step, "steps": 100, "seconds_left": 100.0 - step}
        await shown.edit(ref, jobs.under_way(job, None, "step", facts))
    shown.stop()
    lines = file.getvalue().splitlines()
    assert len(lines) == 11
    assert "step 50 of 100 · about 50 s left" in lines[5]
