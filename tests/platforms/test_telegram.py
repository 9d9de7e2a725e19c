"""The Telegram frontend: the real client library, over a socket, against a server as strict as Telegram."""

import asyncio
import os
import random
import sys
import time
import traceback
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from telegram import Bot

from bot import limits
from bot.frontends.telegram import outbox
from bot.frontends.telegram.bot import Telegram, TelegramFailure
from bot.frontends.telegram.calls import had_no_effect
from bot.frontends.telegram.connection import Broken, Connection, NeverSent
from bot.frontends.telegram.edits import Gaps, split
from bot.frontends.telegram.pace import Pace, Rate
from bot.frontends.telegram.rendering import keyboard, pieces, units
from bot.frontends.telegram.rooms import Room
from bot.language import say, speaking
from bot.messages import Button, Message, Progress, Shown
from bot.settings import BotSettings
from bot.table import COMMANDS
from storage.jobs import Imagine, Inspect, Train
from storage.open import Storage, open_storage
from storage.records import Records
from tests.fakes.engine import Engine, drawing
from tests.platforms.telegram_server import (
    BOT,
    PARAMETERS,
    TOKEN,
    Cut,
    Person,
    Rates,
    Refused,
    Server,
    labels,
    said,
    served,
)

QUIET = 0.2
SPACES = [f"telegram/{name}" for name in ("inbox", "trays", "photos", "sent", "asker", "missed", "moved")]
PATIENCE = 90.0
"""Seconds after which something counts as never happening, on a machine that is busy with other things too."""


@dataclass
class World:
    """A Telegram with a bot in it, over a real storage, with the test's engine at work."""

    server: Server
    address: str
    storage: Storage
    engine: Engine
    quiet: float = QUIET
    gaps: Gaps = field(default_factory=lambda: Gaps(0.05, 0.05))
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
            pace=Pace(),
            operators=self.settings.operator_accounts,
            pauses=(0.2,) * 5,
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

    async def restart(self) -> None:
        await self.stop()
        await self.start()

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
        return [note.key for note in await self.storage.records.notes(space)]


PHOTOS = [drawing(seed) for seed in range(12)]
FOR_ALL = [name for name, command in COMMANDS.items() if not command.operators]


@pytest.fixture
async def world(tmp_path: Path, redis: str) -> AsyncIterator[World]:
    async with Redis.from_url(redis) as client:
        await client.flushall()
    server = Server()
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


async def test_from_an_album_to_pictures(world: World, anna: Person) -> None:
    server = world.server
    await anna.send(PHOTOS[:8], "/train mia7 woman")
    asked = await server.until(anna.id, "mia7 woman: 8 photos")
    assert "has agreed" in said(asked)
    assert labels(asked) == ["They agreed: train", "Cancel"]
    assert await world.jobs(Inspect) == []
    await anna.press(asked, "They agreed")
    checked = await server.until(anna.id, "8 photos, all good")
    await anna.press(checked, "Train")
    ready = await server.until(anna.id, "mia7 is ready")
    assert labels(ready) == ["Imagine", "Delete", "Share here"]
    album = [body for body in server.of_bot(anna.id) if "media_group_id" in body]
    assert len(album) == 4
    assert album[0]["message_id"] < ready["message_id"]
    assert labels(server.messages[anna.id, checked["message_id"]]) == []

    await anna.say("/imagine mia7 woman in a suit —count 3 --seed 5")
    drawn = await server.until(anna.id, "Here you are (seeds 5, 6 and 7)")
    assert labels(drawn) == ["Again", "V1", "V2", "V3", "Seed", "Delete", "Originals"]
    pictures = [body for body in server.of_bot(anna.id) if said(body) == "mia7 woman in a suit"]
    assert len(pictures) == 1 and "photo" in pictures[0]
    await anna.press(drawn, "Originals")
    async with asyncio.timeout(PATIENCE):
        while len(files := [body for body in server.of_bot(anna.id) if "document" in body]) < 3:
            await asyncio.sleep(0.01)
    assert server.files[files[1]["document"]["file_id"]] == drawing(6)

    await anna.press(drawn, "V2")
    await server.until(anna.id, "Here you are", 2)
    [first, varied] = await world.jobs(Imagine)
    original = (await world.storage.records.pictures(first.id))[1].key
    assert varied.payload == replace(first.payload, seed=None, original=original)

    await anna.press(drawn, "Seed")
    await server.until(anna.id, "/imagine mia7 woman in a suit --count 1 --seed 7")
    await anna.press(drawn, "Delete")
    await server.until(anna.id, "pictures are deleted")
    assert labels(server.messages[anna.id, drawn["message_id"]]) == []
    assert await world.storage.blobs.list(f"pictures/{first.id}/") == []

    [avatar] = await world.storage.records.avatars_of((await world.jobs(Train))[0].user_id)
    [photos] = {len(await world.storage.records.photos(avatar.id))}
    assert photos == 8
    assert await world.storage.blobs.list("incoming/") == []


async def test_somebody_is_answered_in_their_language(world: World) -> None:
    server, mia = world.server, world.server.person("Mia", language="de-AT")
    with speaking("de"):
        described = {one.name: say(one.description) for one in COMMANDS.values() if not one.operators}
    for scope in ("default de", "all_private_chats de", "all_group_chats de"):
        assert {one["command"]: one["description"] for one in server.commands[scope]}.items() >= described.items()
    assert "de" not in server.commands["default"][0]["description"].split()
    await mia.send(PHOTOS[:8], "/train mia7 woman")
    asked = await server.until(mia.id, "Eine Frage, bevor ich sie mir ansehe.")
    await world.restart()
    await mia.press(asked, "Einverstanden")
    await mia.press(await server.until(mia.id, "8 Fotos, alle gut."), "mia7 lernen")
    await server.until(mia.id, "mia7 ist fertig: 400 Schritte in")
    await mia.say("/imagine mia7 woman in a suit")
    await server.until(mia.id, "Bitte schön (Seeds")
    await server.until(mia.id, "Zeichnung: fertig")


async def test_an_album_that_waited_through_a_restart_is_answered_in_its_language(world: World) -> None:
    mia = world.server.person("Mia", language="de")
    world.quiet = 0.5
    await world.restart()
    await mia.send(PHOTOS[:8])
    async with asyncio.timeout(PATIENCE):
        while len(await world.storage.records.notes("telegram/photos")) < 8:
            await asyncio.sleep(0.01)
    await world.restart()
    await world.server.until(mia.id, "8 Fotos sind da. Wer ist das?")


async def test_the_commands_are_the_table(world: World, anna: Person) -> None:
    for scope, more in (("default", []), ("all_private_chats", ["start"]), ("all_group_chats", [])):
        assert [one["command"] for one in world.server.commands[scope]] == [*FOR_ALL, *more]
    await anna.say("/start")
    assert "Hello Anna!" in said(await world.server.until(anna.id, "/train"))
    for name in FOR_ALL:
        await anna.say(f"/start {name}")
        await world.server.until(anna.id, COMMANDS[name].description)
    await anna.say("/help@AvatarTestBot")
    await world.server.until(anna.id, "Erase an avatar")
    await anna.say("hello")
    await world.server.until(anna.id, "Tell me with a command")
    await anna.say("/imagin mia7")
    await world.server.until(anna.id, "Did you mean /imagine?")


