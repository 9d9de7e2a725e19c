"""The process: start, end, death, and a wrong or missing token."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bot.frontends.telegram.bot import Telegram, TelegramFailure
from bot.settings import BotSettings
from storage.jobs import Inspect, Train
from storage.open import open_storage
from tests.fakes.engine import Engine
from tests.platforms.telegram.world import PHOTOS, World
from tests.platforms.telegram_server import (
    TOKEN,
    Server,
    said,
    served,
)
from tests.until import until


async def test_a_wrong_token_is_said_without_it(world: World) -> None:
    with pytest.raises(TelegramFailure, match="AVATAR_TELEGRAM_TOKEN") as failure:
        async with Telegram(world.storage, "1:wrong", world.address).running():
            pass
    assert "1:wrong" not in str(failure.value)


async def test_the_process_starts_answers_and_ends(tmp_path: Path) -> None:
    server = Server()
    ben = server.person("Ben")
    async with served(server) as address:
        environment = os.environ | {
            "AVATAR_HOME": str(tmp_path / "home"),
            "AVATAR_TELEGRAM_TOKEN": TOKEN,
            "AVATAR_TELEGRAM_API_URL": f"{address}/",
        }
        bot = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bot", "telegram", stdout=PIPE, stderr=PIPE, env=environment
        )
        assert bot.stdout
        async with asyncio.timeout(120):
            assert (await bot.stdout.readline()) == b"The bot is at https://t.me/AvatarTestBot\n"
            await ben.say("/status")
            await server.until(ben.id, "You have no jobs", seconds=60)
            bot.terminate()
            _, logged = await bot.communicate()
    assert (bot.returncode, logged) == (0, b"")
    assert server.faults == []


@pytest.mark.slow
async def test_a_killed_process_continues_after_its_restart(tmp_path: Path, redis: str) -> None:
    """SIGKILL while photos come in, while an album is taken in, and while a training is started."""
    async with Redis.from_url(redis) as client:
        await client.flushall()
    server, settings = Server(), BotSettings(_env_file=None, home=tmp_path, redis_url=redis)
    anna = server.person("Anna")
    async with open_storage(settings) as storage, served(server) as address:
        environment = os.environ | {
            "AVATAR_HOME": str(tmp_path),
            "AVATAR_REDIS_URL": redis,
            "AVATAR_TELEGRAM_TOKEN": TOKEN,
            "AVATAR_TELEGRAM_API_URL": address,
        }

        async def start() -> asyncio.subprocess.Process:
            bot = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bot", "telegram", stdout=PIPE, stderr=PIPE, env=environment
            )
            assert bot.stdout
            async with asyncio.timeout(120):
                assert (await bot.stdout.readline()).startswith(b"The bot is at")
            return bot

        async def killed(bot: asyncio.subprocess.Process, calls: int) -> asyncio.subprocess.Process:
            """Kill the process once it has made this many more calls, and start the next."""
            last = len(server.calls) + calls
            await until(lambda: len(server.calls) >= last, within=120)
            bot.kill()
            await bot.communicate()
            return await start()

        engine = Engine(storage.records, storage.blobs, storage.events)  # type: ignore[arg-type]
        working, bot = asyncio.create_task(engine.run()), await start()
        album = anna.album(PHOTOS[:7], "/train mia7 woman", at=6)
        await anna.hand_out(album)
        bot = await killed(bot, 4)
        asked = await server.until(anna.id, "mia7 woman: 7 photos. One question")
        await anna.press(asked, "They agreed")
        bot = await killed(bot, 2)
        await anna.press(await server.until(anna.id, "7 photos, all good"), "Train")
        bot = await killed(bot, 2)
        await server.until(anna.id, "mia7 is ready")

        async def all_delivered() -> bool:
            return not await storage.records.jobs.undelivered("telegram")

        await until(all_delivered)
        bot.terminate()
        await bot.communicate()
        engine.stopping.set()
        await working
    assert [type(job.payload) for job in engine.seen] == [Inspect, Train]
    assert sum("mia7 is ready" in said(one) for one in server.of_bot(anna.id)) == 1
    assert server.faults == []


async def test_the_process_needs_a_token(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AVATAR_TELEGRAM")}
    bot = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "telegram", stderr=PIPE, env=environment | {"AVATAR_HOME": str(tmp_path)}
    )
    _, logged = await bot.communicate()
    assert bot.returncode == 2
    assert b"set AVATAR_TELEGRAM_TOKEN" in logged and logged.count(b"\n") == 1
