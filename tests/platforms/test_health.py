"""`python -m bot health` while the platform is away, and once it is back."""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from pathlib import Path

import pytest

from bot.health import BEAT
from tests.platforms import discord_server, telegram_server
from tests.platforms.discord_server import DiscordServer
from tests.platforms.telegram_server import Cut, Server, served

pytestmark = pytest.mark.slow
FOR_GOOD = 100_000


@pytest.mark.parametrize("platform", ["discord", "telegram"])
async def test_a_bot_is_unhealthy_while_its_platform_is_unreachable(platform: str, redis: str, tmp_path: Path) -> None:
    alive, telegram = tmp_path / "alive", Server()
    async with DiscordServer() as discord, served(telegram) as telegram_url:
        environment = os.environ | {
            "AVATAR_HOME": str(tmp_path),
            "AVATAR_REDIS_URL": redis,
            "AVATAR_HEALTH_FILE": str(alive),
            "AVATAR_DISCORD_TOKEN": discord_server.TOKEN,
            "AVATAR_DISCORD_API_URL": discord.api,
            "AVATAR_DISCORD_GATEWAY_URL": discord.gateway,
            "AVATAR_TELEGRAM_TOKEN": telegram_server.TOKEN,
            "AVATAR_TELEGRAM_API_URL": telegram_url,
        }

        async def until(healthy: bool) -> None:
            async with asyncio.timeout(240):
                while True:
                    if alive.exists():
                        os.utime(alive, (0, 0))  # or what was before would take its time to grow stale
                    await asyncio.sleep(2 * BEAT)
                    check = await asyncio.create_subprocess_exec(
                        sys.executable, "-m", "bot", "health", env=environment, stderr=PIPE
                    )
                    _, said = await check.communicate()
                    assert check.returncode == (1 if b"connected" in said else 0)
                    if (check.returncode == 0) == healthy:
                        return

        bot = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bot", platform, env=environment, stdout=DEVNULL, stderr=DEVNULL
        )
        await until(healthy=True)
        discord.fail("", None, FOR_GOOD)
        discord.lose_sockets()
        for after in (False, True):
            telegram.inject("getUpdates", Cut(), FOR_GOOD, after)
        await telegram.person("Anna").say("/help")  # which nobody hears: it ends the poll that is open
        await until(healthy=False)
        discord._failures.clear()
        telegram.injections.clear()
        await until(healthy=True)
        bot.terminate()
        assert await bot.wait() == 0