# Gathering


async def test_albums_out_of_order_and_doubled(world: World, anna: Person) -> None:
    first = anna.album(PHOTOS[:5], "/train mia7 woman", at=3)
    second = anna.album(PHOTOS[5:11], "/train ben7 man", kind="document", at=0)
    mixed = [*first, *second]
    random.Random(3).shuffle(mixed)
    await anna.hand_out(mixed, times=2)
    hers = await world.server.until(anna.id, "mia7 woman: 5 photos")
    his = await world.server.until(anna.id, "ben7 man: 6 photos")
    await anna.press(his, "They agreed", times=2)
    await anna.press(hers, "They agreed")
    await world.server.until(anna.id, "6 photos, all good")
    await world.server.until(anna.id, "5 photos, all good")
    assert len(await world.jobs(Inspect)) == 2
    user = (await world.jobs(Inspect))[0].user_id
    found = {}
    for avatar in await world.storage.records.avatars_of(user):
        keys = [photo.key for photo in await world.storage.records.photos(avatar.id)]
        found[avatar.token] = [await world.storage.blobs.get(key) for key in keys]
    assert found == {"mia7": PHOTOS[:5], "ben7": PHOTOS[5:11]}


async def test_a_photo_that_comes_late(world: World, anna: Person) -> None:
    album = anna.album(PHOTOS[:7], "/train mia7 woman")
    await anna.hand_out(album[:5])
    early = await world.server.until(anna.id, "mia7 woman: 5 photos")
    await anna.hand_out(album[5:6])
    asked = await world.server.until(anna.id, "mia7 woman: 6 photos")
    async with asyncio.timeout(PATIENCE):
        while (anna.id, early["message_id"]) in world.server.messages:
            await asyncio.sleep(0.01)
    await anna.press(asked, "They agreed")
    await world.server.until(anna.id, "6 photos, all good")
    await anna.hand_out(album[4:])
    await world.server.until(anna.id, "came after its album was closed")
    await asyncio.sleep(3 * QUIET)
    assert len([body for body in world.server.of_bot(anna.id) if "came after" in said(body)]) == 1
    assert len(await world.jobs(Inspect)) == 1
    assert await world.storage.blobs.list("incoming/") == []


async def test_an_eleventh_photo_starts_nothing(world: World, anna: Person) -> None:
    await anna.send(PHOTOS[:10], "/train mia7 woman")
    await anna.hand_out([anna.photo(PHOTOS[10])])
    asked = await world.server.until(anna.id, "mia7 woman: 10 photos")
    alone = await world.server.until(anna.id, "1 photo so far")
    await anna.press(alone, "Forget them")
    await world.server.until(anna.id, "I have erased these photos")
    await anna.press(asked, "They agreed")
    await world.server.until(anna.id, "10 photos, all good")
    assert len(await world.jobs(Inspect)) == 1


async def test_photos_one_by_one(world: World, anna: Person) -> None:
    await anna.say("/train mia7 woman")
    await world.server.until(anna.id, "Now send me the photos")
    for number, photo in enumerate(PHOTOS[:11], start=1):
        await anna.hand_out([anna.photo(photo)])
        if number == 2:
            few = await world.server.until(anna.id, "2 photos so far")
            await anna.press(few, "Done")
            async with asyncio.timeout(PATIENCE):
                while not any(text and "I need 5 at least" in text for text, _ in world.server.alerts):
                    await asyncio.sleep(0.01)
    await anna.press(await world.server.until(anna.id, "11 photos so far"), "Done")
    asked = await world.server.until(anna.id, "mia7 woman: 11 photos. 10 are the most, so I leave the last 1 out")
    await anna.press(asked, "They agreed")
    await world.server.until(anna.id, "10 photos, all good")


async def test_the_line_after_the_photos(world: World, anna: Person) -> None:
    for photo in PHOTOS[:5]:
        await anna.hand_out([anna.photo(photo)])
    await anna.press(await world.server.until(anna.id, "5 photos so far"), "Done")
    await anna.say("/train suit woman")
    await world.server.until(anna.id, "I still have your 5 photos")
    await anna.say("/train mia7 woman")
    await world.server.until(anna.id, "mia7 woman: 5 photos. One question")


async def test_train_as_a_reply(world: World, anna: Person) -> None:
    hers, his = await anna.send(PHOTOS[:5]), await anna.send(PHOTOS[5:11])
    await world.server.until(anna.id, "5 photos here. Who is it?")
    await world.server.until(anna.id, "6 photos here. Who is it?")
    await anna.say("/train mia7 woman")
    await world.server.until(anna.id, "more than one album")
    await anna.say("/train mia7 woman", reply_to_message=his[2])
    await world.server.until(anna.id, "mia7 woman: 6 photos")
    await anna.say("/train --consent ben7 man", reply_to_message=hers[0])
    await world.server.until(anna.id, "5 photos, all good")


async def test_an_album_after_the_line(world: World, anna: Person) -> None:
    await anna.say("/train mia7 woman")
    await world.server.until(anna.id, "Now send me the photos")
    album = anna.album(PHOTOS[:7])
    await anna.hand_out(album[:6])
    await world.server.until(anna.id, "mia7 woman: 6 photos. One question")
    await anna.hand_out(album[6:])
    await anna.press(await world.server.until(anna.id, "mia7 woman: 7 photos. One question"), "They agreed")
    await world.server.until(anna.id, "7 photos, all good")


async def test_a_caption_added_afterwards(world: World, anna: Person) -> None:
    album = await anna.send(PHOTOS[:5])
    await world.server.until(anna.id, "5 photos here")
    edited = {**album[2], "caption": "/train mia7 woman", "edit_date": album[2]["date"]}
    await world.server.push(edited_message=edited)
    await world.server.until(anna.id, "mia7 woman: 5 photos. One question")


async def test_what_cannot_be_taken(world: World, anna: Person) -> None:
    await anna.hand_out([anna.photo(b"film", kind="video/mp4")])
    await world.server.until(anna.id, "only learn from pictures")
    await anna.hand_out([anna.photo(bytes(limits.PHOTO_BYTES + 1), kind="document")])
    await world.server.until(anna.id, "larger than 20 MB")
    world.server.inject("file", Refused(500, "Internal Server Error"), times=2)
    await anna.hand_out([anna.photo(PHOTOS[0])])
    await world.server.until(anna.id, "1 photo so far")
    world.server.inject("getFile", Refused(500, "Internal Server Error"), times=3)
    await anna.hand_out([anna.photo(PHOTOS[1])])
    await world.server.until(anna.id, "could not fetch this photo")
    assert len(await world.storage.blobs.list("incoming/")) == 1


