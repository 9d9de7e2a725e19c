"""The bot, killed wherever it waits: it loses no photo silently, trains once and answers once."""

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from bot.frontends.telegram.intake import INBOX
from bot.settings import BotSettings
from storage.jobs import Inspect, JobKind, Train
from storage.open import Storage, open_storage
from storage.records import Job
from tests.fakes.engine import Engine, drawing
from tests.platforms import discord_server, telegram_server
from tests.platforms.discord_server import Asked, DiscordServer
from tests.platforms.dying import Bot
from tests.platforms.telegram_server import Server, labels, said, served
from tests.until import until

ASKED = os.environ.get("AVATAR_TEST_KILLS")
EXAMPLES = int(ASKED or 3)
"""How many lives are tried on each platform."""
PATIENCE = 120.0
PHOTOS = [drawing(seed) for seed in range(6)]
ANNA, BEN = 11, 12
lives = st.lists(st.floats(0, 1), min_size=1, max_size=2)
"""When the first process dies, and perhaps the second: as a part of all the steps of a life without a death."""

searching = settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=ASKED is None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.too_slow],
)
Story = Callable[[str, list[int]], Coroutine[Any, Any, int]]


@asynccontextmanager
async def engine_of(storage: Storage) -> AsyncIterator[Engine]:
    engine = Engine(storage.records, storage.blobs, storage.events)  # type: ignore[arg-type]
    running = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        engine.stopping.set()
        await running


class Lives:
    """One bot process after another: each dies at its step, and the last lives."""

    def __init__(self, platform: str, environment: dict[str, str], deaths: list[int]) -> None:
        self._platform, self._environment, self._deaths = platform, environment, deaths
        self.bot = self._next()

    def _next(self) -> Bot:
        return Bot(self._platform, self._environment, self._deaths.pop(0) if self._deaths else 0)

    @asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """Within: whenever the bot dies, the next one starts."""
        await self.bot.start()
        watching = asyncio.create_task(self._watch())
        try:
            yield
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
            await self.bot.stop()

    async def _watch(self) -> None:
        while True:
            if not self.bot.alive:
                assert self.bot.killed
                await self.bot.stop()
                self.bot = self._next()
                await self.bot.start()
            await asyncio.sleep(0.02)


@cache
def whole(story: Story, url: str) -> int:
    """The steps of a life without a death."""
    return asyncio.run(story(url, []))


async def answered(storage: Storage, platform: str) -> None:
    """Return once nothing is left to say, and a moment later: the process, in which no test can look, may say more."""

    async def nothing_left() -> bool:
        return not (await storage.records.jobs.active() or await storage.records.jobs.undelivered(platform))

    await until(nothing_left, within=PATIENCE)
    await asyncio.sleep(0.7)


async def trained_once(storage: Storage, engine: Engine) -> list[Job]:
    """The jobs there were, one training among them, of every photo."""
    trainings = [job for job in engine.seen if isinstance(job.payload, Train)]
    assert len(trainings) == 1
    jobs = await storage.records.jobs.for_user(trainings[0].user_id)
    assert len([job for job in jobs if job.kind == JobKind.TRAIN]) == 1
    assert isinstance(trainings[0].payload, Train)
    photos = await storage.records.avatars.photos(trainings[0].payload.avatar_id)
    assert [await storage.blobs.get(photo.key) for photo in photos] == PHOTOS
    return jobs


# Telegram


