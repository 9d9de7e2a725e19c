"""A simulated Telegram with a bot in it."""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any

from bot.frontends.telegram.bot import Telegram
from bot.frontends.telegram.edits import Gaps
from bot.frontends.telegram.pace import Pace, Rate
from bot.settings import BotSettings
from bot.table import COMMANDS
from storage.open import Storage
from tests.fakes.engine import Engine, drawing
from tests.platforms.telegram_server import (
    TOKEN,
    Person,
    Server,
    said,
)
from tests.until import until

QUIET = 0.2
"""Seconds after which an album is shown."""
FAST = Rate(10_000, 1.0)
"""No limit: the tests of the pace have slower rates."""
SPACES = [f"telegram/{name}" for name in ("inbox", "trays", "photos", "sent", "asker", "missed", "moved")]


@dataclass
class World:
    """A Telegram with a bot in it, over a real storage, with the test's engine at work. The bot takes its settings from
    here when it starts."""

    server: Server
    address: str
    storage: Storage
    engine: Engine
    quiet: float = QUIET
    gaps: Gaps = field(default_factory=lambda: Gaps(0.05, 0.05))
    pace: Pace = field(default_factory=lambda: Pace(FAST, FAST, FAST))
    settings: BotSettings = field(default_factory=lambda: BotSettings(_env_file=None))
    telegram: Telegram | None = None

    async def start(self) -> Telegram:
        """A bot process begins; with `stop` the same process ends as at SIGTERM."""
        self.telegram = telegram = Telegram(
            self.storage,
            TOKEN,
            self.address,
            quiet=self.quiet,
            gaps=self.gaps,
            pace=self.pace,
            operators=self.settings.operator_accounts,
            pauses=(0.2,) * 5,
            retry_pause=0.05,
            edit_every=0.05,
            sweep_every=0.05,
        )
        self._stack = AsyncExitStack()
        await self._stack.enter_async_context(telegram.running())
        self._running = asyncio.create_task(telegram.run(self.settings))
        return telegram

    async def stop(self) -> None:
        self._running.cancel()
        await asyncio.gather(self._running, return_exceptions=True)
        await self._stack.aclose()

    async def restart(self) -> Telegram:
        await self.stop()
        return await self.start()

    async def trained(self, person: Person, token: str = "mia7") -> None:
        """The person has this avatar."""
        before = len([body for body in self.server.of_bot(person.id) if f"{token} is ready" in said(body)])
        await person.send(PHOTOS[:6], f"/train {token} woman")
        asked = await self.server.until(person.id, f"{token} woman: 6 photos")
        await person.press(asked, "They agreed")
        await person.press(await self.server.until(person.id, "6 photos, all good"), f"Train {token}")
        await self.server.until(person.id, f"{token} is ready", before + 1)

    async def jobs(self, kind: type) -> list[Any]:
        return [job for job in self.engine.seen if isinstance(job.payload, kind)]

    async def notes(self, space: str) -> list[str]:
        return [note.key for note in await self.storage.records.notes.find(space)]

    async def has_notes(self, space: str, count: int) -> bool:
        """Whether a space has so many notes."""
        return len(await self.notes(space)) == count

    async def delivered(self, job_id: str) -> bool:
        """Whether the job was answered."""
        job = await self.storage.records.jobs.get(job_id)
        return job is not None and job.delivered is not None

    async def all_handled(self) -> bool:
        """Whether every update that the bot got is handled."""
        return not any(note.body for note in await self.storage.records.notes.find("telegram/inbox"))

    async def settled(self) -> None:
        """Return once nothing is left to send: an answer too many would have come by now."""
        telegram, records = self.telegram, self.storage.records
        assert telegram is not None

        async def idle() -> bool:
            working = self.server.unfetched or telegram.intake.busy
            return not (working or await records.jobs.active() or await records.jobs.undelivered("telegram"))

        await until(idle)
        await telegram.delivery.sweep()
        await telegram.delivery.flush()
        await telegram.delivery.post_notices()

    async def trays_settled(self) -> None:
        """Return once the trays of all photos so far are settled: one that comes now is settled after them."""
        late = self.server.person("Late")
        await late.hand_out([late.photo(PHOTOS[0])])
        await self.server.until(late.id, "1 photo so far")


PHOTOS = [drawing(seed) for seed in range(12)]
FOR_ALL = [name for name, command in COMMANDS.items() if not command.operators]
