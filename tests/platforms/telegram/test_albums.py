"""Gathering photos in a private chat until their command can run."""

import random
from datetime import timedelta

import pytest

from bot import limits
from storage.jobs import Inspect
from tests.platforms.telegram.world import PHOTOS, World
from tests.platforms.telegram_server import (
    BOT,
    Person,
    Refused,
    said,
)
from tests.until import until


async def test_an_album_that_waited_through_a_restart_is_answered_in_its_language(world: World) -> None:
    mia = world.server.person("Mia", language="de")
    world.quiet = 0.5
    await world.restart()
    await mia.send(PHOTOS[:8])
    await until(lambda: world.has_notes("telegram/photos", 8))
    await world.restart()
    await world.server.until(mia.id, "8 Fotos. Wer ist das?")


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
    for avatar in await world.storage.records.avatars.owned_by(user):
        keys = [photo.key for photo in await world.storage.records.avatars.photos(avatar.id)]
        found[avatar.token] = [await world.storage.blobs.get(key) for key in keys]
    assert found == {"mia7": PHOTOS[:5], "ben7": PHOTOS[5:11]}


async def test_a_photo_that_comes_late(world: World, anna: Person) -> None:
    album = anna.album(PHOTOS[:7], "/train mia7 woman")
    await anna.hand_out(album[:5])
    early = await world.server.until(anna.id, "mia7 woman: 5 photos")
    await anna.hand_out(album[5:6])
    asked = await world.server.until(anna.id, "mia7 woman: 6 photos")
    await until(lambda: (anna.id, early["message_id"]) not in world.server.messages)
    await anna.press(asked, "They agreed")
    await world.server.until(anna.id, "6 photos, all good")
    await anna.hand_out(album[4:])
    await world.server.until(anna.id, "came after its album was closed")
    await world.trays_settled()
    assert len([body for body in world.server.of_bot(anna.id) if "came after" in said(body)]) == 1
    assert len(await world.jobs(Inspect)) == 1
    assert await world.storage.blobs.list(f"incoming/telegram/{anna.id}/") == []


async def test_an_eleventh_photo_starts_no_second_album(world: World, anna: Person) -> None:
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
            await world.server.alerted("I need at least 5")
    await anna.press(await world.server.until(anna.id, "11 photos so far"), "Done")
    asked = await world.server.until(
        anna.id, "mia7 woman: 11 photos. 10 is the most I can use, so I leave out the last 1"
    )
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
    await world.server.until(anna.id, "5 photos. Who is it?")
    await world.server.until(anna.id, "6 photos. Who is it?")
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
    await world.server.until(anna.id, "5 photos. Who is it?")
    edited = {**album[2], "caption": "/train mia7 woman", "edit_date": album[2]["date"]}
    await world.server.push(edited_message=edited)
    await world.server.until(anna.id, "mia7 woman: 5 photos. One question")


@pytest.mark.parametrize("kind", ["", "application/octet-stream"])
async def test_documents_without_a_type_are_known_by_their_content(world: World, anna: Person, kind: str) -> None:
    letters = [anna.photo(b"Dear Anna, " * 40, kind), anna.photo(PHOTOS[0][:4], kind)]
    await anna.hand_out(letters)
    await anna.send(PHOTOS[:6], "/train mia7 woman", kind=kind)
    asked = await world.server.until(anna.id, "mia7 woman: 6 photos")
    await anna.press(asked, "They agreed")
    await world.server.until(anna.id, "6 photos, all good")
    assert len([body for body in world.server.of_bot(anna.id) if "only learn from pictures" in said(body)]) == 2


@pytest.mark.parametrize("at", range(3))
async def test_the_command_of_an_album_is_heard_whoever_carries_it(world: World, anna: Person, at: int) -> None:
    song, letter, *photos = anna.album([b"song", b"Dear Anna", *PHOTOS[:5]], "/train mia7 woman", at=at)
    song["audio"] = {**song.pop("photo")[0], "duration": 3}
    letter["document"] = letter.pop("photo")[0]
    album = [song, letter, *photos]
    await anna.hand_out(album)
    await world.server.until(anna.id, "mia7 woman: 5 photos. One question")
    # What cannot be learned is said once, not of every file.
    assert len([body for body in world.server.of_bot(anna.id) if "only learn from pictures" in said(body)]) == 1


async def test_a_command_whose_album_has_no_picture_waits_for_photos(world: World, anna: Person) -> None:
    await anna.send([b"Dear Anna", b"Dear Ben"], "/train mia7 woman", kind="application/octet-stream")
    await world.server.until(anna.id, "Now send me the photos")
    await anna.send(PHOTOS[:5])
    await world.server.until(anna.id, "mia7 woman: 5 photos. One question")


async def test_files_that_are_refused(world: World, anna: Person) -> None:
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


async def test_photos_without_a_command_are_erased_after_a_day(
    world: World, anna: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert world.telegram is not None
    await anna.send(PHOTOS[:3])
    await world.server.until(anna.id, "3 photos. Who is it?")
    await world.telegram.albums.expire()
    assert len(await world.storage.blobs.list("incoming/")) == 3
    monkeypatch.setattr("bot.frontends.telegram.albums.KEPT", timedelta())
    await world.telegram.albums.expire()
    await world.server.until(anna.id, "I have erased the 3 photos you sent")
    assert await world.storage.blobs.list("incoming/") == []
    assert await world.notes("telegram/trays") == await world.notes("telegram/photos") == []


async def test_a_restart_loses_no_photo(world: World, anna: Person) -> None:
    album = anna.album(PHOTOS[:8], "/train mia7 woman", at=7)
    await anna.hand_out(album[:3])
    await until(lambda: world.has_notes("telegram/photos", 3))
    await world.stop()
    await anna.hand_out(album[2:])
    await world.start()
    asked = await world.server.until(anna.id, "mia7 woman: 8 photos")
    await world.restart()
    await anna.press(asked, "They agreed")
    await world.server.until(anna.id, "8 photos, all good")
