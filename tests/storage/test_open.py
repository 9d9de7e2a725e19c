import asyncio
import os
import signal
from pathlib import Path

import pytest
from pydantic import SecretStr

from storage.events import Event
from storage.jobs import Imagine, JobKind
from storage.open import open_storage
from storage.settings import StorageSettings


async def test_all_parts_are_there_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    home = tmp_path / "home"
    settings = StorageSettings(home=home, redis_url=None, database_url=None, blob_url=None)
    async with open_storage(settings) as storage, open_storage(settings) as other:
        user = await storage.records.users.get_or_create("chat", "ann", "Ann")
        job = await storage.records.jobs.create(JobKind.IMAGINE, user.id, "chat", "room", Imagine("x"))
        assert await storage.queue.enqueue(job)
        await storage.events.publish(Event(job.id, 0, "queued", {"place": 1}))
        await storage.blobs.put("photos/a/0", b"x")
        os.kill(int((home / "redis/server.pid").read_text()), signal.SIGKILL)
        async with asyncio.timeout(20):
            assert (await anext(other.events.subscribe("0"))).facts == {"place": 1}
        assert await other.queue.reconcile(other.records) == [], "still queued"
        assert await other.blobs.get("photos/a/0") == b"x"
        assert (await other.records.jobs.get(job.id)) == job
    assert home.stat().st_mode & 0o777 == 0o700
    assert (home / "records.sqlite").stat().st_mode & 0o777 == 0o600
    with pytest.raises(OSError):
        await asyncio.open_unix_connection(str((home / "redis/address").read_text()))


async def test_a_redis_by_url_is_used_as_it_is(tmp_path: Path, redis_url: str) -> None:
    settings = StorageSettings(home=tmp_path / "home", redis_url=SecretStr(redis_url))
    async with open_storage(settings) as storage:
        assert await storage.queue.redis.ping()
    assert not (tmp_path / "home/redis").exists()
