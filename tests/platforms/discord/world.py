"""A simulated Discord with a bot on it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from bot.frontends.discord.bot import DiscordBot
from bot.frontends.discord.rooms import NAME
from storage.jobs import Imagine, JobKind
from storage.open import Storage
from storage.queue import work
from storage.records import Job
from tests.fakes.engine import Engine
from tests.platforms.discord_server import TOKEN, Asked, DiscordServer, Sent
from tests.until import until

ANNA, BEN = 11, 12
PHOTOS = [b"photo %d" % number for number in range(6)]


@dataclass
class World:
    """A Discord, a bot on it, and an engine that does as told."""

    server: DiscordServer
    storage: Storage
    engine: Engine
    bot: DiscordBot
    tasks: list[asyncio.Task[None]]

    async def start(self) -> None:
        self.bot = DiscordBot(
            self.storage,
            operators={f"{NAME}:{ANNA}"},
            clock=self.server.now,
            edit_every=0.05,
            sweep_every=0.1,
            guild_ready_timeout=0.05,
        )
        await self.bot.login(TOKEN)
        self.tasks = [asyncio.create_task(self.bot.connect()), asyncio.create_task(self.bot.delivery.run())]
        await self.bot.wait_until_ready()

    async def stop(self) -> None:
        for task in self.tasks[1:]:
            task.cancel()
        await self.bot.close()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def avatar(self, channel: int, user: int = ANNA) -> Sent:
        """A trained avatar called mia7; the message that says so."""
        asked = await self.server.slash(user, channel, "train")
        await self.server.until(lambda: asked.answer)
        await self.server.submit(asked, PHOTOS, token="mia7", noun="woman", consent=True)
        await self.server.press(user, await self.server.sees(user, channel, "6 photos, all good"), "Train")
        return await self.server.sees(user, channel, "mia7 is ready")

    async def acknowledged(self, asked: Asked) -> Asked:
        await self.server.until(lambda: asked.answer)
        return asked

    async def idle(self) -> None:
        """Return once nothing is left to send: an answer too many would have come by now."""
        records = self.storage.records

        async def answered() -> bool:
            return not (self.bot.outbox.busy or await records.jobs.active() or await records.jobs.undelivered(NAME))

        await until(answered)
        await self.bot.delivery.sweep()
        await self.bot.delivery.flush()
        await self.bot.delivery.post_notices()


@asynccontextmanager
async def engine_of(storage: Storage) -> AsyncIterator[Engine]:
    """An engine on the real queue that does as told."""
    engine = Engine(storage.records, storage.blobs, storage.events)  # type: ignore[arg-type]

    async def handle(job: Job) -> None:
        if claimed := await storage.records.jobs.claim(job.id):
            engine.seen.append(claimed)
            await engine.end(claimed)

    running = asyncio.create_task(work(dict.fromkeys(JobKind, handle), storage.records, storage.queue))
    yield engine
    engine.gate.set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def _imagine() -> Imagine:
    return Imagine("mia7 woman", (), 1, 3)


def _attached(photos: list[bytes]) -> dict[str, bytes]:
    return {f"photo_{number}": photo for number, photo in enumerate(photos, start=1)}
