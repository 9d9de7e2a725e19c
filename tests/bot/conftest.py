"""A bot over real records, with the fake engine; and a chat page served over it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from aiohttp import web

from bot.commands.commands import Commands
from bot.frontends.chat.bot import Chat
from bot.frontends.chat.sessions import Signer
from storage.blobs import MemoryBlobs
from storage.events import MemoryEvents
from storage.open import Storage
from storage.records import Records
from tests.fakes.bot import Bot
from tests.fakes.engine import Engine, NoQueue, drawing


@pytest.fixture
async def bot(tmp_path: Path) -> AsyncIterator[Bot]:
    records = await Records.open(f"sqlite+aiosqlite:///{tmp_path}/records.sqlite")
    blobs, events, queue = MemoryBlobs(), MemoryEvents(), NoQueue()
    commands = Commands(records, blobs, queue, events)
    yield Bot(records, blobs, events, queue, commands, Engine(records, blobs, events))
    await records.close()


@pytest.fixture
async def chat(bot: Bot, tmp_path: Path) -> AsyncIterator[str]:
    """The address of a served chat; its delivery loop and the fake engine run."""
    storage = Storage(bot.records, bot.blobs, bot.queue, bot.events)  # type: ignore[arg-type]
    signer = Signer.at(tmp_path / "chat.key")
    served = Chat(storage, signer, operators=["chat:olga"], edit_every=0.05, sweep_every=0.05)
    runner = web.AppRunner(served.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    delivery, engine = asyncio.create_task(served.delivery.run()), asyncio.create_task(bot.engine.run())
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    delivery.cancel()
    bot.engine.gate.set()
    bot.engine.stopping.set()
    await asyncio.gather(delivery, engine, return_exceptions=True)
    await runner.cleanup()


@pytest.fixture
def draw() -> Callable[..., bytes]:
    return drawing
