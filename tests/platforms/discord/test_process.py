"""The process: start, end, and a wrong or missing token."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest

from tests.platforms.discord.world import ANNA
from tests.platforms.discord_server import TOKEN, DiscordServer


async def test_the_process_starts_answers_and_ends(server: DiscordServer, tmp_path: Path) -> None:
    environment = os.environ | {
        "AVATAR_HOME": str(tmp_path / "home"),
        "AVATAR_DISCORD_TOKEN": TOKEN,
        "AVATAR_DISCORD_API_URL": server.api,
        "AVATAR_DISCORD_GATEWAY_URL": server.gateway,
    }
    bot = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "discord", stdout=PIPE, stderr=PIPE, env=environment
    )
    assert bot.stdout
    try:
        async with asyncio.timeout(60):
            assert (await bot.stdout.readline()).startswith(b"Talking on Discord as user900")
        await server.until(lambda: server._sockets, 30)
        dm = server.dm(ANNA)
        await server.slash(ANNA, dm, "help")
        await server.sees(ANNA, dm, "Show me 5 to 10 photos")
    finally:
        bot.terminate()
        _, said = await bot.communicate()
    assert (bot.returncode, said) == (0, b"")
    assert server.faults == []


@pytest.mark.parametrize(("token", "status", "said"), [("", 2, b"set AVATAR_DISCORD_TOKEN"), ("x", 1, b"not accept")])
async def test_a_missing_or_wrong_token(
    server: DiscordServer, tmp_path: Path, token: str, status: int, said: bytes
) -> None:
    environment = os.environ | {"AVATAR_HOME": str(tmp_path), "AVATAR_DISCORD_API_URL": server.api}
    if token:
        environment["AVATAR_DISCORD_TOKEN"] = token
    bot = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "discord", stdout=PIPE, stderr=PIPE, env=environment, cwd=Path.cwd()
    )
    async with asyncio.timeout(240):
        _, error = await bot.communicate()
    assert bot.returncode == status and said in error and error.count(b"\n") == 1
