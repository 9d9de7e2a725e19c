"""The bot's commands over real records, and what a person does with them."""

from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass

from bot.commands.commands import Commands
from bot.messages import Caller, Message, Reply, Upload
from storage.blobs import MemoryBlobs
from storage.events import MemoryEvents
from storage.records import Avatar, Job, Records
from tests.fakes.engine import Engine, NoQueue
from tests.until import until


async def album(photos: Iterable[bytes]) -> AsyncIterator[Upload]:
    async def chunks(data: bytes) -> AsyncIterator[bytes]:
        for start in range(0, len(data), 1000):
            yield data[start : start + 1000]

    for photo in photos:
        yield Upload(chunks(photo))


@dataclass
class Bot:
    """All of it together, and what a person does with it."""

    records: Records
    blobs: MemoryBlobs
    events: MemoryEvents
    queue: NoQueue
    commands: Commands
    engine: Engine

    def caller(self, name: str = "Anna", room: str = "studio") -> Caller:
        return Caller("chat", name.lower(), name, room)

    async def say(
        self, text: str, photos: int | Iterable[bytes] = 0, name: str = "Anna", room: str = "studio"
    ) -> Reply:
        sent = [b"photo %d" % n for n in range(photos)] if isinstance(photos, int) else photos
        return await self.commands.line(self.caller(name, room), text, album(sent), consent=True)

    async def press(self, action: str, name: str = "Anna", room: str = "studio") -> Reply:
        return await self.commands.press(self.caller(name, room), action)

    async def answer(self, reply: Reply) -> Message:
        """Let the engine work and compose the answer of the reply's job."""
        assert reply.job_id is not None, reply.message.text
        await self.engine.work_off()
        # Where the engine runs by itself, it may have taken the job already.
        return await self.commands.answer(await until(lambda: self.over(reply.job_id), within=5))

    async def over(self, job_id: str) -> Job | None:
        """The job if it has ended."""
        job = await self.records.jobs.get(job_id)
        return job if job and job.over else None

    async def avatar(self, token: str = "mia7", name: str = "Anna") -> Avatar:
        """A trained avatar."""
        checked = await self.answer(await self.say(f"/train {token} woman", 6, name=name))
        await self.answer(await self.press(checked.buttons[0].action, name=name))
        owner = await self.records.users.get_or_create("chat", name.lower(), name)
        return next(avatar for avatar in await self.records.avatars.owned_by(owner.id) if avatar.token == token)

    async def kept(self) -> list[str]:
        return list(await self.blobs.list())