async def on_telegram(url: str, deaths: list[int]) -> int:
    async with Redis.from_url(url) as client:
        await client.flushall()
    server = Server()
    anna = server.person("Anna")
    with tempfile.TemporaryDirectory() as folder:
        environment = {"AVATAR_HOME": folder, "AVATAR_REDIS_URL": url}
        home = BotSettings(_env_file=None, home=Path(folder), redis_url=url)
        async with open_storage(home) as storage, served(server) as address, engine_of(storage) as engine:
            environment |= {"AVATAR_TELEGRAM_TOKEN": telegram_server.TOKEN, "AVATAR_TELEGRAM_API_URL": address}
            lives = Lives("telegram", environment, deaths)
            async with lives.going_on():
                await anna.send(PHOTOS, "/train mia7 woman")
                asked = await server.until(anna.id, "mia7 woman: 6 photos. One question", seconds=PATIENCE)
                await anna.press(asked, "They agreed")
                await anna.press(await server.until(anna.id, "6 photos, all good", seconds=PATIENCE), "Train mia7")
                ready = await server.until(anna.id, "mia7 is ready", seconds=PATIENCE)
                await answered(storage, "telegram")
                async with asyncio.timeout(PATIENCE):
                    while any(note.body for note in await storage.records.notes.find(INBOX)):
                        await asyncio.sleep(0.05)
                steps = lives.bot.steps
            jobs = await trained_once(storage, engine)
            assert [type(job.payload) for job in engine.seen] == [Inspect, Train] and len(jobs) == 2
            assert await storage.blobs.list("incoming/") == []
    # Whatever a message ever said counts.
    for answer in ("all good", "mia7 is ready"):
        assert len([texts for texts in server.told.values() if any(answer in text for text in texts)]) == 1
    pictures = [body for body in server.of_bot(anna.id) if "photo" in body]
    assert len(pictures) == 4 or (not pictures and "Show the pictures" in labels(ready))
    assert [body for body in server.of_bot(anna.id) if "Training of mia7: done" in said(body)], server.told
    assert server.faults == []
    return steps


@searching
@given(lives)
def test_on_telegram(redis: str, moments: list[float]) -> None:
    steps = whole(on_telegram, redis)
    asyncio.run(on_telegram(redis, [1 + int(moment * steps) for moment in moments]))


async def test_two_processes_of_one_bot_answer_once(
    tmp_path: Path, redis: str, unused_tcp_port_factory: Callable[[], int]
) -> None:
    """Both hear of every job. When the first dies in the middle the second goes on."""
    async with Redis.from_url(redis) as client:
        await client.flushall()
    server, home = Server(), BotSettings(_env_file=None, home=tmp_path, redis_url=redis)
    people = [server.person(name) for name in ("Anna", "Ben", "Carla", "Dora")]
    ports = unused_tcp_port_factory(), unused_tcp_port_factory()
    async with open_storage(home) as storage, served(server) as address, engine_of(storage) as engine:
        environment = {
            "AVATAR_HOME": str(tmp_path),
            "AVATAR_REDIS_URL": redis,
            "AVATAR_TELEGRAM_TOKEN": telegram_server.TOKEN,
            "AVATAR_TELEGRAM_API_URL": address,
            "AVATAR_TELEGRAM_WEBHOOK_URL": f"http://127.0.0.1:{ports[0]}/",
        }
        first, second = (Bot("telegram", environment | {"AVATAR_TELEGRAM_WEBHOOK_PORT": str(port)}) for port in ports)
        try:
            await first.start()
            await second.start()
            await until(lambda: server.webhook, within=PATIENCE)
            for one in people:
                await one.send(PHOTOS, "/train mia7 woman")
            for one in people:
                asked = await server.until(one.id, "mia7 woman: 6 photos. One question", seconds=PATIENCE)
                await one.press(asked, "They agreed")
            for one in people:
                await server.until(one.id, "6 photos, all good", seconds=PATIENCE)
            engine.gate.clear()
            checked = await server.until(people[0].id, "6 photos, all good")
            await people[0].press(checked, "Train mia7")
            await server.until(people[0].id, "step 2 of 4", seconds=PATIENCE)
            first.kill()
            engine.gate.set()
            await server.until(people[0].id, "mia7 is ready", seconds=PATIENCE)
            await answered(storage, "telegram")
        finally:
            await first.stop()
            await second.stop()
    for answer, times in (("all good", 4), ("mia7 is ready", 1)):
        assert len([texts for texts in server.told.values() if any(answer in text for text in texts)]) == times
    assert len([body for body in server.of_bot(people[0].id) if "photo" in body]) == 4
    assert server.faults == []


# Discord


