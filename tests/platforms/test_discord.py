"""The Discord frontend: the real client over real sockets, against a Discord of our own."""

import asyncio
import io
import os
import random
import re
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp
import discord
import pytest
from PIL import Image

from bot.commands.commands import Completion
from bot.frontends.discord import rendering
from bot.frontends.discord.address import point_at
from bot.frontends.discord.bot import DiscordBot
from bot.frontends.discord.form import form
from bot.frontends.discord.registry import completions, slash_command
from bot.frontends.discord.rendering import FILE, notice, pictures, render
from bot.frontends.discord.rooms import NAME
from bot.language import say, speaking
from bot.messages import Button, Message, Progress, Reply, Shown
from bot.replies import jobs as replies
from bot.table import COMMANDS, Command, Option, OptionKind
from storage.blobs import MemoryBlobs
from storage.jobs import Imagine, JobKind, Train
from storage.open import Storage, open_storage
from storage.queue import work
from storage.records import Job
from storage.settings import StorageSettings
from tests.fakes.engine import TWO_FACES, Engine, drawing
from tests.platforms.discord_server import TOKEN, Asked, DiscordServer, Refused, Sent, check_form, check_message

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
        """Until every job is answered, and a moment longer for an answer too many."""
        async with asyncio.timeout(20):
            while await self.storage.records.unheld() or await self.storage.records.undelivered(NAME):
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.3)


@pytest.fixture
async def server() -> AsyncIterator[DiscordServer]:
    before = discord.http.Route.BASE, discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY
    async with DiscordServer() as served:
        point_at(served.api, served.gateway)
        yield served
    discord.http.Route.BASE, discord.gateway.DiscordWebSocket.DEFAULT_GATEWAY = before


@asynccontextmanager
async def engine_of(storage: Storage) -> AsyncIterator[Engine]:
    """An engine on the real queue that does as told."""
    engine = Engine(storage.records, storage.blobs, storage.events)  # type: ignore[arg-type]

    async def handle(job: Job) -> None:
        if claimed := await storage.records.claim(job.id):
            engine.seen.append(claimed)
            await engine.end(claimed)

    running = asyncio.create_task(work(dict.fromkeys(JobKind, handle), storage.records, storage.queue))
    yield engine
    engine.gate.set()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


@pytest.fixture
async def world(server: DiscordServer, tmp_path: Path) -> AsyncIterator[World]:
    async with open_storage(StorageSettings(home=tmp_path)) as storage, engine_of(storage) as engine:
        made = World(server, storage, engine, None, [])  # type: ignore[arg-type]
        await made.start()
        yield made
        await made.stop()
    assert server.faults == []


@pytest.fixture
def studio(server: DiscordServer) -> int:
    """A channel of a server where Anna and Ben are."""
    return server.add("server", ANNA, BEN)


# The main job


