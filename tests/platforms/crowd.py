"""Many people at once on a simulated platform: each asks for a picture of their own, while things go wrong.

`chance` is how often a call goes wrong in each way, and `seed` decides which do.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bot.settings import BotSettings
from storage.jobs import Imagine
from storage.open import Storage, open_storage
from tests.bot.conftest import Engine
from tests.platforms import discord_server, telegram_server
from tests.platforms.discord_server import Asked, DiscordServer, Sent
from tests.platforms.dying import Bot
from tests.platforms.telegram_server import Person, Rates, Server, Weather, served

PATIENCE = 600.0


@dataclass(frozen=True)
class Seen:
    """What came of it. `acknowledged`: seconds until each person saw that the bot is at it; `seconds`: until all had
    their answers. `answers`: by person, the answers that were ever shown where they are."""

    acknowledged: Sequence[float]
    seconds: float
    answers: Sequence[Sequence[str]]
    pictures: Sequence[int]
    faults: Sequence[str]

    def percentile(self, part: float) -> float:
        """The seconds within which this part of the people, 0 to 1, saw that the bot is at it."""
        return sorted(self.acknowledged)[min(len(self.acknowledged) - 1, int(part * len(self.acknowledged)))]

    def check(self) -> None:
        """No answer lost, doubled or given to somebody else; everybody was told that the bot is at it."""
        assert not self.faults, self.faults[:5]
        assert len(self.acknowledged) == len(self.answers)
        for number, answers in enumerate(self.answers):
            assert len(answers) == 1, (number, answers)
            assert f"(seed {number + 1})" in answers[0]
        assert set(self.pictures) <= {1}


async def _avatar(storage: Storage, platform: str, account: int, name: str) -> None:
    user = await storage.records.user(platform, str(account), name)
    avatar = await storage.records.create_avatar(user.id, "mia7", "woman", [], "1")
    await storage.records.avatar_set(avatar.id, state="ready", adapter_key=f"adapters/{avatar.id}/x")


@asynccontextmanager
async def _at_work(home: Path) -> AsyncIterator[tuple[Storage, Engine]]:
    async with open_storage(BotSettings(_env_file=None, home=home)) as storage:
        engine = Engine(storage.records, storage.blobs, storage.events, steps=1)  # type: ignore[arg-type]
        running = asyncio.create_task(engine.run())
        try:
            yield storage, engine
        finally:
            engine.stopping.set()
            await running


async def _all_answered(storage: Storage, engine: Engine, platform: str, people: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while (
            len([job for job in engine.seen if isinstance(job.payload, Imagine)]) < people
            or await storage.records.unheld()
            or await storage.records.undelivered(platform)
        ):
            await asyncio.sleep(0.2)


async def on_telegram(people: int, chance: float, seed: int = 0) -> Seen:
    """Everybody in their private chat. Updates come doubled and out of order, too."""
    server, pick = Server(), Random(seed)
    # The simulator counts like the bot, but what arrives late from one second counts for the next.
    server.rates = Rates(overall=60)
    everybody = [server.person(f"Person {number}") for number in range(people)]
    with tempfile.TemporaryDirectory() as folder:
        async with _at_work(Path(folder)) as (storage, engine), served(server) as address:
            for one in everybody:
                await _avatar(storage, "telegram", one.id, "Somebody")
            environment = {"AVATAR_TELEGRAM_TOKEN": telegram_server.TOKEN, "AVATAR_TELEGRAM_API_URL": address}
            bot = Bot("telegram", {"AVATAR_HOME": folder, **environment}, None)
            await bot.start()
            server.weather = Weather(chance, Random(seed))
            order = list(enumerate(everybody, start=1))
            for place in range(len(order) - 1):
                if pick.random() < chance:
                    order[place], order[place + 1] = order[place + 1], order[place]
            started = time.monotonic()
            for number, one in order:
                await one.say(f"/imagine mia7 --count 1 --seed {number}", times=1 + (pick.random() < chance))
            await _all_answered(storage, engine, "telegram", people)
            seconds = time.monotonic() - started
            server.weather = Weather()
            await asyncio.sleep(1)
            await bot.stop()
    return Seen(
        [_first_sign(server, one) - started for one in everybody],
        seconds,
        [_answers_told(server, one) for one in everybody],
        [len([body for body in server.of_bot(one.id) if "photo" in body]) or 1 for one in everybody],
        server.faults,
    )


def _first_sign(server: Server, one: Person) -> float:
    sent = [at for (chat, _), at in server.times.items() if chat == one.id]
    return min([at for at, chat in server.actions if chat == one.id] + sent)


def _answers_told(server: Server, one: Person) -> list[str]:
    told = [texts for (chat, _), texts in server.told.items() if chat == one.id]
    return [text for texts in told for text in dict.fromkeys(texts) if "Here you are" in text]


async def on_discord(people: int, chance: float, seed: int = 0) -> Seen:
    """Every other person in their private chat, the rest in one channel of a server, where each sees their own."""
    everybody = range(1000, 1000 + people)
    with tempfile.TemporaryDirectory() as folder:
        async with _at_work(Path(folder)) as (storage, engine), DiscordServer() as server:
            for user in everybody:
                await _avatar(storage, "discord", user, f"User {user}")
            studio = server.add("server", *everybody)
            where = [server.dm(user) if user % 2 else studio for user in everybody]
            environment = {
                "AVATAR_DISCORD_TOKEN": discord_server.TOKEN,
                "AVATAR_DISCORD_API_URL": server.api,
                "AVATAR_DISCORD_GATEWAY_URL": server.gateway,
            }
            bot = Bot("discord", {"AVATAR_HOME": folder, **environment}, None)
            await bot.start()
            await server.until(lambda: server._sockets, 60)
            server.storm(chance, seed)
            started = time.monotonic()
            asked: list[Asked] = []
            for number, (user, channel) in enumerate(zip(everybody, where, strict=True), start=1):
                asked.append(await server.slash(user, channel, "imagine", prompt="mia7", count=1, seed=number))
            await _all_answered(storage, engine, "discord", people)
            seconds = time.monotonic() - started
            server.storm(0)
            await asyncio.sleep(1)
            await bot.stop()
            shown = {user: _answers_seen(server, user, channel) for user, channel in zip(everybody, where, strict=True)}
    return Seen(
        [one.delay for one in asked if one.answer is not None],
        seconds,
        [[text for one in shown[user] for text in dict.fromkeys(one.said) if "Here you are" in text] for user in shown],
        [len(one.files) for user in shown for one in shown[user]],
        server.faults,
    )


def _answers_seen(server: DiscordServer, user: int, channel: int) -> list[Sent]:
    return [one for one in server.seen(user, channel) if any("Here you are" in text for text in one.said)]
