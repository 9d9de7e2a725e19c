"""The whole story on each platform, over sockets: three processes, the real engine, and at the end nothing left of the
person. On a tiny base model of the real classes, and on the embedded one with its real recipe."""

import asyncio
import os
import sqlite3
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from redis.asyncio import Redis

from storage.embedded import EmbeddedRedis
from storage.open import Storage, open_storage
from storage.settings import StorageSettings
from tests.bot.test_chat import Browser
from tests.platforms import discord_server, telegram_server
from tests.platforms.discord_server import DiscordServer
from tests.platforms.telegram_server import Server, labels, said, served
from tests.until import until

pytestmark = pytest.mark.slow
PATIENCE = 1800.0
"""Seconds for a training with the real recipe, on a machine that is busy with other things too."""
PHOTOS = [(Path("bot/demo_album") / f"{number}.png").read_bytes() for number in range(1, 7)]
ANNA, BEN = 1011, 1012


@asynccontextmanager
async def process(*arguments: str, ready: bytes, **environment: str) -> AsyncIterator[str]:
    """One of our processes, once it says that it is ready; the last word of that."""
    running = await asyncio.create_subprocess_exec(
        sys.executable, "-m", *arguments, stdout=PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"} | environment
    )
    try:
        assert running.stdout
        async with asyncio.timeout(180):
            said = await running.stdout.readline()
        assert said.startswith(ready)
        yield said.decode().split()[-1]
    finally:
        running.terminate()
        async with asyncio.timeout(60):
            await running.wait()


@asynccontextmanager
async def at_work(
    home: Path, platform: str, base: dict[str, str], **environment: str
) -> AsyncIterator[tuple[Storage, str]]:
    """The storage with its Redis, an engine and a bot; where the bot says that it is."""
    async with AsyncExitStack() as stack:
        storage = await stack.enter_async_context(open_storage(StorageSettings(_env_file=None, home=home)))
        place = {"AVATAR_HOME": str(home)}
        await stack.enter_async_context(process("engine", "work", ready=b"The engine is ready", **place, **base))
        ready = {"telegram": b"The bot is at", "discord": b"Talking on Discord", "chat": b"The chat is open at"}
        where = await stack.enter_async_context(process("bot", platform, ready=ready[platform], **place, **environment))
        yield storage, where


async def nothing_is_left(storage: Storage, home: Path, *traces: str) -> None:
    """Wait until neither records nor blobs nor Redis hold any of this, in any key, value or file."""
    found: list[str] = []

    async def nothing() -> bool:
        found[:] = await left(storage, home, traces)
        return not found

    try:
        await until(nothing, within=30)
    except TimeoutError:
        pytest.fail(f"left after 30 s: {found}")


async def left(storage: Storage, home: Path, traces: Sequence[str]) -> list[str]:
    """Which of the traces are still there, and which blobs."""
    blobs = [key for key in await storage.blobs.list() if not key.startswith("priors/")]
    with sqlite3.connect(home / "records.sqlite") as records:
        records.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        dumped = "\n".join(records.iterdump())
    records.close()
    raw = (home / "records.sqlite").read_bytes()
    async with Redis(unix_socket_path=str(EmbeddedRedis(home / "redis").address)) as redis:
        held = [key + (await redis.dump(key) or b"") async for key in redis.scan_iter()]
    return blobs + [
        trace
        for trace in traces
        if trace in dumped or trace.encode() in raw or any(trace.encode() in one for one in held)
    ]


LONG = pytest.mark.skipif("AVATAR_TEST_LONG" not in os.environ, reason="set AVATAR_TEST_LONG: some minutes a platform")


@pytest.fixture(params=["tiny", pytest.param("embedded", marks=[pytest.mark.learning, LONG])])
def base(request: pytest.FixtureRequest, tiny_folder: Path) -> dict[str, str]:
    """The setting of the base model."""
    return {"AVATAR_BASE_MODEL": str(tiny_folder)} if request.param == "tiny" else {}


