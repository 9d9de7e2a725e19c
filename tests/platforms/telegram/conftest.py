"""A world for each test, whose server must have found no fault in the end."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from bot.settings import BotSettings
from storage.open import open_storage
from tests.fakes.engine import Engine
from tests.platforms.telegram.world import World
from tests.platforms.telegram_server import (
    UNLIMITED,
    Person,
    Server,
    served,
)


@pytest.fixture
async def world(tmp_path: Path, redis: str) -> AsyncIterator[World]:
    async with Redis.from_url(redis) as client:
        await client.flushall()
    server = Server(rates=UNLIMITED)
    settings = BotSettings(_env_file=None, home=tmp_path, redis_url=redis)
    async with open_storage(settings) as storage, served(server) as address:
        engine = Engine(storage.records, storage.blobs, storage.events)  # type: ignore[arg-type]
        world = World(server, address, storage, engine)
        await world.start()
        working = asyncio.create_task(engine.run())
        yield world
        await world.stop()
        engine.gate.set()
        engine.stopping.set()
        await asyncio.gather(working, return_exceptions=True)
    assert server.faults == []


@pytest.fixture
def anna(world: World) -> Person:
    return world.server.person("Anna")
