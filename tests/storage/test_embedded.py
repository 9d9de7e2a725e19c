import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from storage.connect import connect
from storage.embedded import EmbeddedRedis
from storage.errors import RedisUnavailable

STARTER = """
import asyncio, sys
from pathlib import Path
from storage.embedded import EmbeddedRedis

async def main(folder):
    embedded = EmbeddedRedis(Path(folder))
    print(await embedded.ensure(), flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await embedded.release()

asyncio.run(main(sys.argv[1]))
"""


@pytest.fixture
async def embedded(tmp_path: Path) -> AsyncIterator[EmbeddedRedis]:
    server = EmbeddedRedis(tmp_path / "redis")
    yield server
    await server.release()


async def start(folder: Path) -> tuple[asyncio.subprocess.Process, str]:
    command = (sys.executable, "-c", STARTER, str(folder))
    child = await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout
    return child, (await child.stdout.readline()).decode().strip()


def pid(server: EmbeddedRedis) -> int:
    return int((server.folder / "server.pid").read_text())


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        # In a container whose first process reaps nobody, the dead stay as zombies.
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2]
    except (ProcessLookupError, FileNotFoundError):
        return False


async def info(url: str) -> int:
    redis = connect(url)
    found = await redis.info("server")
    await redis.aclose()
    return int(found["process_id"])


async def test_the_server_is_private(embedded: EmbeddedRedis) -> None:
    redis = connect(await embedded.ensure())
    assert await redis.config_get("port") == {"port": "0"}
    assert await redis.config_get("appendonly") == {"appendonly": "yes"}
    await redis.aclose()
    assert embedded.folder.stat().st_mode & 0o777 == 0o700
    assert embedded.address.stat().st_mode & 0o777 == 0o700
    assert len(os.fsencode(embedded.address)) < 100


async def test_a_long_path_gets_a_short_private_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = tmp_path / "run"
    runtime.mkdir()
    long = tmp_path / ("d" * 120)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    first, second = EmbeddedRedis(long), EmbeddedRedis(long)
    url = await first.ensure()
    assert first.address.parent.stat().st_mode & 0o777 == 0o700 and len(url) < 110
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert await second.ensure() == url, "found where its launcher put it"
    address = first.address
    await first.release()
    await second.release()
    address.parent.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    with pytest.raises(RedisUnavailable, match="not a private folder"):
        await EmbeddedRedis(long).ensure()


async def test_two_starters_get_one_server_that_outlives_the_first(embedded: EmbeddedRedis) -> None:
    (one, url), (two, same), mine = await asyncio.gather(
        start(embedded.folder), start(embedded.folder), embedded.ensure()
    )
    assert url == same == mine
    server = pid(embedded)
    for child in (one, two):
        child.kill()
        await child.wait()
    assert await info(url) == server and alive(server)


async def test_the_last_one_out_stops_it_and_the_data_stay(embedded: EmbeddedRedis) -> None:
    child, url = await start(embedded.folder)
    await embedded.ensure()
    server = pid(embedded)
    await child.communicate(b"\n")
    assert alive(server), "we still use it"
    redis = connect(url)
    await redis.set("kept", "1")
    await redis.aclose()
    await embedded.release()
    assert not alive(server)
    redis = connect(await embedded.ensure())
    assert await redis.get("kept") == b"1"
    await redis.aclose()


async def test_killed_it_is_back_within_a_second_with_its_data(embedded: EmbeddedRedis) -> None:
    redis = connect(await embedded.ensure())
    other = EmbeddedRedis(embedded.folder)
    await other.ensure()
    watchers = [asyncio.create_task(server.watch()) for server in (embedded, other)]
    try:
        for round_ in range(3):
            await redis.rpush("list", round_)
            killed = pid(embedded)
            os.kill(killed, signal.SIGKILL)
            began = time.monotonic()
            assert await redis.lrange("list", 0, -1) == [str(n).encode() for n in range(round_ + 1)]
            assert time.monotonic() - began < 3  # about 0.2 s when the machine is not busy
            assert pid(embedded) != killed
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        await redis.aclose()
        await other.release()


async def test_a_server_that_cannot_start_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.embedded.get_binary_path", lambda: "/bin/false")
    embedded = EmbeddedRedis(tmp_path / "redis")
    with pytest.raises(RedisUnavailable, match="does not start"):
        await embedded.ensure()
    await embedded.release()
