import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from storage.embedded import EmbeddedRedis
from storage.queue import Queue
from storage.records import Records


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real embedded server that every test may empty, and none may kill."""
    embedded = EmbeddedRedis(tmp_path_factory.mktemp("redis"))
    yield asyncio.run(embedded.ensure())
    asyncio.run(embedded.release())


@pytest.fixture
async def redis_url(server: str) -> str:
    async with Redis.from_url(server) as redis:
        await redis.flushall()
    return server


@pytest.fixture
def records_url(tmp_path: Path) -> str:
    return f"sqlite+aiosqlite:///{tmp_path}/records.sqlite"


@pytest.fixture
async def records(records_url: str) -> AsyncIterator[Records]:
    opened = await Records.open(records_url)
    yield opened
    await opened.close()


@pytest.fixture
async def queue(redis_url: str) -> AsyncIterator[Queue]:
    opened = Queue(redis_url)
    yield opened
    await opened.close()
