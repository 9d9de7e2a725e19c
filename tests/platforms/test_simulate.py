"""`make simulate`: it starts, somebody trains and draws on both platforms with the real engine, and it ends."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession, FormData

ROOT = Path(__file__).parents[2]
ALBUM = sorted((ROOT / "bot/demo_album").glob("*.png"))
PATIENCE = 300


class Hand:
    """What the page does for somebody."""

    def __init__(self, session: ClientSession, path: str) -> None:
        self.session, self.path = session, path

    async def say(self, text: str, photos: bool = False) -> dict[str, Any]:
        form = FormData(default_to_multipart=True)
        form.add_field("text", text)
        for photo in ALBUM if photos else ():
            form.add_field("photo", photo.read_bytes(), filename="photo")
        async with self.session.post(f"{self.path}/say", data=form) as response:
            return dict(await response.json())

    async def until(self, text: str) -> dict[str, Any]:
        async with asyncio.timeout(PATIENCE):
            while True:
                async with self.session.get(self.path) as response:
                    seen = await response.json()
                assert seen["faults"] == []
                for message in reversed(seen["messages"]):
                    if text in message["text"] and not message["author"]:
                        return dict(message)
                await asyncio.sleep(0.2)

    async def press(self, message: dict[str, Any], label: str) -> None:
        async with self.session.post(f"{self.path}/press", json={"ref": message["ref"], "label": label}) as response:
            assert response.status == 200


@pytest.mark.slow
async def test_it_starts_answers_and_ends() -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.platforms.simulate", "--port", "0", cwd=ROOT, env=environment, stdout=PIPE
    )
    assert process.stdout
    try:
        async with asyncio.timeout(PATIENCE):
            line = (await process.stdout.readline()).decode()
        address = line.partition(" at ")[2].partition(";")[0]
        async with ClientSession(address) as session:
            async with session.get("/") as response:
                assert "Simulated Discord and Telegram" in await response.text()
            telegram, discord = Hand(session, "/telegram/Anna/private"), Hand(session, "/discord/Ben/group")
            await telegram.say("/train mia7 man", photos=True)
            await telegram.press(await telegram.until("One question"), "They agreed")
            assert "Train" in " ".join((await telegram.until("8 photos, all good"))["buttons"])
            assert await discord.say("/nonsense") == {"impossible": "Discord offers no such command (unknown_command)."}
            assert await discord.say("/train ben7 man", photos=True) == {}
            assert "Train ben7" in (await discord.until("8 photos, all good"))["buttons"]
            await Hand(session, "/telegram/Ben/group").say("/help")
            async with session.get("/nowhere/Anna/private") as response:
                assert response.status == 404
        process.terminate()
        async with asyncio.timeout(60):
            assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