async def test_on_telegram(tmp_path: Path, base: dict[str, str]) -> None:
    server = Server()
    anna, ben, group = server.person("Annabella"), server.person("Ben"), server.group()
    async with served(server) as address:
        telegram = {"AVATAR_TELEGRAM_TOKEN": telegram_server.TOKEN, "AVATAR_TELEGRAM_API_URL": address}
        async with at_work(tmp_path, "telegram", base, **telegram) as (storage, _):
            await anna.send(PHOTOS, "/train cr7d man")
            await anna.press(await server.until(anna.id, "cr7d man: 6 photos. One question"), "They agreed")
            checked = await server.until(anna.id, "6 photos, all good", seconds=PATIENCE)
            await anna.press(checked, "Train")
            ready = await server.until(anna.id, "cr7d is ready", seconds=PATIENCE)
            [progress] = [texts for texts in server.told.values() if texts[0].startswith("Training cr7d")]
            assert len([text for text in progress if "step" in text]) > 1
            assert len([body for body in server.of_bot(anna.id) if "photo" in body]) >= 1
            assert labels(ready) == ["Imagine", "Delete", "Share here"]

            await anna.say("/imagine cr7d man in a suit --count 2")
            drawn = await server.until(anna.id, "Here you are", seconds=PATIENCE)
            assert labels(drawn) == ["Again", "V1", "V2", "Seed", "Delete", "Originals"]
            assert len([body for body in server.of_bot(anna.id) if said(body) == "cr7d man in a suit"]) == 1
            await anna.press(drawn, "V2")
            await server.until(anna.id, "Here you are", 2, seconds=PATIENCE)

            await anna.say("/share cr7d", chat=group)
            await server.until(group, "shares cr7d with this group")
            await ben.say("/imagine cr7d man in a suit --count 1", chat=group)
            theirs = await server.until(group, "Here you are", seconds=PATIENCE)
            assert said(theirs).startswith("Ben, ")
            await anna.say("/unshare cr7d", chat=group)
            await server.until(anna.id, "cr7d", count=1)
            async with asyncio.timeout(60):
                while "room" in {one["grantee_kind"] for one in await grants(tmp_path)}:
                    await asyncio.sleep(0.1)
            await ben.say("/imagine cr7d man in a suit --count 1", chat=group)
            await server.until(ben.id, "no avatar")

            await anna.say("/forget")
            await anna.press(await server.until(anna.id, "Forget you for good?"), "Erase everything")
            await server.until(anna.id, "You are forgotten")
            await nothing_is_left(storage, tmp_path, "cr7d", "Annabella", f"telegram:{anna.id}", "in a suit")
    assert server.faults == []


async def test_on_discord(tmp_path: Path, base: dict[str, str]) -> None:
    async with DiscordServer() as server:
        dm, studio = server.dm(ANNA), server.add("server", ANNA, BEN)
        discord = {
            "AVATAR_DISCORD_TOKEN": discord_server.TOKEN,
            "AVATAR_DISCORD_API_URL": server.api,
            "AVATAR_DISCORD_GATEWAY_URL": server.gateway,
        }
        async with at_work(tmp_path, "discord", base, **discord) as (storage, _):
            await server.until(lambda: server._sockets, 60)
            form = await server.slash(ANNA, dm, "train", token="cr7d")
            await server.until(lambda: form.answer)
            await server.submit(form, PHOTOS, noun="man", consent=True)
            checked = await server.until(lambda: server.find(ANNA, dm, "6 photos, all good"), PATIENCE)
            await server.press(ANNA, checked, "Train")
            ready = await server.until(lambda: server.find(ANNA, dm, "cr7d is ready"), PATIENCE)
            assert ready.files and ready.notified == [ANNA]
            progress = server.find(ANNA, dm, "Training of cr7d: done")
            assert progress and len([text for text in progress.said if "step" in text]) > 1

            await server.slash(ANNA, dm, "imagine", prompt="cr7d man in a suit", count=2)
            drawn = await server.until(lambda: server.find(ANNA, dm, "Here you are"), PATIENCE)
            assert len(drawn.files) == 2

            await server.slash(ANNA, studio, "share", token="cr7d")
            await server.sees(BEN, studio, "shares cr7d with this group")
            await server.slash(BEN, studio, "imagine", prompt="cr7d man in a suit", count=1)
            theirs = await server.until(lambda: server.find(BEN, studio, "Here you are"), PATIENCE)
            assert theirs.only_for == BEN and len(theirs.files) == 1
            await server.slash(ANNA, studio, "unshare", token="cr7d")
            async with asyncio.timeout(60):
                while await grants(tmp_path):
                    await asyncio.sleep(0.1)
            await server.slash(BEN, studio, "imagine", prompt="cr7d man in a suit", count=1)
            await server.sees(BEN, studio, "no avatar")

            await server.slash(ANNA, dm, "forget")
            await server.press(ANNA, await server.sees(ANNA, dm, "Forget you for good?"), "Erase everything")
            await server.sees(ANNA, dm, "You are forgotten")
            await nothing_is_left(storage, tmp_path, "cr7d", f"User {ANNA}", f"discord:{ANNA}", "in a suit")
        assert server.faults == []