async def test_a_chat_cannot_fill_the_disk(world: World, anna: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bot.frontends.telegram.albums.CHAT_MOST", 2)
    await anna.hand_out([anna.photo(PHOTOS[3], via_bot=BOT)])
    for photo in PHOTOS[:3]:
        await anna.hand_out([anna.photo(photo)])
    await world.server.until(anna.id, "10 photos are enough")
    await world.server.until(anna.id, "2 photos so far")
    assert len(await world.storage.blobs.list("incoming/")) == 2


async def test_photos_that_nobody_comes_back_for_are_erased(
    world: World, anna: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.telegram is not None
    await anna.send(PHOTOS[:3])
    await world.server.until(anna.id, "3 photos here")
    await world.telegram.albums.expire()
    assert len(await world.storage.blobs.list("incoming/")) == 3
    monkeypatch.setattr("bot.frontends.telegram.albums.KEPT", timedelta())
    await world.telegram.albums.expire()
    await world.server.until(anna.id, "I have erased the 3 photos you sent")
    assert await world.storage.blobs.list("incoming/") == []
    assert await world.notes("telegram/trays") == await world.notes("telegram/photos") == []


async def test_what_another_process_left_is_taken_over(world: World, anna: Person) -> None:
    assert world.telegram is not None
    message = world.server.add(anna.id, anna.user, text="/status")
    left = {"update": {"update_id": 777, "message": message}}
    await world.storage.records.note_add("telegram/inbox", "777", left)
    await world.telegram.intake.resume(timedelta(hours=1))
    await asyncio.sleep(0.3)
    assert world.server.of_bot(anna.id) == []
    await world.telegram.intake.resume()
    await world.telegram.intake.resume()
    await world.server.until(anna.id, "Nothing of yours")
    await asyncio.sleep(0.3)
    assert len(world.server.of_bot(anna.id)) == 1


async def test_a_restart_loses_no_photo(world: World, anna: Person) -> None:
    album = anna.album(PHOTOS[:8], "/train mia7 woman", at=7)
    await anna.hand_out(album[:3])
    async with asyncio.timeout(PATIENCE):
        while len(await world.storage.blobs.list("incoming/")) < 3:
            await asyncio.sleep(0.01)
    await world.stop()
    await anna.hand_out(album[2:])
    await world.start()
    asked = await world.server.until(anna.id, "mia7 woman: 8 photos")
    await world.restart()
    await anna.press(asked, "They agreed")
    await world.server.until(anna.id, "8 photos, all good")


# Groups


async def test_in_groups_photos_stay_private(world: World, anna: Person) -> None:
    group = world.server.group()
    await anna.say("/train mia7 woman", chat=group)
    led = await world.server.until(group, "in our private chat")
    assert led["reply_markup"]["inline_keyboard"][0][0]["url"] == "https://t.me/AvatarTestBot?start=train"
    body = world.server.add(group, anna.user, **{"photo": anna.photo(PHOTOS[0])["photo"]}, caption="/train mia7 woman")
    await world.server.push(message=body)
    await world.server.until(group, "in our private chat", 2)
    await anna.say("/weather", chat=group)
    await anna.say("/status@OtherBot", chat=group)
    await anna.say("/status", chat=group)
    await world.server.until(anna.id, "Nothing of yours")
    assert len(world.server.of_bot(group)) == 2
    assert await world.storage.blobs.list("incoming/") == []


async def test_private_answers_of_a_group(world: World) -> None:
    shy, group = world.server.person("Ben", start=False), world.server.group()
    await shy.say("/status", chat=group)
    hint = await world.server.until(group, "Open our private chat once")
    assert hint["reply_markup"]["inline_keyboard"][0][0]["url"].startswith("https://t.me/AvatarTestBot")
    assert world.server.of_bot(shy.id) == []
    await shy.say("/start")
    await shy.say("/status", chat=group)
    await world.server.until(shy.id, "Nothing of yours")


async def test_who_writes_as_the_group_is_told_that_a_command_needs_a_person(world: World) -> None:
    server = world.server
    group = server.group()
    admin = {"id": 1087968824, "is_bot": True, "first_name": "Group", "username": "GroupAnonymousBot"}
    for text in ("good morning", "/status"):
        body = server.add(group, admin, text=text, sender_chat=server.chats[group])
        await server.push(message=body)
    told = await server.until(group, "from your own account")
    assert told["reply_to_message"]["text"] == "/status"
    await asyncio.sleep(0.3)
    assert sum("own account" in said(body) for body in server.of_bot(group)) == 1


async def test_an_answer_in_a_topic_mentions_its_person(world: World, anna: Person) -> None:
    await world.trained(anna)
    group = world.server.group(topics={7})
    asked = await anna.say("/imagine mia7 --count 1", chat=group, message_thread_id=7, is_topic_message=True)
    drawn = await world.server.until(group, "Here you are")
    assert said(drawn).startswith("Anna, Here you are")
    [mention] = drawn["entities"]
    assert (mention["type"], mention["offset"], mention["length"]) == ("text_mention", 0, 4)
    assert mention["user"]["id"] == anna.id
    assert drawn["reply_to_message"]["message_id"] == asked["message_id"]
    assert all(body["message_thread_id"] == 7 for body in world.server.of_bot(group))
    [job] = await world.jobs(Imagine)
    assert job.room == f"telegram:{group}:7"
    other = world.server.person("Ben")
    await other.press(drawn, "Originals")
    async with asyncio.timeout(PATIENCE):
        while not any("document" in body for body in world.server.of_bot(group)):
            await asyncio.sleep(0.01)
    await other.press({**drawn, "chat": world.server.chats[other.id]}, "Originals")
    async with asyncio.timeout(PATIENCE):
        while not any(text and "Only the person" in text for text, _ in world.server.alerts):
            await asyncio.sleep(0.01)


async def test_files_go_into_the_private_chat(world: World, anna: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    await world.trained(anna)
    group = world.server.group()
    await anna.say("/export mia7", chat=group)
    await world.server.until(anna.id, "what I learned of mia7")
    await anna.say("/mydata")
    await world.server.until(anna.id, "I keep 1 avatar")
    files = [
        world.server.files[body["document"]["file_id"]] for body in world.server.of_bot(anna.id) if "document" in body
    ]
    assert files[0] == b"weights"
    assert b"mia7" in files[1]
    assert world.server.of_bot(group) == []

    monkeypatch.setattr(outbox, "FILE_MOST", len(b"weights") - 1)
    await anna.say("/export mia7")
    await world.server.until(anna.id, "Whoever runs me can hand it out")
    assert len([body for body in world.server.of_bot(anna.id) if "document" in body]) == len(files)


async def test_operators_find_their_command(world: World, anna: Person) -> None:
    world.settings = BotSettings(_env_file=None, operators=f"telegram:{anna.id},telegram:999,discord:5")
    await world.restart()
    assert [one["command"] for one in world.server.commands[f"chat {anna.id}"]] == [*FOR_ALL, "operator", "start"]
    assert "chat 999" not in world.server.commands  # who never spoke with the bot has no chat to register for
    await anna.say("/operator pause")
    async with asyncio.timeout(PATIENCE):
        while not await world.storage.records.paused():
            await asyncio.sleep(0.02)


async def test_who_is_no_operator_any_more_loses_the_command(world: World, anna: Person) -> None:
    ben, commands = world.server.person("Ben"), world.server.commands
    world.settings = BotSettings(_env_file=None, operators=f"telegram:{anna.id},telegram:{ben.id},telegram:999")
    await world.restart()
    assert {f"chat {anna.id}", f"chat {anna.id} de", f"chat {ben.id}", f"chat {ben.id} de"} <= commands.keys()
    world.settings = BotSettings(_env_file=None, operators=f"telegram:{anna.id}")
    world.server.inject("deleteMyCommands", Refused(502, "Bad Gateway"))
    await world.restart()
    assert f"chat {ben.id}" in commands
    await world.restart()
    assert {f"chat {anna.id}", f"chat {anna.id} de"} <= commands.keys()
    assert not {f"chat {ben.id}", f"chat {ben.id} de"} & commands.keys()
    # Once is enough, and who never was there keeps nothing.
    assert await world.notes("telegram/operators") == [str(anna.id)]


async def test_an_operators_word_reaches_each_chat_in_its_language(world: World, anna: Person) -> None:
    world.settings = BotSettings(_env_file=None, operators=f"telegram:{anna.id}")
    await world.restart()
    mia, group = world.server.person("Mia", language="de"), world.server.group()
    await mia.say("/imagine mia7")
    await world.server.until(mia.id, "Avatar")
    await world.trained(anna)
    await anna.say("/share mia7 --person Mia")
    await world.server.until(anna.id, f"Mia (telegram {mia.id})")
    await anna.say("/imagine mia7 woman --count 1", chat=group)
    await world.server.until(group, "Here you are")
    await mia.say("/imagine mia7 woman --count 1")
    await world.server.until(mia.id, "Bitte schön")
    await anna.say("/operator broadcast I rest at ten")
    await world.server.until(anna.id, "A word from those who run this bot: I rest at ten")
    await world.server.until(group, "A word from those who run this bot: I rest at ten")
    await world.server.until(mia.id, "Ein Wort von denen, die diesen Bot betreiben: I rest at ten")


async def test_a_reply_to_a_picture_varies_it(world: World, anna: Person) -> None:
    await world.trained(anna)
    group, ben = world.server.group(), world.server.person("Ben")
    await world.storage.queue.offer(["inks"], PATIENCE)
    for chat in (anna.id, group):
        await anna.say("/imagine mia7 woman in a suit --count 3 --negative hat --style inks", chat=chat)
        await world.server.until(chat, "Here you are")
    first, openly = await world.jobs(Imagine)
    assert openly.payload.style == "inks"
    await world.restart()

    def second(chat: int) -> dict[str, Any]:
        return [body for body in world.server.of_bot(chat) if "media_group_id" in body][-2]

    await anna.say("a woman on the moon", reply_to_message=second(anna.id))
    await world.server.until(anna.id, "Here you are", 2)
    original = (await world.storage.records.pictures(first.id))[1].key
    varied = (await world.jobs(Imagine))[-1]
    assert varied.payload == replace(first.payload, prompt="mia7 woman on the moon", original=original)
    assert "Again" in labels(await world.server.until(anna.id, "Here you are", 2))
    # A reply to anything else is no prompt.
    await anna.say("thanks", reply_to_message=await world.server.until(anna.id, "Here you are", 2))
    await world.server.until(anna.id, "Tell me with a command")

    # In a group people also talk about pictures: there a prompt has to name the avatar.
    await anna.say("that one is lovely", chat=group, reply_to_message=second(group))
    await ben.say("mia7 on the beach", chat=group, reply_to_message=second(group))
    await world.server.until(ben.id, "not shared with you here")
    await anna.say("/share mia7", chat=group)
    await world.server.until(group, "shares mia7 with this group")
    await ben.say("Mia7 on the beach", chat=group, reply_to_message=second(group))
    await world.server.until(group, "Here you are", 2)
    original = (await world.storage.records.pictures(openly.id))[1].key
    assert (await world.jobs(Imagine))[-1].payload == replace(
        openly.payload, prompt="Mia7 on the beach", original=original
    )
    assert len(await world.jobs(Imagine)) == 4


async def test_a_share_is_for_all_topics_of_a_group(world: World, anna: Person) -> None:
    await world.trained(anna)
    group, ben = world.server.group(), world.server.person("Ben")
    await anna.say("/share mia7", chat=group)
    await world.server.until(group, "shares mia7 with this group")
    await ben.say("/imagine mia7 --count 1 --seed 5", chat=group, thread=7)
    await world.server.until(group, "seed 5")
    await ben.say("/imagine mia7 --count 1")
    await world.server.until(ben.id, "no avatar")


async def test_a_share_is_for_the_person_it_mentions(world: World, anna: Person) -> None:
    await world.trained(anna)
    server = world.server
    bens = [server.person("Ben 😀") for _ in range(2)]
    for ben in bens:
        await ben.say("/imagine mia7")
        await server.until(ben.id, "no avatar")
    await anna.say("/share mia7 Ben 😀")
    await server.until(anna.id, "2 people here are called Ben 😀")
    mention = {"type": "text_mention", "offset": 12, "length": 6, "user": bens[1].user}
    await anna.say("/share mia7 Ben 😀 --expires 7d", entities=[mention])
    await server.until(anna.id, f"Ben 😀 (telegram {bens[1].id}) can draw mia7 now")


async def test_who_is_forgotten_leaves_nothing(world: World, anna: Person) -> None:
    await world.trained(anna)
    group, ben = world.server.group(), world.server.person("Ben")
    await anna.say("/imagine mia7 --count 1", chat=group)
    await world.server.until(group, "Here you are")
    await ben.send(PHOTOS[:5])
    await world.server.until(ben.id, "5 photos here")
    await anna.send(PHOTOS[:7])
    await world.server.until(anna.id, "7 photos here")
    records, blobs = world.storage.records, world.storage.blobs
    assert len(await blobs.list(f"incoming/telegram/{anna.id}/")) == 7
    await anna.say("/forget")
    await anna.press(await world.server.until(anna.id, "Forget you for good?"), "Erase everything")
    await world.server.until(anna.id, "You are forgotten")
    async with asyncio.timeout(PATIENCE):
        while any(note.body for note in await records.notes("telegram/inbox")):
            await asyncio.sleep(0.02)
    left = [note for space in SPACES for note in await records.notes(space)]
    assert left
    assert [note for note in left if str(anna.id) in repr(note) or "Anna" in repr(note)] == []
    assert await blobs.list(f"incoming/telegram/{anna.id}/") == []
    assert len(await blobs.list(f"incoming/telegram/{ben.id}/")) == 5
    assert len([note for note in left if note.space == "telegram/photos"]) == 5
    assert not await records.knows("telegram", str(anna.id))


async def test_a_name_that_this_process_never_heard(world: World, anna: Person) -> None:
    await world.trained(anna)
    group = world.server.group()
    world.engine.pause = 0.3
    await anna.say("/imagine mia7 --count 1", chat=group)
    await world.server.until(group, "Drawing")
    await world.restart()
    drawn = await world.server.until(group, "Here you are")
    assert said(drawn).startswith("Anna, ")


async def test_a_group_becomes_a_supergroup(world: World, anna: Person) -> None:
    await world.trained(anna)
    group = world.server.group()
    world.engine.pause = 0.2
    await anna.say("/imagine mia7 --count 1", chat=group)
    await world.server.until(group, "Drawing")
    new = world.server.move(group)
    await world.server.until(new, "Here you are")
    await world.restart()
    await anna.say("/imagine mia7 --count 1 --seed 9", chat=new)
    await world.server.until(new, "seed 9")
    assert {job.room for job in await world.jobs(Imagine)} == {f"telegram:{group}"}


# What Telegram does to bots


async def test_who_blocked_the_bot_gets_the_answer_later(world: World, anna: Person) -> None:
    await world.trained(anna)
    world.engine.pause = 0.1
    await anna.say("/imagine mia7 --count 2 --seed 3")
    await world.server.until(anna.id, "Drawing")
    await anna.membership("kicked")
    async with asyncio.timeout(PATIENCE):
        while not await world.notes("telegram/missed"):
            await asyncio.sleep(0.02)
    [job] = await world.jobs(Imagine)
    async with asyncio.timeout(PATIENCE):
        while not (await world.storage.records.job(job.id)).delivered:
            await asyncio.sleep(0.02)
    await anna.membership("member")
    await world.server.until(anna.id, "Here you are (seeds 3 and 4)")
    async with asyncio.timeout(PATIENCE):
        while await world.notes("telegram/missed"):
            await asyncio.sleep(0.02)


async def test_a_muted_groups_answer_goes_to_the_asker(world: World, anna: Person) -> None:
    server = world.server
    await world.trained(anna)
    group, forum = server.group(), server.group(topics={7})
    world.engine.pause = 0.1
    await anna.say("/imagine mia7 --count 2 --seed 3", chat=group)
    await server.until(group, "Drawing")
    server.muted.add(group)
    shown = await server.until(anna.id, "Here you are (seeds 3 and 4)")
    assert "reply_to_message" not in shown
    await anna.press(shown, "Originals")
    async with asyncio.timeout(PATIENCE):
        while not any("document" in body for body in server.of_bot(anna.id)):
            await asyncio.sleep(0.02)

    await anna.say("/share mia7", chat=group)
    await server.until(anna.id, "shares mia7 with this group")

    await anna.say("/imagine mia7 --count 2 --seed 5", chat=forum, message_thread_id=7, is_topic_message=True)
    await server.until(forum, "Drawing")
    server.closed.add((forum, 7))
    await server.until(anna.id, "Here you are (seeds 5 and 6)")
    await asyncio.sleep(0.3)
    assert all([(await world.storage.records.job(job.id)).delivered for job in await world.jobs(Imagine)])
    assert len([text for texts in server.told.values() for text in texts if "Here you are" in text]) == 2
    assert await world.notes("telegram/missed") == []


async def test_a_topic_gets_the_answer_that_it_missed(world: World, anna: Person) -> None:
    await world.trained(anna)
    group = world.server.group(topics={7})
    world.engine.pause = 0.1
    await anna.say("/imagine mia7 --count 2 --seed 3", chat=group, message_thread_id=7, is_topic_message=True)
    await world.server.until(group, "Drawing")
    await anna.membership("kicked")
    await anna.membership("kicked", chat=group)
    async with asyncio.timeout(PATIENCE):
        while len(await world.notes("telegram/missed")) < 2:
            await asyncio.sleep(0.02)
    await anna.membership("member", chat=group)
    shown = await world.server.until(group, "Here you are (seeds 3 and 4)")
    assert shown["message_thread_id"] == 7
    async with asyncio.timeout(PATIENCE):
        while await world.notes("telegram/missed"):
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    "error",
    [Refused(429, "Too Many Requests: retry after 1", retry_after=1), Refused(502, "Bad Gateway"), Cut()],
    ids=["429", "502", "cut before it arrived"],
)
@pytest.mark.parametrize("method", ["sendMessage", "sendMediaGroup", "editMessageText", "answerCallbackQuery"])
async def test_an_error_costs_no_answer(world: World, anna: Person, method: str, error: Exception) -> None:
    await world.trained(anna)
    before = len(world.server.of_bot(anna.id))
    world.server.inject(method, error)
    await anna.say("/imagine mia7 --count 2 --seed 3")
    await world.server.until(anna.id, "Here you are (seeds 3 and 4)")
    await asyncio.sleep(0.3)
    told = [text for texts in world.server.told.values() for text in texts if "Here you are" in text]
    assert len(told) == len(await world.jobs(Imagine)) == 1
    albums = [body for body in world.server.of_bot(anna.id)[before:] if "media_group_id" in body]
    lost = isinstance(error, Cut | Refused) and method == "sendMediaGroup" and "429" not in repr(error)
    shown = next(body for body in world.server.of_bot(anna.id) if "Here you are" in said(body))
    if "Show the pictures" in labels(shown):
        assert lost and not albums
        await anna.press(shown, "Show the pictures")
        async with asyncio.timeout(PATIENCE):
            while not [body for body in world.server.of_bot(anna.id)[before:] if "media_group_id" in body]:
                await asyncio.sleep(0.02)
    else:
        assert len(albums) == 2


async def test_typing_pauses_as_long_as_it_is_told_to(world: World, anna: Person) -> None:
    assert world.telegram is not None
    calls = world.telegram.outbox.calls

    def asked() -> int:
        return len([method for _, method, _ in world.server.calls if method == "sendChatAction"])

    world.server.inject("sendChatAction", Refused(429, "Too Many Requests: retry after 1", retry_after=1))
    began = time.monotonic()
    await calls.typing(Room(anna.id))
    assert asked() == 2 and [chat for _, chat in world.server.actions] == [anna.id]
    assert time.monotonic() - began >= 1
    # After a longer silence the words themselves are as near.
    world.server.inject("sendChatAction", Refused(429, "Too Many Requests: retry after 5", retry_after=5))
    began = time.monotonic()
    await calls.typing(Room(anna.id))
    await calls.typing(Room(anna.id))
    assert asked() == 3
    await anna.say("/help")
    await world.server.until(anna.id, "I learn a person")
    assert time.monotonic() - began >= 5


@pytest.mark.parametrize("method", ["sendMessage", "sendMediaGroup"])
async def test_an_answer_whose_receipt_is_lost_comes_once(world: World, anna: Person, method: str) -> None:
    await world.trained(anna)
    world.engine.pause = 0.1
    await anna.say("/imagine mia7 --count 2 --seed 3")
    await world.server.until(anna.id, "Drawing")
    world.server.inject(method, Cut(), after=True)
    shown = await world.server.until(anna.id, "Here you are")
    await asyncio.sleep(0.5)
    told = [text for texts in world.server.told.values() for text in texts if "Here you are" in text]
    assert len(told) == 1
    assert ("Show the pictures" in labels(shown)) is (method == "sendMediaGroup")
    assert len([body for body in world.server.of_bot(anna.id) if said(body) == "mia7"]) == 1


@pytest.mark.parametrize("after", [False, True])
async def test_a_reply_that_nobody_knows_of_is_not_sent_again(world: World, anna: Person, after: bool) -> None:
    world.server.inject("sendMessage", Cut(), after=after)
    await anna.say("/status")
    await world.server.until(anna.id, "If there is no answer above")
    assert len([body for body in world.server.of_bot(anna.id) if "Nothing of yours" in said(body)]) == int(after)
    await anna.say("/status")
    await world.server.until(anna.id, "Nothing of yours", 1 + int(after))


async def test_originals_whose_receipt_is_lost_come_once(world: World, anna: Person) -> None:
    await world.trained(anna)
    await anna.say("/imagine mia7 --count 2 --seed 3")
    drawn = await world.server.until(anna.id, "Here you are")
    world.server.inject("sendMediaGroup", Cut(), after=True)
    await anna.press(drawn, "Originals")
    await world.server.until(anna.id, "If there is no answer above")
    await asyncio.sleep(0.5)
    assert len([body for body in world.server.of_bot(anna.id) if "document" in body]) == 2
    await anna.press(drawn, "Originals")
    async with asyncio.timeout(PATIENCE):
        while len([body for body in world.server.of_bot(anna.id) if "document" in body]) < 4:
            await asyncio.sleep(0.02)


async def test_a_command_whose_answer_did_not_get_through_is_not_run_again(world: World, anna: Person) -> None:
    server, records = world.server, world.storage.records
    world.settings = BotSettings(_env_file=None, operators=f"telegram:{anna.id}")
    await world.restart()
    await world.trained(anna)
    down = Refused(500, "Internal Server Error")
    server.inject("sendMessage", down, times=3)
    await anna.say("/operator broadcast I rest at ten")
    await server.until(anna.id, "A word from those who run this bot: I rest at ten")
    await server.until(anna.id, "1 room")
    await asyncio.sleep(0.5)
    assert len([body for body in server.of_bot(anna.id) if "I rest at ten" in said(body)]) == 1

    other = await records.user("discord", "7", "Anna")
    code = await records.link_code(other.id)
    server.inject("sendMessage", down, times=3)
    await anna.say(f"/link {code}")
    await server.until(anna.id, "one person")

    await anna.say("/forget")
    asked = await server.until(anna.id, "Forget you for good?")
    server.inject("sendMessage", down, times=3)
    await anna.press(asked, "Erase everything")
    await server.until(anna.id, "You are forgotten")
    assert not await records.knows("telegram", str(anna.id))


async def test_a_broadcast_that_is_handed_over_again_tells_nobody_twice(world: World, anna: Person) -> None:
    server = world.server
    world.settings = BotSettings(_env_file=None, operators=f"telegram:{anna.id}")
    await world.restart()
    await world.trained(anna)
    asked = await anna.say("/operator broadcast I rest at ten")
    await server.until(anna.id, "A word from those who run this bot: I rest at ten")
    async with asyncio.timeout(PATIENCE):
        while any(note.body for note in await world.storage.records.notes("telegram/inbox")):
            await asyncio.sleep(0.02)
    # As if the process had been killed before it could write down that it was done.
    number = max(int(key) for key in await world.notes("telegram/inbox"))
    await world.stop()
    await world.storage.records.note_set(
        "telegram/inbox", str(number), {"update": {"update_id": number, "message": asked}}
    )
    await world.start()
    async with asyncio.timeout(PATIENCE):
        while any(note.body for note in await world.storage.records.notes("telegram/inbox")):
            await asyncio.sleep(0.02)
    await asyncio.sleep(1)
    assert len([body for body in server.of_bot(anna.id) if "I rest at ten" in said(body)]) == 1


async def test_a_deleted_progress_message(world: World, anna: Person) -> None:
    await world.trained(anna)
    world.engine.pause = 0.1
    await anna.say("/imagine mia7 --count 1 --seed 3")
    shown = await world.server.until(anna.id, "Drawing")
    del world.server.messages[anna.id, shown["message_id"]]
    await world.server.until(anna.id, "Here you are (seed 3)")


async def test_progress_is_edited_on_change_and_not_too_often(world: World, anna: Person) -> None:
    await world.trained(anna)
    await world.stop()
    world.gaps = Gaps(0.4, 0.8)
    await world.start()
    world.engine.pause, world.engine.steps = 0.05, 40
    before = len(world.server.calls)
    await anna.say("/imagine mia7 --count 1")
    await world.server.until(anna.id, "Here you are")
    edits = [(at, call["text"]) for at, name, call in world.server.calls[before:] if name == "editMessageText"]
    progress = [edit for edit in edits if "step" in edit[1]]
    # One that was held up on its way may come close to the next, so they are counted and not measured: a busy machine
    # takes longer for the 40 steps, and then there may be more.
    assert 2 <= len(progress) <= 2 + (progress[-1][0] - progress[0][0]) / 0.4
    assert "▰" in progress[-1][1]
    assert edits[-2][1].startswith("Drawing: done") and edits[-1][1].startswith("Here you are")
    assert not [refusal for refusal in world.server.refusals if "not modified" in refusal[1]]


async def test_samples_are_shown_in_the_progress_message(world: World, anna: Person) -> None:
    telegram, place = world.telegram, Room(anna.id)
    assert telegram is not None
    await world.storage.blobs.put("samples/a/0.png", PHOTOS[0])
    await world.storage.blobs.put("samples/a/1.png", PHOTOS[1])
    ref = await telegram.outbox.say(place, Message("Training: next in line."))
    number = split(ref)[1]
    for step, key in ((1, "0"), (2, "0"), (3, "1")):
        shown = Message(f"step {step}", pictures=(Shown(f"samples/a/{key}.png", ""),), progress=Progress("x", step / 3))
        await telegram.outbox.edit(ref, shown)
        async with asyncio.timeout(PATIENCE):
            while f"step {step}" not in said(world.server.messages[anna.id, number]):
                await asyncio.sleep(0.01)
    methods = [name for _, name, _ in world.server.calls if name.startswith("edit")]
    assert methods == ["editMessageMedia", "editMessageCaption", "editMessageMedia"]
    telegram.outbox.edits._shown.clear()  # as after a restart
    await telegram.outbox.edit(ref, Message("Training: done."))
    await telegram.outbox.edit(ref, Message("Training: done."))
    assert said(world.server.messages[anna.id, number]) == "Training: done."
    telegram.outbox.edits._shown.clear()
    await telegram.outbox.edit(ref, Message("Training: done."))
    assert "not modified" in world.server.refusals[-1][1]


async def test_pictures_that_telegram_does_not_show_come_as_files(world: World, anna: Person) -> None:
    assert world.telegram is not None
    await world.storage.blobs.put("pictures/a/0.png", b"no picture at all")
    for count, dedupe in ((1, None), (2, "job")):
        pictures = (Shown("pictures/a/0.png", "x", 1), Shown("pictures/a/gone.png", "x", 2))[:1] * count
        await world.telegram.outbox.post(str(Room(anna.id)), Message("Here", pictures=pictures), dedupe)
    assert len([body for body in world.server.of_bot(anna.id) if "document" in body]) == 3
    await world.telegram.outbox.post(str(Room(anna.id)), Message("Here", pictures=pictures), "job")
    assert len([body for body in world.server.of_bot(anna.id) if said(body) == "Here"]) == 2


async def test_long_texts_are_sent_in_parts(world: World, anna: Person) -> None:
    assert world.telegram is not None
    text = "\n".join(f"line {number} 😀" for number in range(1000))
    buttons = (Button("Go", "go:1"),)
    await world.telegram.outbox.post(str(Room(anna.id)), Message(text, buttons=buttons))
    parts = world.server.of_bot(anna.id)
    assert len(parts) > 2
    assert "\n".join(said(part) for part in parts) == text
    assert [bool(labels(part)) for part in parts] == [*[False] * (len(parts) - 1), True]
    await world.telegram.outbox.post(str(Room(anna.id)), Message(text), "once")
    assert said(world.server.of_bot(anna.id)[-1]).endswith("…")


async def test_the_pace_is_never_too_quick(world: World, anna: Person) -> None:
    group = world.server.group()
    await world.stop()
    world.server.rates = Rates(private=5, group=3)
    telegram = await world.start()
    telegram.outbox.calls._pace = Pace(private=Rate(5, 20), group=Rate(3, 60))
    posts = [telegram.outbox.say(Room(anna.id), Message(f"{n}")) for n in range(5)]
    posts += [telegram.outbox.say(Room(group), Message(f"{n}")) for n in range(3)]
    await asyncio.gather(*posts)
    assert sorted(said(body) for body in world.server.of_bot(anna.id)) == [f"{n}" for n in range(5)]
    for place in (Room(anna.id), Room(group)):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await telegram.outbox.say(place, Message("one too many"))
    assert world.server.refusals == []


async def test_what_never_left_had_no_effect_and_no_error_tells_the_token() -> None:
    server = Server()

    def bot(address: str) -> Bot:
        return Bot(TOKEN, f"{address}/bot", request=Connection(), get_updates_request=Connection(1))

    async with served(server) as address, bot(address) as one:
        server.inject("sendMessage", Cut())
        with pytest.raises(Broken) as broken:
            await one.send_message(1, "hello")
    alone = bot(address)  # nobody is there now
    with pytest.raises(NeverSent) as unsent:
        await alone.initialize()
    await alone.shutdown()
    assert had_no_effect(unsent.value) and not had_no_effect(broken.value)
    for error in (broken.value, unsent.value):
        assert TOKEN not in "".join(traceback.format_exception(error))


async def test_a_crowd_is_told_before_it_is_served(world: World) -> None:
    crowd = [world.server.person(f"Person {number}") for number in range(330)]  # polled in several calls
    await world.stop()
    for one in crowd:
        await one.say("/help")
    world.server.calls.clear()
    await world.start()
    for one in crowd:
        await world.server.until(one.id, "I learn a person")
    told = [method for _, method, _ in world.server.calls if method in ("sendChatAction", "sendMessage")]
    assert told[: len(crowd)] == ["sendChatAction"] * len(crowd)


# Inline mode, polling and webhook


async def test_inline_shows_the_persons_own_pictures(world: World, anna: Person) -> None:
    await world.trained(anna)
    await anna.say("/imagine mia7 --count 3 --seed 3")
    await world.server.until(anna.id, "Here you are")
    ben = world.server.person("Ben")
    for who, words, count in ((anna, "mia", 3), (anna, "", 3), (anna, "cr7d", 0), (ben, "mia7", 0)):
        before = len(world.server.inline)
        await who.ask(words)
        async with asyncio.timeout(PATIENCE):
            while len(world.server.inline) == before:
                await asyncio.sleep(0.01)
        assert len(world.server.inline[-1]) == count, words
    await anna.say("/delete mia7")
    await anna.press(await world.server.until(anna.id, "for good?"), "Erase")
    await world.server.until(anna.id, "mia7 is erased")
    await anna.ask("mia7")
    async with asyncio.timeout(PATIENCE):
        while len(world.server.inline) < 5:
            await asyncio.sleep(0.01)
    assert world.server.inline[-1] == []


async def test_two_pollers_are_told(world: World, anna: Person, caplog: pytest.LogCaptureFixture) -> None:
    async with ClientSession() as session:
        async with asyncio.timeout(PATIENCE):
            while "another process polls" not in caplog.text:
                async with session.post(f"{world.address}/bot{TOKEN}/getUpdates", data={"timeout": "0"}) as answer:
                    await answer.read()
                await asyncio.sleep(0.1)
    assert TOKEN not in caplog.text
    await anna.say("/status")
    await world.server.until(anna.id, "Nothing of yours")


async def test_a_bad_line_at_the_start_ends_no_process(
    world: World, anna: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.stop()
    world.server.inject("deleteWebhook", Cut())
    world.server.inject("getUpdates", Refused(500, "Internal Server Error"))
    add, failures = Records.notes_add, [OSError("the disk is full")]

    async def fails_once(*given: Any) -> set[str]:
        if failures:
            raise failures.pop()
        return await add(*given)

    monkeypatch.setattr(Records, "notes_add", fails_once)
    await world.start()
    await anna.say("/status")
    await world.server.until(anna.id, "Nothing of yours")
    assert failures == []


async def test_the_webhook_knows_its_secret(world: World, anna: Person, unused_tcp_port: int) -> None:
    await world.stop()
    address = f"http://127.0.0.1:{unused_tcp_port}/telegram"
    world.settings = BotSettings(_env_file=None, telegram_webhook_url=address, telegram_webhook_port=unused_tcp_port)
    world.server.inject("setWebhook", Cut())
    await world.start()
    async with asyncio.timeout(PATIENCE):
        while not world.server.webhook:
            await asyncio.sleep(0.01)
    await anna.say("/status", times=2)
    await world.server.until(anna.id, "Nothing of yours")
    async with ClientSession() as session:
        for headers, body, status in (
            ({}, "{}", 403),
            ({"X-Telegram-Bot-Api-Secret-Token": "guess"}, "{}", 403),
            ({"X-Telegram-Bot-Api-Secret-Token": world.server.webhook["secret_token"]}, "no json", 400),
        ):
            async with session.post(address, data=body, headers=headers) as answer:
                assert answer.status == status
    assert len(world.server.of_bot(anna.id)) == 1
    assert TOKEN not in world.server.webhook["secret_token"]


async def test_a_wrong_token_is_said_without_it(world: World) -> None:
    with pytest.raises(TelegramFailure, match="AVATAR_TELEGRAM_TOKEN") as failure:
        async with Telegram(world.storage, "1:wrong", world.address).running():
            pass
    assert "1:wrong" not in str(failure.value)


# The process


async def test_the_process_starts_answers_and_ends(tmp_path: Path) -> None:
    server = Server()
    ben = server.person("Ben")
    async with served(server) as address:
        environment = os.environ | {
            "AVATAR_HOME": str(tmp_path / "home"),
            "AVATAR_TELEGRAM_TOKEN": TOKEN,
            "AVATAR_TELEGRAM_API_URL": f"{address}/",
        }
        bot = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bot", "telegram", stdout=PIPE, stderr=PIPE, env=environment
        )
        assert bot.stdout
        async with asyncio.timeout(120):
            assert (await bot.stdout.readline()) == b"The bot is at https://t.me/AvatarTestBot\n"
            await ben.say("/status")
            await server.until(ben.id, "Nothing of yours", seconds=60)
            bot.terminate()
            _, logged = await bot.communicate()
    assert (bot.returncode, logged) == (0, b"")
    assert server.faults == []


@pytest.mark.slow
async def test_a_process_that_is_killed_goes_on(tmp_path: Path, redis: str) -> None:
    """SIGKILL while photos come in, while an album is taken in, and while a training is started."""
    async with Redis.from_url(redis) as client:
        await client.flushall()
    server, settings = Server(), BotSettings(_env_file=None, home=tmp_path, redis_url=redis)
    anna = server.person("Anna")
    async with open_storage(settings) as storage, served(server) as address:
        environment = os.environ | {
            "AVATAR_HOME": str(tmp_path),
            "AVATAR_REDIS_URL": redis,
            "AVATAR_TELEGRAM_TOKEN": TOKEN,
            "AVATAR_TELEGRAM_API_URL": address,
        }

        async def start() -> asyncio.subprocess.Process:
            bot = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "bot", "telegram", stdout=PIPE, stderr=PIPE, env=environment
            )
            assert bot.stdout
            async with asyncio.timeout(120):
                assert (await bot.stdout.readline()).startswith(b"The bot is at")
            return bot

        async def killed(bot: asyncio.subprocess.Process, calls: int) -> asyncio.subprocess.Process:
            """Kill the process once it has made this many more calls, and start the next."""
            until = len(server.calls) + calls
            async with asyncio.timeout(120):
                while len(server.calls) < until:
                    await asyncio.sleep(0.002)
            bot.kill()
            await bot.communicate()
            return await start()

        engine = Engine(storage.records, storage.blobs, storage.events)  # type: ignore[arg-type]
        working, bot = asyncio.create_task(engine.run()), await start()
        album = anna.album(PHOTOS[:7], "/train mia7 woman", at=6)
        await anna.hand_out(album)
        bot = await killed(bot, 4)
        asked = await server.until(anna.id, "mia7 woman: 7 photos. One question")
        await anna.press(asked, "They agreed")
        bot = await killed(bot, 2)
        await anna.press(await server.until(anna.id, "7 photos, all good"), "Train")
        bot = await killed(bot, 2)
        await server.until(anna.id, "mia7 is ready")
        await asyncio.sleep(1)
        bot.terminate()
        await bot.communicate()
        engine.stopping.set()
        await working
    assert [type(job.payload) for job in engine.seen] == [Inspect, Train]
    assert sum("mia7 is ready" in said(one) for one in server.of_bot(anna.id)) == 1
    assert server.faults == []


async def test_the_process_needs_a_token(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AVATAR_TELEGRAM")}
    bot = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "telegram", stderr=PIPE, env=environment | {"AVATAR_HOME": str(tmp_path)}
    )
    _, logged = await bot.communicate()
    assert bot.returncode == 2
    assert b"set AVATAR_TELEGRAM_TOKEN" in logged and logged.count(b"\n") == 1


# Rules


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=200), st.integers(4, 30))
def test_pieces_fit_and_lose_nothing(text: str, most: int) -> None:
    parts = pieces(text, most)
    assert all(0 < units(part) <= most for part in parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_button_whose_action_is_too_long_is_a_bug() -> None:
    assert keyboard([Button("x", "a" * 64)]) is not None
    with pytest.raises(ValueError, match="64 bytes"):
        keyboard([Button("x", "é" * 33)])


def test_rooms_of_other_platforms_are_refused() -> None:
    for place in (Room(5), Room(-100, 7)):
        assert Room.read(str(place)) == place
    with pytest.raises(ValueError, match="not a room"):
        Room.read("studio")


async def test_turns_keep_their_order_and_silence() -> None:
    pace, order = Pace(private=Rate(2, 0.3)), []

    async def turn(number: int) -> None:
        await pace.turn(1)
        order.append(number)

    started = asyncio.get_running_loop().time()
    await asyncio.gather(*(turn(number) for number in range(5)))
    assert order == list(range(5))
    assert asyncio.get_running_loop().time() - started >= 0.6
    pace.pause(2, 0.3)
    started = asyncio.get_running_loop().time()
    await pace.turn(2, 10)
    assert asyncio.get_running_loop().time() - started >= 0.3


# The server itself


@pytest.mark.parametrize(
    ("method", "given", "refused"),
    [
        ("sendMessage", {"text": "x" * 4097}, "message is too long"),
        ("sendMessage", {"text": " "}, "message text is empty"),
        ("sendMessage", {"text": "x", "chat_id": 9}, "chat not found"),
        ("sendMessage", {"text": "x", "message_thread_id": 3}, "message thread not found"),
        (
            "sendMessage",
            {"text": "x", "reply_markup": '{"inline_keyboard": [[{"text": "x", "callback_data": "%s"}]]}' % ("é" * 33)},
            "BUTTON_DATA_INVALID",
        ),
        ("editMessageText", {"text": "x", "message_id": 999}, "message to edit not found"),
        ("sendMediaGroup", {"media": '[{"type": "photo", "media": "attach://x"}]'}, "MEDIA_GROUP_SIZE_INVALID"),
        ("answerCallbackQuery", {"callback_query_id": "0"}, "query is too old"),
        ("setMyCommands", {"commands": '[{"command": "Bad", "description": "x"}]'}, "BOT_COMMAND_INVALID"),
    ],
)
async def test_the_server_refuses_what_telegram_refuses(method: str, given: dict[str, str], refused: str) -> None:
    server = Server()
    ben = server.person("Ben")
    async with served(server) as address, ClientSession() as session:
        values = {"chat_id": str(ben.id), **{name: str(value) for name, value in given.items()}}
        if not PARAMETERS[method] & {"chat_id"}:
            del values["chat_id"]
        async with session.post(f"{address}/bot{TOKEN}/{method}", data=values) as answer:
            body = await answer.json()
    assert not body["ok"]
    assert refused in body["description"]
    assert server.faults == []


async def test_the_server_hands_out_what_a_bot_gets() -> None:
    server = Server()
    ben, group = server.person("Ben"), server.group()

    async def handed_out() -> list[str]:
        async with session.post(f"{address}/bot{TOKEN}/getUpdates", data=given) as answer:
            return [said(update.get("message", {})) for update in (await answer.json())["result"]]

    async with served(server) as address, ClientSession() as session:
        given = {"allowed_updates": '["message"]'}
        assert await handed_out() == []
        await ben.ask("mia7")
        shown = server.add(group, BOT, text="Here you are")
        await ben.say("good morning", chat=group)
        await ben.say("/status", chat=group)
        await ben.say("lovely", chat=group, reply_to_message=shown)
        await ben.say("good morning")
        assert await handed_out() == ["/status", "lovely", "good morning"]


async def test_the_server_fails_loudly_on_what_it_does_not_know() -> None:
    server = Server()
    async with served(server) as address, ClientSession() as session:
        for path, values in ((f"bot{TOKEN}/sendDice", {}), ("elsewhere", {}), (f"bot{TOKEN}/getMe", {"colour": "red"})):
            async with session.post(f"{address}/{path}", data=values) as answer:
                await answer.read()
    assert len(server.faults) == 3

    assert TOKEN not in "".join(server.faults)