async def on_discord(kind: str, url: str, deaths: list[int]) -> int:
    async with Redis.from_url(url) as client:
        await client.flushall()
    with tempfile.TemporaryDirectory() as folder:
        environment = {"AVATAR_HOME": folder, "AVATAR_REDIS_URL": url, "AVATAR_DISCORD_TOKEN": discord_server.TOKEN}
        home = BotSettings(_env_file=None, home=Path(folder), redis_url=url)
        async with open_storage(home) as storage, DiscordServer() as server, engine_of(storage) as engine:
            environment |= {"AVATAR_DISCORD_API_URL": server.api, "AVATAR_DISCORD_GATEWAY_URL": server.gateway}
            channel = server.dm(ANNA) if kind == "dm" else server.add("server", ANNA, BEN)
            lives = Lives("discord", environment, deaths)
            async with lives.going_on(), asyncio.timeout(PATIENCE):
                await server.until(lambda: server._sockets, 60)
                anna = Impatient(server, channel)
                while not (ready := server.find(ANNA, channel, "mia7 is ready")):
                    if server._sockets:
                        await anna.goes_on()
                    await asyncio.sleep(0.05)
                await answered(storage, "discord")
                steps = lives.bot.steps
            jobs = await trained_once(storage, engine)
            assert len(ready.files) == 4
            # Whatever a message ever said counts.
            told = ["\n".join(one.said) for one in server.messages.values()]
            for job in jobs:
                answers = [text for text in told if job.id in text and ("all good" in text or "mia7 is ready" in text)]
                opened = [text for text in told if job.id in text and "only you can open it" in text]
                assert (len(answers), len(opened)) in [(1, 0), (1, 1)], told
    assert server.faults == []
    return steps


class Impatient:
    """Anna, who does once more what came to nothing, as far as Discord shows her."""

    def __init__(self, server: DiscordServer, channel: int) -> None:
        self._server, self._channel = server, channel
        self._asked: Asked | None = None
        self._pressed: Asked | None = None

    async def goes_on(self) -> None:
        server = self._server
        if waiting := server.find(ANNA, self._channel, "only you can open it"):
            await self._once(lambda: server.press(ANNA, waiting, "Show"))
        elif checked := server.find(ANNA, self._channel, "6 photos, all good"):
            if checked.buttons:
                await self._once(lambda: server.press(ANNA, checked, "Train"))
        elif not any(server.find(ANNA, self._channel, text) for text in ("Thank you", "Checking", "it is on its way")):
            await self._train()

    async def _once(self, press: Callable[[], Coroutine[Any, Any, Asked]]) -> None:
        """Press, unless that is under way; again if nothing has come of it for a while."""
        if self._pressed is None or self._server.now() - self._pressed.at > 4:
            self._pressed = await press()

    async def _train(self) -> None:
        asked = self._asked
        if asked is not None and self._hopeful(asked):
            return
        given = {f"photo_{number}": photo for number, photo in enumerate(PHOTOS, start=1)}
        self._asked = await self._server.slash(
            ANNA, self._channel, "train", token="mia7", noun="woman", consent=True, **given
        )

    def _hopeful(self, asked: Asked) -> bool:
        """Whether Discord shows that the command may still come to something."""
        if asked.answer is None or asked.original is None:
            return self._server.now() - asked.at < 3  # then it says that the application did not respond
        answer = self._server.messages[asked.original]
        if answer.loading:
            return self._server.now() - asked.at < 8  # Discord gives it 15 minutes, and Anna some seconds
        return "Please send it again" not in answer.content


async def in_private(url: str, deaths: list[int]) -> int:
    return await on_discord("dm", url, deaths)


async def in_a_server(url: str, deaths: list[int]) -> int:
    return await on_discord("server", url, deaths)


@searching
@given(st.sampled_from([in_private, in_a_server]), lives)
def test_on_discord(redis: str, story: Story, moments: list[float]) -> None:
    steps = whole(story, redis)
    asyncio.run(story(redis, [1 + int(moment * steps) for moment in moments]))