async def test_in_the_chat(tmp_path: Path, base: dict[str, str]) -> None:
    """Through the page's own interface. Lines that people wrote are kept in the room, so both forget theirs."""
    chat = {"AVATAR_CHAT_HOST": "127.0.0.1", "AVATAR_CHAT_PORT": "0"}
    async with at_work(tmp_path, "chat", base, **chat) as (storage, address), AsyncExitStack() as stack:
        anna, ben = Browser(address), Browser(address)
        for browser, name in ((anna, "Annabella"), (ben, "Benedict")):
            await stack.enter_async_context(browser.session)
            await browser.enter(name)
        hers = await anna.listen()
        assert (await anna.say("/train cr7d man", PHOTOS))["job"]
        checked = await hers.until("6 photos, all good", PATIENCE)
        await anna.press(checked, "Train")
        ready = await hers.until("cr7d is ready", PATIENCE)
        assert len({text for text in hers.told if text.startswith("Training cr7d") and "step" in text}) > 1
        [sample, *_] = ready["body"]["pictures"]
        job, name = sample["key"].split("/")[-2:]
        avatar = sample["key"].split("/")[1]
        assert await anna.status(f"/api/rooms/studio/samples/{avatar}/{job}/{name}") == 200

        await anna.say("/imagine cr7d man in a suit --count 2")
        drawn = await hers.until("Here you are", PATIENCE)
        assert len(drawn["body"]["pictures"]) == 2
        pictures = [picture["key"] for picture in drawn["body"]["pictures"]]
        assert [await ben.status(f"/api/rooms/studio/{key}") for key in pictures] == [200, 200]

        asked = "/imagine cr7d man in a suit --count 1"
        assert "no avatar" in (await ben.say(asked))["private"]["text"]
        # Only now: a socket that nobody reads answers no ping, and is closed in the course of the training.
        his = await ben.listen()
        await anna.say("/share cr7d")
        await his.until("Annabella shares cr7d with this group")
        await ben.say(asked)
        theirs = await his.until("cr7d is Annabella's", PATIENCE)
        assert len(theirs["body"]["pictures"]) == 1
        await anna.say("/unshare cr7d")
        assert await grants(tmp_path) == []
        assert "no avatar" in (await ben.say(asked))["private"]["text"]

        for browser in (anna, ben):
            sure = (await browser.say("/forget"))["private"]
            told = await browser.press({"id": None, "body": sure}, "Erase everything and my")
            assert "You are forgotten" in told["private"]["text"]
        gone = [await ben.status(f"/api/rooms/studio/{key}") for key in pictures]
        assert gone == [404, 404]
        await nothing_is_left(storage, tmp_path, "cr7d", "nnabella", "enedict", "in a suit")


async def grants(home: Path) -> list[dict[str, str]]:
    """Who may draw what, by the records."""
    with sqlite3.connect(home / "records.sqlite") as records:
        found = [{"grantee_kind": kind} for (kind,) in records.execute("SELECT grantee_kind FROM grants")]
    records.close()
    return found