async def test_train_and_imagine_in_the_private_chat(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    ready = await world.avatar(dm)
    assert len(ready.files) == 4
    assert ready.notified == [ANNA]
    kept = sorted(await world.storage.blobs.list("photos/"))
    assert [await world.storage.blobs.get(key) for key in kept] == PHOTOS

    await server.slash(ANNA, dm, "imagine", prompt="mia7 woman in a suit", count=4, seed=5)
    drawn = await server.sees(ANNA, dm, "Here you are")
    assert [file["data"] for file in drawn.files] == [drawing(5 + number) for number in range(4)]
    assert drawn.notified == [ANNA]
    await server.press(ANNA, drawn, "Again")
    await server.until(lambda: len([one for one in server.seen(ANNA, dm) if "Here you are" in one.content]) == 2)
    await world.idle()
    # Progress is one message for each job, edited; each answer is a new one.
    said = [one.content for one in server.seen(ANNA, dm)]
    assert len([text for text in said if "Here you are" in text]) == 2
    assert len([text for text in said if text.startswith("Drawing: done")]) == 2
    assert [one for one in server.messages.values() if one.only_for] == []


async def test_progress_is_edited_on_change_only(world: World, studio: int) -> None:
    world.engine.gate.clear()
    asked = await world.server.slash(ANNA, studio, "train", token="mia7")
    await world.acknowledged(asked)
    await world.server.submit(asked, PHOTOS, noun="woman", consent=True)
    checked = await world.server.sees(ANNA, studio, "all good")
    assert checked.only_for == ANNA
    await world.server.press(ANNA, checked, "Train")
    progress = await world.server.sees(BEN, studio, "Training mia7: step 2 of 4")
    assert "▰▰▰▰▰▰▱▱▱▱▱▱ 50%" in progress.content
    before = len(progress.said)
    await asyncio.sleep(0.5)
    assert len(progress.said) == before
    assert all(one != other for one, other in zip(progress.said, progress.said[1:], strict=False))
    assert checked.components == []
    world.engine.gate.set()
    await world.server.sees(BEN, studio, "Training of mia7: done")


# Who sees what


async def test_pictures_are_private_until_posted(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit")
    drawn = await server.sees(ANNA, studio, "Here you are")
    assert drawn.only_for == ANNA and len(drawn.files) == 4
    assert server.seen(BEN, studio) == []

    await server.press(ANNA, drawn, "Post here")
    posted = await server.sees(BEN, studio, "Here you are")
    assert [file["data"] for file in posted.files] == [file["data"] for file in drawn.files]
    assert "Again" in posted.buttons and "Post here" not in posted.buttons
    await server.press(ANNA, drawn, "Post here")
    await server.sees(ANNA, studio, "posted here already")
    assert server.seen(BEN, studio) == [posted]
    # Ben has no right to Anna's avatar, and hears so alone.
    await server.press(BEN, posted, "Again")
    refused = await server.until(lambda: next((one for one in server.seen(BEN, studio) if one.only_for == BEN), None))
    assert "not shared with you here" in refused.content


async def test_what_could_not_be_posted_is_said_and_can_be_posted_later(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit")
    drawn = await server.sees(ANNA, studio, "Here you are")
    server.fail("POST /webhooks", 403)
    await server.press(ANNA, drawn, "Post here")
    await server.sees(ANNA, studio, "I could not post it here")
    assert server.find(BEN, studio, "Here you are") is None
    await server.press(ANNA, drawn, "Post here")
    await server.sees(BEN, studio, "Here you are")


async def test_what_went_wrong_is_for_its_person_alone(world: World, studio: int) -> None:
    server = world.server
    world.engine.errors[Train] = {"code": "out_of_memory", "facts": {}}
    asked = await server.slash(ANNA, studio, "train")
    await server.until(lambda: asked.answer)
    await server.submit(asked, PHOTOS, token="mia7", noun="woman", consent=True)
    await server.press(ANNA, await server.sees(ANNA, studio, "6 photos, all good"), "Train")
    notice = await server.sees(BEN, studio, "only you can open it")
    assert server.find(BEN, studio, "did not fit into the memory") is None
    await server.press(ANNA, notice, "Show me")
    failed = await server.sees(ANNA, studio, "did not fit into the memory")
    [job] = [job for job in world.engine.seen if isinstance(job.payload, Train)]
    assert f"Nothing was counted for this; it was job {job.id}." in failed.content and failed.only_for == ANNA


async def test_one_picture_and_another_prompt(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await world.storage.queue.offer(["inks"], 600)
    kept = {"style": "inks:0.6", "negative": "hat", "size": "256x128", "guidance": 3.5}
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit", count=3, seed=5, steps=9, **kept)
    drawn = await server.sees(ANNA, studio, "Here you are")
    assert list(drawn.buttons) == [
        "Again", "V1", "V2", "V3", "Seed", "Delete", "Post here", "Edit prompt", "U1", "U2", "U3"
    ]  # fmt: skip
    await world.stop()
    await world.start()
    await server.press(ANNA, drawn, "U3")
    alone = await server.until(lambda: next((one for one in server.seen(ANNA, studio) if len(one.files) == 1), None))
    assert alone.only_for == ANNA and alone.files[0]["data"] == drawing(7)
    form = await world.acknowledged(await server.press(ANNA, drawn, "Edit prompt"))
    # Whatever it was asked for in particular has a field of its own, before what everything has.
    fields = {one["component"]["custom_id"]: one["component"].get("value") for one in form.data["components"]}
    assert fields == {"prompt": "mia7 woman in a suit", **{name: str(value) for name, value in kept.items()}}
    await server.submit(form, prompt="mia7 woman on the moon", guidance="")
    await server.until(lambda: [job for job in world.engine.seen if isinstance(job.payload, Imagine)][1:])
    edited = world.engine.seen[-1]
    # A field that is emptied takes its default; what had no field is as it was.
    job = next(job for job in world.engine.seen if isinstance(job.payload, Imagine))
    assert isinstance(job.payload, Imagine) and (job.payload.count, job.payload.seed, job.payload.steps) == (3, 5, 9)
    assert edited.payload == replace(job.payload, prompt="mia7 woman on the moon", guidance=None)
    await server.submit(form, prompt=" ")
    assert (await server.sees(ANNA, studio, "What shall I draw?")).only_for == ANNA
    await server.press(ANNA, drawn, "V2")
    await server.until(lambda: world.engine.seen[-1].payload.original)
    await world.idle()
    varied = await server.sees(ANNA, studio, "Here you are")
    form = await world.acknowledged(await server.press(ANNA, varied, "Edit prompt"))
    await server.submit(form, prompt="mia7 woman, sad")
    await server.until(lambda: world.engine.seen[-1].payload.prompt == "mia7 woman, sad")
    original = (await world.storage.records.pictures(job.id))[1].key
    assert (world.engine.seen[-1].payload.original, world.engine.seen[-1].payload.steps) == (original, 9)
    await server.press(ANNA, drawn, "Post here")
    posted = await server.sees(BEN, studio, "Here you are")
    for label in ("U1", "Edit prompt"):
        before = len(server.seen(BEN, studio))
        await server.press(BEN, posted, label)
        await server.until(lambda before=before: len(server.seen(BEN, studio)) > before)
        assert "Only the person who started this" in server.seen(BEN, studio)[-1].content
    assert server.seen(BEN, studio)[-1].only_for == BEN


async def test_a_picture_is_varied_after_a_restart(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit", count=4, seed=5)
    drawn = await server.sees(ANNA, studio, "Here you are")
    [job] = [job for job in world.engine.seen if isinstance(job.payload, Imagine)]
    await world.stop()
    await world.start()
    await server.press(ANNA, drawn, "V3")
    varied = await server.until(
        lambda: next((one for one in server.seen(ANNA, studio) if "Here you are" in one.content and one != drawn), None)
    )
    assert varied.only_for == ANNA and len(varied.files) == 4
    assert world.engine.seen[-1].payload == replace(
        job.payload, seed=None, original=(await world.storage.records.pictures(job.id))[2].key
    )
    # Ben has no right to Anna's avatar, and hears so alone.
    await server.press(ANNA, drawn, "Post here")
    posted = await server.sees(BEN, studio, "Here you are")
    await server.press(BEN, posted, "V1")
    refused = await server.until(lambda: next((one for one in server.seen(BEN, studio) if one.only_for == BEN), None))
    assert "not shared with you here" in refused.content
    await world.storage.blobs.delete(world.engine.seen[-1].payload.original)
    await server.press(ANNA, drawn, "V3")
    await server.sees(ANNA, studio, "That picture was deleted")


async def test_the_seed_and_the_deletion_are_for_the_person_who_asked(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit", count=2, seed=5)
    drawn = await server.sees(ANNA, studio, "Here you are")
    await server.press(ANNA, drawn, "Post here")
    posted = await server.sees(BEN, studio, "Here you are")
    for label in ("Seed", "Delete"):
        before = len(server.seen(BEN, studio))
        await server.press(BEN, posted, label)
        await server.until(lambda before=before: len(server.seen(BEN, studio)) > before)
        assert "Only the person who started this" in server.seen(BEN, studio)[-1].content
    await server.press(ANNA, posted, "Seed")
    told = await server.sees(ANNA, studio, "/imagine mia7 woman in a suit --count 1 --seed 6")
    assert told.only_for == ANNA
    assert len(await world.storage.blobs.list("pictures/")) == 2
    await server.press(ANNA, drawn, "Delete")
    await server.sees(ANNA, studio, "pictures are deleted")
    assert not await world.storage.blobs.list("pictures/")
    await server.press(ANNA, posted, "Seed")
    await server.sees(ANNA, studio, "That picture was deleted")


async def test_a_style_is_completed_and_drawn_in(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await world.storage.queue.offer(["inks", "oils"], 600)
    assert await server.complete(ANNA, studio, "imagine", "style", "in") == ["inks", "inks:0.6"]
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit", style="inks", count=1)
    await server.sees(ANNA, studio, "Here you are")
    assert world.engine.seen[-1].payload.style == "inks"


async def test_a_training_in_a_server_shows_no_picture_to_others(world: World, studio: int) -> None:
    server = world.server
    asked = await world.acknowledged(await server.slash(ANNA, studio, "train"))
    await server.submit(asked, PHOTOS, token="mia7", noun="woman", consent=True)
    await server.press(ANNA, await server.sees(ANNA, studio, "all good"), "Train")
    waiting = await server.sees(BEN, studio, "only you can open it")
    assert waiting.notified == [ANNA]
    await server.press(BEN, waiting, "Show")
    assert (await server.sees(BEN, studio, "Only the person who started this")).only_for == BEN
    await server.press(ANNA, waiting, "Show")
    shown = await server.sees(ANNA, studio, "mia7 is ready")
    assert shown.only_for == ANNA and len(shown.files) == 4
    await world.idle()
    assert all(one.files == [] for one in server.seen(BEN, studio))


async def test_a_private_channel_is_followed_in_the_private_chat(world: World) -> None:
    server, private = world.server, world.server.add("private", ANNA, BEN)
    asked = await world.acknowledged(await server.slash(ANNA, private, "train"))
    await server.submit(asked, PHOTOS, token="mia7", noun="woman", consent=True)
    await server.press(ANNA, await server.sees(ANNA, private, "all good"), "Train")
    ready = await server.sees(ANNA, server.dm(ANNA), "mia7 is ready")
    assert len(ready.files) == 4
    assert await server.sees(ANNA, private, "in our private chat")
    await server.slash(ANNA, private, "imagine", prompt="mia7 woman")
    assert (await server.sees(ANNA, private, "Here you are")).only_for == ANNA
    assert server.seen(BEN, private) == []
    await world.idle()
    assert not [one for one in server.requests if one[2] == 403]


async def test_where_the_bot_may_not_write(world: World, studio: int, caplog: pytest.LogCaptureFixture) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    server.channels[studio].closed = True
    for closed, seen_in in ((False, dm), (True, None)):
        server.channels[dm].closed = closed
        job = await world.storage.records.create_job(
            JobKind.IMAGINE,
            (await world.storage.records.user(NAME, str(ANNA), "User 11")).id,
            NAME,
            f"server/{studio}",
            _imagine(),
        )
        await world.storage.queue.enqueue(job)
        await world.idle()
        ended = await world.storage.records.job(job.id)
        assert ended and ended.delivered
        assert (server.find(ANNA, dm, job.id) is not None) is (seen_in == dm)
    assert "nobody could be told" in caplog.text
    # It does not try again and again, but tells her as soon as she is there.
    assert len([one for one in server.requests if one[2] == 403]) == 3
    await server.slash(ANNA, studio, "help")
    missed = await server.sees(ANNA, studio, "only you can open it")
    await server.press(ANNA, missed, "Show")
    await server.sees(ANNA, studio, "Here you are")
    await server.press(ANNA, missed, "Show")
    await asyncio.sleep(0.3)
    assert len([one for one in server.seen(ANNA, studio) if "only you can open it" in one.content]) == 1


def _imagine() -> Imagine:
    return Imagine("mia7 woman", (), 1, 3)


# Time, restarts, broken lines


@pytest.mark.parametrize("place", ["dm", "server", "closed", "private"])
async def test_a_reply_finds_its_person_without_the_interaction(world: World, studio: int, place: str) -> None:
    """Once its token is worth nothing, in the private chat; and if that is closed, the person hears at least."""
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    where = {"dm": dm, "private": server.add("private", ANNA, BEN)}.get(place, studio)
    server.channels[dm].closed = place == "closed"
    before = len(server.seen(ANNA, dm))
    (await server.slash(ANNA, where, "avatars")).expired = True
    if place == "closed":
        lost = await server.sees(BEN, studio, "I could not show you my answer")
        assert lost.notified == [ANNA] and "mia7" not in lost.content
        return
    listed = await server.sees(ANNA, dm, "mia7 · woman · ready")
    assert "Change mia7" in listed.buttons and len(listed.files) == 1
    (await server.slash(ANNA, where, "export", token="mia7")).expired = True
    assert [file["data"] for file in (await server.sees(ANNA, dm, "what I learned of mia7")).files] == [b"weights"]
    (await server.slash(ANNA, where, "share", token="mia7")).expired = True
    if place == "server":
        await server.sees(BEN, studio, "shares mia7 with this group")
    else:
        await server.sees(ANNA, dm, "share mia7" if place == "dm" else "shares mia7")
    await world.idle()
    # One for each, but for what everybody was to read.
    assert len(server.seen(ANNA, dm)) - before == (2 if place == "server" else 3)


async def test_a_restart_in_the_middle(world: World, studio: int) -> None:
    server = world.server
    world.engine.gate.clear()
    asked = await world.acknowledged(await server.slash(ANNA, studio, "train"))
    await world.stop()
    # The form was still open, and the button under the check is older than the bot.
    await world.start()
    await server.submit(asked, PHOTOS, token="mia7", noun="woman", consent=True)
    checked = await server.sees(ANNA, studio, "all good")
    await world.stop()
    await world.start()
    await server.press(ANNA, checked, "Train")
    progress = await server.sees(ANNA, studio, "Training mia7: step 2 of 4")
    await world.stop()
    world.engine.gate.set()
    await world.start()
    await server.sees(ANNA, studio, "only you can open it")
    await world.idle()
    assert progress.content.startswith("Training of mia7: done")
    assert len([one for one in server.seen(BEN, studio) if "only you can open it" in one.content]) == 1
    assert len([job for job in world.engine.seen if job.kind == JobKind.TRAIN]) == 1


async def test_an_old_token_is_not_used(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await world.idle()
    world.engine.pause = 0.4
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit")
    hidden = await server.sees(ANNA, studio, "Drawing 4 pictures: step 1 of 4")
    assert hidden.only_for == ANNA
    server.turn(16 * 60)
    # The ordinary message that takes over says nothing private.
    moved = await server.until(lambda: next(iter(server.seen(BEN, studio)), None))
    assert "Drawing 4 pictures" in moved.content and "suit" not in moved.content and moved.only_for is None
    waiting = await server.sees(BEN, studio, "only you can open it")
    assert waiting.notified == [ANNA] and not waiting.files
    assert moved.content.startswith("Drawing: done")
    world.engine.pause = 0
    await server.press(ANNA, waiting, "Show")
    shown = await server.sees(ANNA, studio, "Here you are")
    assert len(shown.files) == 4 and "Post here" in shown.buttons
    assert not [one for one in server.requests if one[2] == 401]


async def test_a_lost_socket_is_resumed(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    await server.hang_up()
    await server.until(lambda: not server._sockets)
    # Said while nobody listens, and replayed afterwards.
    await server.slash(ANNA, dm, "help")
    assert "I learn a person" in (await server.sees(ANNA, dm, "I learn a person")).content
    assert (server.identified, server.resumed) == (1, 1)


async def test_a_socket_that_is_lost_without_a_word_is_resumed(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    server.lose_sockets()
    await server.slash(ANNA, dm, "help")
    await server.sees(ANNA, dm, "I learn a person")
    assert (server.identified, server.resumed) == (1, 1)


async def test_after_a_session_that_discord_forgot_nothing_is_lost_or_doubled(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    world.engine.pause = 0.1
    await world.acknowledged(await server.slash(ANNA, dm, "imagine", prompt="mia7 woman", count=1))
    await server.hang_up(resumable=False)
    drawn = await server.sees(ANNA, dm, "Here you are")
    await server.until(lambda: server._sockets)
    await server.press(ANNA, drawn, "Again")
    await server.until(lambda: len([job for job in world.engine.seen if job.kind == JobKind.IMAGINE]) == 2)
    await world.idle()
    answers = [one for one in server.seen(ANNA, dm) if "Here you are" in one.content]
    assert [len(one.files) for one in answers] == [1, 1]
    assert (server.identified, server.resumed) == (2, 0)


async def test_an_event_that_comes_twice(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    await server.slash(ANNA, dm, "imagine", prompt="mia7 woman")
    await server.repeat()
    await server.sees(ANNA, dm, "Here you are")
    await world.idle()
    assert len([job for job in world.engine.seen if job.kind == JobKind.IMAGINE]) == 1
    assert len([one for one in server.seen(ANNA, dm) if "Here you are" in one.content]) == 1


@pytest.mark.parametrize("after", [False, True])
async def test_errors_on_the_way_lose_and_double_nothing(world: World, after: bool) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    server.fail("POST /interactions/.*/callback", 500, after=after)
    server.fail("PATCH /webhooks/.*", 429)
    server.fail(f"POST /channels/{dm}/messages", 500, times=2, after=after)
    server.fail(f"POST /channels/{dm}/messages", 429)
    server.fail(f"PATCH /channels/{dm}/messages/.*", 500)
    await server.slash(ANNA, dm, "train", token="mia7", noun="woman", consent=True, **_attached(PHOTOS))
    await server.sees(ANNA, dm, "6 photos, all good")
    await world.idle()
    assert len([one for one in server.seen(ANNA, dm) if "all good" in one.content]) == 1
    assert server._failures == []


@pytest.mark.parametrize("after", [False, True])
async def test_a_broken_line_moves_no_answer_to_where_others_read(world: World, studio: int, after: bool) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    world.engine.pause = 0.2
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    hidden = await server.sees(ANNA, studio, "Drawing 4 pictures: step 1 of 4")
    # More than the tries of one edit, so that a sweep has to ask again too.
    server.fail("PATCH /webhooks/.*", None, times=8, after=after)
    drawn = await server.sees(ANNA, studio, "Here you are")
    await world.idle()
    assert drawn is hidden and len(drawn.files) == 4
    assert server.seen(BEN, studio) == [] and server._failures == []


async def test_an_answer_waits_for_a_command_that_discord_is_slow_to_take(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    # The library waits for one second, and then for three, where Discord waits for three in all.
    server.fail("POST /interactions/.*/callback", 500, times=2)
    server.fail("PATCH /webhooks/.*", 500, times=2)
    asked = await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    assert (await server.sees(ANNA, studio, "Here you are")).id == asked.original
    assert server.seen(BEN, studio) == [] and server._failures == []


async def test_a_form_whose_line_breaks(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    server.fail("POST /interactions/.*/callback", None)
    server.fail("POST /interactions/.*/callback", None, after=True)
    asked = await world.acknowledged(await server.slash(ANNA, dm, "train"))
    assert asked.answer == 9
    await server.until(lambda: not server._failures)


async def test_an_answer_that_was_sent_but_not_written_down(world: World, studio: int) -> None:
    """As if the bot was killed between the two, and came back when Discord had forgotten the nonce."""
    server, records = world.server, world.storage.records
    user = await records.user(NAME, str(ANNA), "User 11")
    job = await records.create_job(JobKind.IMAGINE, user.id, NAME, f"server/{studio}", _imagine())
    answer = Message("The drawing is cancelled.", job=job.id)
    write, lost = records.note_set, RuntimeError("killed")

    async def killed(*_: object) -> None:
        raise lost

    records.note_set = killed  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError, match="killed"):
        await world.bot.outbox.post(job.room, answer, dedupe=job.id)
    records.note_set = write  # type: ignore[method-assign]
    for _ in range(2):
        server.turn(3600)
        ref = await world.bot.outbox.post(job.room, answer, dedupe=job.id)
        assert [f"{job.room}/{one.id}" for one in server.seen(ANNA, studio)] == [ref]
    await records.request_cancel(job.id)


async def test_after_a_restart_an_open_interaction_goes_on(world: World, studio: int) -> None:
    """While its token is fresh, nobody has to be told in front of all that an answer is there."""
    server = world.server
    await world.avatar(server.dm(ANNA))
    world.engine.pause = 0.3
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    hidden = await server.sees(ANNA, studio, "Drawing 4 pictures: step 1 of 4")
    await world.stop()
    await world.start()
    drawn = await server.sees(ANNA, studio, "Here you are")
    await world.idle()
    assert drawn is hidden and len(drawn.files) == 4
    assert server.seen(BEN, studio) == []
    assert len([text for text in drawn.said if "Here you are" in text]) == 1


async def test_an_answer_that_was_shown_but_not_marked_as_delivered(world: World, studio: int) -> None:
    """As if the bot was killed between the two: what tells the progress must not take the answer's place again."""
    server = world.server
    await world.avatar(server.dm(ANNA))
    marked, killed = world.storage.records.mark_delivered, asyncio.Event()

    async def dying(job_id: str) -> bool:
        if killed.is_set():
            return await marked(job_id)
        killed.set()
        raise RuntimeError("killed")

    world.storage.records.mark_delivered = dying  # type: ignore[method-assign]
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    await killed.wait()
    await world.stop()
    await world.start()
    await world.idle()
    drawn = await server.sees(ANNA, studio, "Here you are")
    assert len(drawn.files) == 4 and drawn.said[-1] == drawn.content
    assert len([text for text in drawn.said if "Here you are" in text]) == 1
    assert server.seen(BEN, studio) == []


async def test_progress_that_is_late_does_not_replace_the_answer(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    asked = await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    drawn = await server.sees(ANNA, studio, "Here you are")
    await world.idle()
    job = world.engine.seen[-1]
    late = replies.under_way(job, None, "step", {"step": 3, "steps": 4, "seconds_left": 1.0})
    for message in (late, replies.ended(job, None)):
        await world.bot.outbox.edit(f"server/{studio}/@{job.id}", message)
    assert drawn.id == asked.original and drawn.content == drawn.said[-1] and "Here you are" in drawn.content
    assert server.seen(BEN, studio) == []


@pytest.mark.parametrize("begun", [False, True])
async def test_who_was_acknowledged_is_not_left_alone(world: World, studio: int, begun: bool) -> None:
    """As if the bot was killed between an acknowledgement and its answer: before the job was written down, or after."""
    server, run = world.server, world.bot.commands.run
    await world.avatar(server.dm(ANNA))
    world.engine.pause = 0.2

    async def killed(*given: object) -> Reply:
        if begun:
            await run(*given)  # type: ignore[arg-type]
        await asyncio.Event().wait()
        raise AssertionError

    world.bot.commands.run = killed  # type: ignore[method-assign, assignment]
    asked = await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    async with asyncio.timeout(20):
        while not await world.storage.records.notes("discord/open") or (begun and not world.engine.seen[2:]):
            await asyncio.sleep(0.02)
    for task in set().union(*world.bot.outbox._conversing.values()):
        task.cancel()
    await world.stop()
    server.fail("PATCH /webhooks/.*", None, times=4)
    await world.start()
    if begun:
        assert (await server.sees(ANNA, studio, "Here you are")).id == asked.original
    else:
        assert (await server.sees(ANNA, studio, "Please send it again")).id == asked.original
    await world.idle()
    assert server.seen(BEN, studio) == []
    assert await world.storage.records.notes("discord/open") == []


async def test_a_deleted_progress_message(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    world.engine.pause = 0.2
    await server.slash(ANNA, dm, "imagine", prompt="mia7 woman")
    progress = await server.sees(ANNA, dm, "Drawing 4 pictures: step 1 of 4")
    del server.messages[progress.id]
    assert len((await server.sees(ANNA, dm, "Here you are")).files) == 4
    path = f"/api/v10/channels/{dm}/messages/{progress.id}"
    assert len([one for one in server.requests if one[1:] == (path, 404)]) == 1


async def test_a_progress_message_that_its_person_put_away(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    world.engine.pause = 0.2
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    progress = await server.sees(ANNA, studio, "Drawing 4 pictures: step 1 of 4")
    del server.messages[progress.id]
    assert len((await server.sees(ANNA, studio, "Here you are")).files) == 4
    assert server.seen(BEN, studio) == []


async def test_many_people_at_once_are_acknowledged_in_time(world: World) -> None:
    server = world.server
    asked = [await server.slash(user, server.dm(user), "status") for user in range(100, 160)]
    for one in asked:
        await server.until(lambda one=one: one.answer)
        await server.sees(one.user, one.channel, "Nothing of yours is under way")
    assert max(one.delay for one in asked) < 3
    assert all(len(server.seen(one.user, one.channel)) == 1 for one in asked)


# Photos


def _attached(photos: list[bytes]) -> dict[str, bytes]:
    return {f"photo_{number}": photo for number, photo in enumerate(photos, start=1)}


async def test_photos_as_options(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    given = {"token": "mia7", "noun": "woman", "consent": True}
    for wrong, said in (
        ({**given, **_attached(PHOTOS[:4])}, "5 to 10 photos and got 4"),
        ({**given, "consent": False, **_attached(PHOTOS)}, "please tick the box"),
        ({**given, **_attached([*PHOTOS, b""])}, "#7 is an empty file"),
        ({"token": "mia7", **_attached(PHOTOS)}, "still needs noun"),
    ):
        await server.slash(ANNA, dm, "train", **wrong)
        await server.sees(ANNA, dm, said)
    assert list(await world.storage.blobs.list("photos/")) == []
    world.engine.verdicts[2] = TWO_FACES
    await server.slash(ANNA, dm, "train", **given, **_attached([*PHOTOS, *PHOTOS[:4]]))
    await server.sees(ANNA, dm, "10 photos: 9 good, #2 shows two faces")


async def test_a_photo_whose_link_is_dead(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    server.fail("GET /attachments/.*", 404, times=3)
    await server.slash(ANNA, dm, "train", token="mia7", noun="woman", consent=True, **_attached(PHOTOS))
    await server.sees(ANNA, dm, "The upload broke off")
    assert list(await world.storage.blobs.list("photos/")) == []


async def test_a_huge_file_is_not_fetched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    upload = server._upload
    monkeypatch.setattr(server, "_upload", lambda data: upload(data) | {"size": 500 * 1024 * 1024})
    await server.slash(ANNA, dm, "train", token="mia7", noun="woman", consent=True, **_attached(PHOTOS))
    await server.sees(ANNA, dm, "#1 is larger than 20 MB")
    assert not [one for one in server.requests if one[1].startswith("/attachments")]


# The table


async def test_exactly_the_table_is_registered(world: World) -> None:
    assert list(world.server.commands) == list(COMMANDS)
    for command in world.server.commands.values():
        assert command["description"] == COMMANDS[command["name"]].description
        shown = command["contexts"], command["integration_types"], command["default_member_permissions"]
        administrator = str(discord.Permissions(administrator=True).value)
        for_operators = COMMANDS[command["name"]].operators
        assert shown == (([0], [0], administrator) if for_operators else ([0, 1, 2], [0, 1], None))
        names = {re.sub(r"_\d+$", "s", option["name"]) for option in command["options"]}
        assert names == {option.name for option in COMMANDS[command["name"]].options}


async def test_somebody_is_answered_in_their_language(world: World, studio: int) -> None:
    server = world.server
    server.locales[ANNA] = "de"
    for command in server.commands.values():
        with speaking("de"):
            assert command["description_localizations"] == {"de": say(COMMANDS[command["name"]].description)}
    asked = await server.slash(ANNA, studio, "train")
    await server.until(lambda: asked.answer)
    labels = [one["label"] for one in asked.data["components"]]
    assert labels == ["Name", "Was die Person ist", "Fotos", "Einwilligung"]
    await server.submit(asked, PHOTOS, token="mia7", noun="woman", consent=True)
    await server.press(ANNA, await server.sees(ANNA, studio, "6 Fotos, alle gut"), "mia7 lernen")
    notice = await server.sees(ANNA, studio, "Deine Antwort ist da")
    # The delivery loop says it in the language in which it was asked for, whatever process it is.
    await server.press(ANNA, notice, "Zeig es mir")
    shown = await server.sees(ANNA, studio, "mia7 ist fertig: 400 Schritte")
    assert "-# Auftrag" in shown.content and "Hier zeigen" in shown.buttons
    await server.slash(BEN, studio, "status")
    await server.sees(BEN, studio, "Nothing of yours is under way")


async def test_without_operators_there_is_no_command_for_them(world: World) -> None:
    bot = DiscordBot(world.storage, operators={"telegram:11"})
    assert {command.name for command in bot.tree.get_commands()} == COMMANDS.keys() - {"operator"}


async def test_an_operators_word_reaches_a_channel_once_and_in_the_open(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman", count=1)
    await server.sees(ANNA, studio, "Here you are")
    await server.slash(ANNA, studio, "operator", duty="broadcast", text="I rest at ten")
    await server.sees(BEN, studio, "A word from those who run this bot: I rest at ten")
    await asyncio.sleep(0.3)  # several sweeps
    assert len([one for one in server.seen(BEN, studio) if "I rest at ten" in one.content]) == 1


async def test_the_operator_is_known(world: World, studio: int) -> None:
    await world.server.slash(ANNA, studio, "operator", duty="queue")
    seen = await world.server.sees(ANNA, studio, "Nothing waits and nothing runs. I'm at work.")
    assert seen.only_for == ANNA
    await world.server.slash(BEN, studio, "operator", duty="pause")
    refused = await world.server.until(lambda: next(iter(world.server.seen(BEN, studio)), None))
    assert refused.only_for == BEN
    assert not await world.storage.records.paused()


async def test_files_are_for_their_person_alone(world: World, studio: int, monkeypatch: pytest.MonkeyPatch) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "export", token="mia7")
    exported = await server.sees(ANNA, studio, "what I learned of mia7")
    assert exported.only_for == ANNA
    assert [(file["filename"], file["data"]) for file in exported.files] == [("mia7.safetensors", b"weights")]
    await server.slash(ANNA, server.dm(ANNA), "mydata")
    [data] = (await server.sees(ANNA, server.dm(ANNA), "I keep 1 avatar")).files
    assert (data["filename"], b"mia7" in data["data"]) == ("mydata.json", True)
    assert server.seen(BEN, studio) == []

    monkeypatch.setattr(rendering, "FILES", len(b"weights") - 1)
    await server.slash(ANNA, studio, "export", token="mia7")
    assert (await server.sees(ANNA, studio, "Whoever runs me can hand it out")).files == []


@pytest.mark.parametrize(("limit", "fits"), [(1024 * 1024, False), (12 * 1024 * 1024, True)])
async def test_files_are_as_large_as_the_interaction_allows(
    world: World, studio: int, monkeypatch: pytest.MonkeyPatch, limit: int, fits: bool
) -> None:
    """What is too large comes smaller, or it is said that it does not come."""
    server = world.server
    server.channels[studio].limit = limit
    await world.avatar(server.dm(ANNA))
    Image.effect_noise((1950, 1950), 90).convert("RGB").save(file := io.BytesIO(), "PNG", compress_level=0)
    large = file.getvalue()
    assert FILE < len(large) < 12 * 1024 * 1024
    monkeypatch.setattr("tests.fakes.engine.drawing", lambda seed: large)
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman", count=1)
    drawn = await server.sees(ANNA, studio, "Here you are")
    await server.press(ANNA, drawn, "Post here")
    posted = await server.sees(BEN, studio, "Here you are")
    for message in (drawn, posted):
        [one] = message.files
        assert len(one["data"]) <= limit and (one["data"] == large) == fits
        with Image.open(io.BytesIO(one["data"])) as picture:
            assert picture.width == (1950 if fits else 975)
    [adapter] = [key for key in await world.storage.blobs.list() if key.startswith("adapters/")]
    await world.storage.blobs.put(adapter, large)
    await server.slash(ANNA, studio, "export", token="mia7")
    if fits:
        [whole] = (await server.sees(ANNA, studio, "what I learned of mia7")).files
        assert whole["data"] == large
    else:
        assert (await server.sees(ANNA, studio, "more than the 1 MB that this chat takes")).files == []


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_files_that_discord_finds_too_large_are_not_lost(
    world: World, studio: int, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """They come smaller, or the person hears that they are kept and how to get them; through an interaction too."""
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    monkeypatch.setattr(rendering, "_LIGHTER", FILE // 900)
    server.fail(f"POST /channels/{dm}/messages", 413, times)
    job = await world.storage.records.create_job(
        JobKind.IMAGINE, (await world.storage.records.user(NAME, str(ANNA), "Anna")).id, NAME, f"dm/{dm}", _imagine()
    )
    await world.storage.queue.enqueue(job)
    drawn = await server.sees(ANNA, dm, "Here you are")
    await world.idle()
    if times == 1:
        [one] = drawn.files
        assert one["filename"].endswith(".jpg") and len(one["data"]) <= 900
        assert "too large" not in drawn.content
        return
    assert drawn.files == [] and "They are kept, and [Show me] tries once more" in drawn.content.replace("\\", "")
    assert "Show me" in drawn.buttons
    if times == 2:
        assert {"Again", "Seed"} <= set(drawn.buttons)
        server.fail("PATCH /webhooks", 413, times=2)
        await server.press(ANNA, drawn, "Show me")
        again = await server.until(lambda: next((one for one in server.seen(ANNA, dm) if one.id > drawn.id), None))
        assert again.files == [] and "Show me" in again.buttons
        await server.press(ANNA, again, "Show me")
        shown = await server.until(lambda: next((one for one in server.seen(ANNA, dm) if one.id > again.id), None))
        assert [file["data"] for file in shown.files] == [drawing(3)]
    await server.slash(ANNA, studio, "export", token="mia7")
    exported = await server.sees(ANNA, studio, "what I learned of mia7")
    assert [file["data"] for file in exported.files] == [b"weights"]
    server.fail("PATCH /webhooks", 413, times=2)
    await server.slash(ANNA, studio, "export", token="mia7")
    refused = await server.sees(ANNA, studio, "send that again in another channel")
    assert refused.files == [] and refused.only_for == ANNA


async def test_a_share_is_for_the_whole_server(world: World, studio: int) -> None:
    await world.avatar(world.server.dm(ANNA))
    await world.server.slash(ANNA, studio, "share", token="mia7")
    await world.server.sees(BEN, studio, "shares mia7 with this group")
    elsewhere = world.server.add("server", ANNA, BEN)
    await world.server.slash(BEN, elsewhere, "imagine", prompt="mia7 woman")
    assert (await world.server.sees(BEN, elsewhere, "Here you are")).only_for == BEN
    await world.server.slash(BEN, world.server.dm(BEN), "imagine", prompt="mia7 woman")
    await world.server.sees(BEN, world.server.dm(BEN), "no avatar")
    await world.server.slash(ANNA, world.server.dm(ANNA), "share", token="mia7")
    await world.server.sees(ANNA, world.server.dm(ANNA), "only you and I")


async def test_who_is_forgotten_leaves_no_note(world: World, studio: int) -> None:
    server, records = world.server, world.storage.records
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    drawn = await server.sees(ANNA, studio, "Here you are")
    await server.press(ANNA, drawn, "Post here")
    await server.sees(BEN, studio, "Here you are")
    await world.bot.outbox.ledger.miss(str(BEN), "another", f"{NAME}:{BEN}")
    await world.idle()
    assert len(await records.notes("discord/sent")) > 2
    await server.slash(ANNA, studio, "forget")
    await server.press(ANNA, await server.sees(ANNA, studio, "Forget you for good?"), "Erase everything")
    await server.sees(ANNA, studio, "You are forgotten")
    assert await records.notes("discord/sent") == []
    assert [note.key for note in await records.notes("discord/missed")] == [f"{BEN}|another"]
    assert not await records.knows(NAME, str(ANNA))


async def test_completions(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    assert await server.complete(ANNA, dm, "imagine", "prompt", "mi") == ["mia7 woman"]
    assert await server.complete(BEN, dm, "imagine", "prompt", "mi") == []
    assert await server.complete(ANNA, dm, "delete", "token", "") == ["mia7"]
    assert "woman" in await server.complete(ANNA, dm, "train", "noun", "wo")


def test_completing_the_last_word() -> None:
    known = [Completion("mia7", "woman"), Completion("max3", "man"), Completion("m" * 16, "w" * 90)]
    assert [one.value for one in completions(OptionKind.TEXT, "mia7 woman with m", known)] == [
        "mia7 woman with mia7",
        "mia7 woman with max3",
        f"mia7 woman with {'m' * 16}",
    ]
    assert completions(OptionKind.TEXT, "x" * 100 + " m", known) == []
    assert len(completions(OptionKind.WORD, "", [Completion(f"a{n}") for n in range(40)])) == 25


async def test_any_table_can_be_registered() -> None:
    """Whatever kinds, bounds, choices and sources its options have."""
    command = Command(
        "odd",
        "d" * 200,
        "/odd",
        (
            Option("later", OptionKind.TEXT, "not needed"),
            Option("first", OptionKind.WORD, "needed", required=True),
            Option("size", OptionKind.INTEGER, "one of three", choices=("128", "256", "512")),
            Option("share", OptionKind.NUMBER, "a part", least=0, most=1),
            Option("picture", OptionKind.PHOTOS, "to start from", most=1),
            Option("loud", OptionKind.FLAG, "or not"),
        ),
    )
    tree = discord.app_commands.CommandTree(discord.Client(intents=discord.Intents.none()))
    tree.add_command(slash_command(command, None, None))  # type: ignore[arg-type]
    made = tree.get_commands()[0].to_dict(tree)
    assert [(one["name"], one["type"], one["required"]) for one in made["options"]] == [
        ("first", 3, True),
        ("later", 3, False),
        ("size", 4, False),
        ("share", 10, False),
        ("picture", 11, False),
        ("loud", 5, False),
    ]
    assert [choice["value"] for choice in made["options"][2]["choices"]] == [128, 256, 512]
    assert (made["options"][3]["min_value"], made["options"][3]["max_value"]) == (0, 1)


async def test_forms_keep_to_the_limits() -> None:
    for command in COMMANDS.values():
        if command.options:
            check_form(form(command, {"token": "mia7"}).to_dict())
    train = form(COMMANDS["train"], {}).to_dict()["components"]
    assert {label["label"] for label in train} >= {"Token", "Noun", "Photos", "Consent"}
    consent = next(label for label in train if label["label"] == "Consent")
    assert consent["description"] == replies.CONSENT


# Rendering


async def test_whatever_is_said_fits_into_discord() -> None:
    pick = random.Random(0)
    for _ in range(50):
        message = Message(
            "x" * pick.choice((1, 1999, 5000)),
            job=pick.choice((None, "23456789bc")),
            prompt=pick.choice((None, "*" * 1000, "@everyone <@11> `a`")),
            pictures=(Shown("pictures/a/0.png", "x" * 2000),) * pick.randrange(2),
            progress=pick.choice((None, Progress("Drawing", 0.3), Progress("Drawing"))),
            buttons=tuple(Button("y" * 90, f"again:{'z' * 50}{number}") for number in range(pick.randrange(40))),
        )
        for rendered in (render(message, mention="11", postable=True), notice("23456789bc", "11")):
            view = rendered.view.to_components() if rendered.view else []
            check_message({"content": rendered.content, "components": view}, {}, FILE)
            assert rendered.mentions.to_dict() == {"parse": [], "users": [11]}
            assert "@everyone" not in rendered.content


async def test_a_picture_too_large_for_discord() -> None:
    blobs, noise = MemoryBlobs(), Image.effect_noise((600, 600), 90).convert("RGB")
    noise.save(file := io.BytesIO(), "PNG")
    await blobs.put("pictures/a/0.png", file.getvalue())
    shown = [Shown("pictures/a/0.png", "a suit", 7), Shown("pictures/a/1.png", "erased", 8)]
    (whole,) = await pictures(blobs, shown)
    assert (whole.filename, whole.description) == ("1-7.png", "a suit")
    (small,) = await pictures(blobs, shown, 50_000)
    data = small.fp.read()
    assert small.filename == "1-7.jpg" and len(data) <= 50_000 and data[:2] == b"\xff\xd8"


# The server itself is strict


async def test_the_server_refuses_what_discord_refuses(server: DiscordServer, studio: int) -> None:
    with pytest.raises(Refused, match="content"):
        check_message({"content": "x" * 2001}, {}, FILE)
    with pytest.raises(Refused, match="empty"):
        check_message({"content": " "}, {}, FILE)
    with pytest.raises(Refused, match="too large"):
        check_message({"content": "x", "attachments": [{"id": 0}]}, {"0": bytes(11 * 1024 * 1024)}, FILE)
    row = {"type": 1, "components": [{"type": 2, "style": 2, "label": "x", "custom_id": "y" * 101}]}
    with pytest.raises(Refused, match="custom_id"):
        check_message({"content": "x", "components": [row]}, {}, FILE)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bot {TOKEN}"}) as session:
        async with session.get(f"{server.api}/guilds/1/bans") as answer:
            assert answer.status == 404
        assert server.faults == ["GET /guilds/1/bans: no such route"]
        asked = await server.slash_raw(ANNA, studio)
        server.turn(3.5)
        path = f"{server.api}/interactions/{asked.id}/{asked.token}/callback"
        async with session.post(path, json={"type": 5}) as answer:
            assert (await answer.json())["code"] == 10062
        asked = await server.slash_raw(ANNA, studio)
        path = f"{server.api}/interactions/{asked.id}/{asked.token}/callback"
        async with session.post(path, json={"type": 5}) as answer:
            assert answer.status == 200
        async with session.post(path, json={"type": 5}) as answer:
            assert (await answer.json())["code"] == 40060
        server.turn(15 * 60)
        path = f"{server.api}/webhooks/900/{asked.token}"
        async with session.post(path, json={"content": "late"}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (401, 50027)
    async with aiohttp.ClientSession() as session, session.get(f"{server.api}/users/@me") as answer:
        assert answer.status == 401


# The process


async def test_the_process_starts_answers_and_ends(server: DiscordServer, tmp_path: Path) -> None:
    environment = os.environ | {
        "AVATAR_HOME": str(tmp_path / "home"),
        "AVATAR_DISCORD_TOKEN": TOKEN,
        "AVATAR_DISCORD_API_URL": server.api,
        "AVATAR_DISCORD_GATEWAY_URL": server.gateway,
    }
    bot = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "discord", stdout=PIPE, stderr=PIPE, env=environment
    )
    assert bot.stdout
    try:
        async with asyncio.timeout(60):
            assert (await bot.stdout.readline()).startswith(b"Talking on Discord as user900")
        await server.until(lambda: server._sockets, 30)
        dm = server.dm(ANNA)
        await server.slash(ANNA, dm, "help")
        await server.sees(ANNA, dm, "I learn a person")
    finally:
        bot.terminate()
        _, said = await bot.communicate()
    assert (bot.returncode, said) == (0, b"")
    assert server.faults == []


@pytest.mark.parametrize(("token", "status", "said"), [("", 2, b"set AVATAR_DISCORD_TOKEN"), ("x", 1, b"not accept")])
async def test_a_missing_or_wrong_token(
    server: DiscordServer, tmp_path: Path, token: str, status: int, said: bytes
) -> None:
    environment = os.environ | {"AVATAR_HOME": str(tmp_path), "AVATAR_DISCORD_API_URL": server.api}
    if token:
        environment["AVATAR_DISCORD_TOKEN"] = token
    bot = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "discord", stdout=PIPE, stderr=PIPE, env=environment, cwd=Path.cwd()
    )
    async with asyncio.timeout(240):
        _, error = await bot.communicate()
    assert bot.returncode == status and said in error and error.count(b"\n") == 1


# Killed


# Requests in order: acknowledged, six photos, progress (8), its end, the answer (10), [Train] acknowledged, its buttons
# off, progress (13), and so on.
@pytest.mark.slow
@pytest.mark.parametrize(("point", "handled"), [(1, True), (4, False), (8, False), (10, True), (13, True)])
async def test_a_bot_killed_in_the_middle_of_a_training(
    server: DiscordServer, tmp_path: Path, point: int, handled: bool
) -> None:
    """SIGKILL at one of the bot's requests, before or after Discord does what it asks for; the person tries again."""
    environment = os.environ | {
        "AVATAR_HOME": str(tmp_path),
        "AVATAR_DISCORD_TOKEN": TOKEN,
        "AVATAR_DISCORD_API_URL": server.api,
        "AVATAR_DISCORD_GATEWAY_URL": server.gateway,
    }

    bots: list[asyncio.subprocess.Process] = []

    async def start() -> asyncio.subprocess.Process:
        bot = await asyncio.create_subprocess_exec(sys.executable, "-m", "bot", "discord", env=environment)
        bots.append(bot)
        await server.until(lambda: server._sockets, 120)
        return bot

    dm = server.dm(ANNA)
    async with open_storage(StorageSettings(home=tmp_path)) as storage, engine_of(storage):
        bot = await start()
        killed = server.kill_at(point, bot.pid, handled)
        asked: Asked | None = None
        try:
            async with asyncio.timeout(240):
                while not server.find(ANNA, dm, "mia7 is ready"):
                    if bot.returncode is not None:
                        bot = await start()
                    checked = server.find(ANNA, dm, "6 photos, all good")
                    under_way = any(server.find(ANNA, dm, text) for text in ("Thank you", "Checking", "Photo check"))
                    if checked and checked.buttons:
                        await server.press(ANNA, checked, "Train")
                    elif asked is None or not (checked or under_way):
                        given = {"token": "mia7", "noun": "woman", "consent": True, **_attached(PHOTOS)}
                        asked = await server.slash(ANNA, dm, "train", **given)
                    for _ in range(100):
                        await asyncio.sleep(0.02)
                        if bot.returncode is not None or server.find(ANNA, dm, "mia7 is ready"):
                            break
                while await storage.records.undelivered(NAME):
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.5)
        finally:
            for bot in bots:
                if bot.returncode is None:
                    bot.terminate()
                await bot.wait()
        assert killed.is_set()
        jobs = await storage.records.jobs_of((await storage.records.user(NAME, str(ANNA), "User 11")).id)
        assert len([job for job in jobs if job.kind == JobKind.TRAIN]) == 1
        for job in jobs:
            answers = [one for one in server.seen(ANNA, dm) if one.notified and job.id in one.content]
            assert job.over and len(answers) == 1
    assert server.faults == []
