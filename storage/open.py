"""Opening the storage of a process: records, blobs, queue and events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

from storage.blobs import Blobs, FolderBlobs
from storage.connect import connect
from storage.embedded import EmbeddedRedis
from storage.events import Events, RedisEvents
from storage.folders import private_folder
from storage.queue import Queue
from storage.records import Records
from storage.settings import StorageSettings


@dataclass(frozen=True, slots=True)
class Storage:
    """The storage of a process."""

    records: Records
    blobs: Blobs
    queue: Queue
    events: Events


@asynccontextmanager
async def open_storage(settings: StorageSettings) -> AsyncIterator[Storage]:
    """The storage that the settings name; if they name no Redis, the embedded one, started and watched.

    Raises RedisUnavailable if it does not start.
    """
    async with AsyncExitStack() as stack:
        await asyncio.to_thread(private_folder, settings.home)
        if settings.redis_url:
            url = settings.redis_url.get_secret_value()
        else:
            server = EmbeddedRedis(settings.home / "redis")
            stack.push_async_callback(server.release)
            url = await server.ensure()
            watch = asyncio.create_task(server.watch(), name="watch Redis")
            stack.push_async_callback(_cancel, watch)
        records = await Records.open(settings.records_url)
        stack.push_async_callback(records.close)
        queue = Queue(url)
        stack.push_async_callback(queue.close)
        redis = connect(url)
        stack.push_async_callback(redis.aclose)
        yield Storage(records, FolderBlobs(settings.blob_folder), queue, RedisEvents(redis))


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
