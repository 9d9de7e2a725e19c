"""Sending and editing: errors, lost receipts, progress, pictures, long texts and the pace."""

import asyncio
import traceback

import pytest
from telegram import Bot

from bot.frontends.telegram.calls import had_no_effect
from bot.frontends.telegram.connection import Broken, Connection, NeverSent
from bot.frontends.telegram.edits import Gaps, split
from bot.frontends.telegram.pace import Pace, Rate
from bot.frontends.telegram.rooms import Room
from bot.messages import Button, Message, Progress, Shown
from bot.settings import BotSettings
from storage.jobs import Imagine
from tests.fakes.clock import Clock
from tests.platforms.telegram.world import FAST, PHOTOS, World
from tests.platforms.telegram_server import (
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
from tests.until import until


async def test_an_answer_follows_once_the_bot_is_unblocked(world: World, anna: Person) -> None:
    await world.trained(anna)
    world.engine.pause = 0.1
    await anna.say("/imagine mia7 --count 2 --seed 3")
    await world.server.until(anna.id, "Drawing")
    await anna.membership("kicked")
    await until(lambda: world.notes("telegram/missed"))
    [job] = await world.jobs(Imagine)
    await until(lambda: world.delivered(job.id))
    await anna.membership("member")
    await world.server.until(anna.id, "Here you are (seeds 3 and 4)")
    await until(lambda: world.has_notes("telegram/missed", 0))


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
    await world.settled()
    told = [text for texts in world.server.told.values() for text in texts if "Here you are" in text]
    assert len(told) == len(await world.jobs(Imagine)) == 1
    albums = [body for body in world.server.of_bot(anna.id)[before:] if "media_group_id" in body]
    lost = isinstance(error, Cut | Refused) and method == "sendMediaGroup" and "429" not in repr(error)
    shown = next(body for body in world.server.of_bot(anna.id) if "Here you are" in said(body))
    if "Show the pictures" in labels(shown):
        assert lost and not albums
        await anna.press(shown, "Show the pictures")
        await until(lambda: [body for body in world.server.of_bot(anna.id)[before:] if "media_group_id" in body])
    else:
        assert len(albums) == 2


async def test_typing_respects_retry_after(world: World, anna: Person) -> None:
    clock = Clock()
    world.pace = Pace(FAST, FAST, FAST, clock=clock, sleep=clock.sleep)
    calls = (await world.restart()).outbox.calls

    def asked() -> int:
        return len([method for _, method, _ in world.server.calls if method == "sendChatAction"])

    world.server.inject("sendChatAction", Refused(429, "Too Many Requests: retry after 1", retry_after=1))
    await calls.typing(Room(anna.id))
    assert asked() == 2 and [chat for _, chat in world.server.actions] == [anna.id]
    assert clock.now == 1
    # After a longer silence the reply itself is as near.
    world.server.inject("sendChatAction", Refused(429, "Too Many Requests: retry after 5", retry_after=5))
    await calls.typing(Room(anna.id))
    await calls.typing(Room(anna.id))
    assert asked() == 3
    await anna.say("/help")
    await world.server.until(anna.id, "Show me 5 to 10 photos")
    assert clock.now >= 1 + 5


@pytest.mark.parametrize("method", ["sendMessage", "sendMediaGroup"])
async def test_an_answer_whose_receipt_is_lost_comes_once(world: World, anna: Person, method: str) -> None:
    await world.trained(anna)
    world.engine.pause = 0.1
    world.engine.remarks = {"unknown": [{"phrase": "submarine", "similar": []}], "known": {}}
    await anna.say("/imagine mia7 --count 2 --seed 3")
    await world.server.until(anna.id, "Drawing")
    world.server.inject(method, Cut(), after=True)
    shown = await world.server.until(anna.id, "Here you are")
    assert said(shown).splitlines()[-1] == "I can't draw “submarine” yet; I drew the rest."
    await world.settled()
    told = [text for texts in world.server.told.values() for text in texts if "Here you are" in text]
    assert len(told) == 1
    assert ("Show the pictures" in labels(shown)) is (method == "sendMediaGroup")
    assert len([body for body in world.server.of_bot(anna.id) if said(body) == "mia7"]) == 1


@pytest.mark.parametrize("after", [False, True])
async def test_a_reply_that_may_have_arrived_is_not_sent_again(world: World, anna: Person, after: bool) -> None:
    world.server.inject("sendMessage", Cut(), after=after)
    await anna.say("/status")
    await world.server.until(anna.id, "If there is no answer above")
    assert len([body for body in world.server.of_bot(anna.id) if "You have no jobs" in said(body)]) == int(after)
    await anna.say("/status")
    await world.server.until(anna.id, "You have no jobs", 1 + int(after))


async def test_originals_whose_receipt_is_lost_come_once(world: World, anna: Person) -> None:
    await world.trained(anna)
    await anna.say("/imagine mia7 --count 2 --seed 3")
    drawn = await world.server.until(anna.id, "Here you are")
    world.server.inject("sendMediaGroup", Cut(), after=True)
    await anna.press(drawn, "Originals")
    await world.server.until(anna.id, "If there is no answer above")
    await world.settled()
    assert len([body for body in world.server.of_bot(anna.id) if "document" in body]) == 2
    await anna.press(drawn, "Originals")
    await world.server.documents(anna.id, 4)


async def test_a_command_whose_answer_did_not_get_through_is_not_run_again(world: World, anna: Person) -> None:
    server, records = world.server, world.storage.records
    world.settings = BotSettings(_env_file=None, operators=f"telegram:{anna.id}")
    await world.restart()
    await world.trained(anna)
    down = Refused(500, "Internal Server Error")
    server.inject("sendMessage", down, times=3)
    await anna.say("/operator broadcast I rest at ten")
    await server.until(anna.id, "A message from the people who run this bot: I rest at ten")
    await server.until(anna.id, "1 room")
    await world.settled()
    assert len([body for body in server.of_bot(anna.id) if "I rest at ten" in said(body)]) == 1

    other = await records.users.get_or_create("discord", "7", "Anna")
    code = await records.users.link_code(other.id)
    server.inject("sendMessage", down, times=3)
    await anna.say(f"/link {code}")
    await server.until(anna.id, "one person")

    await anna.say("/forget")
    asked = await server.until(anna.id, "Forget you for good?")
    server.inject("sendMessage", down, times=3)
    await anna.press(asked, "Erase everything")
    await server.until(anna.id, "You are forgotten")
    assert not await records.users.exists("telegram", str(anna.id))


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
        await until(lambda step=step: f"step {step}" in said(world.server.messages[anna.id, number]))
    methods = [name for _, name, _ in world.server.calls if name.startswith("edit")]
    assert methods == ["editMessageMedia", "editMessageCaption", "editMessageMedia"]
    telegram = await world.restart()  # which knows nothing of what the message shows
    await telegram.outbox.edit(ref, Message("Training: done."))
    await telegram.outbox.edit(ref, Message("Training: done."))
    assert said(world.server.messages[anna.id, number]) == "Training: done."
    telegram = await world.restart()
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
    group, clock = world.server.group(), Clock(stopped=True)
    world.server.rates = Rates(private=5, group=3)
    world.pace = Pace(private=Rate(5, 20), group=Rate(3, 60), clock=clock, sleep=clock.sleep)
    telegram = await world.restart()
    posts = [telegram.outbox.say(Room(anna.id), Message(f"{n}")) for n in range(5)]
    posts += [telegram.outbox.say(Room(group), Message(f"{n}")) for n in range(3)]
    await asyncio.gather(*posts)
    assert sorted(said(body) for body in world.server.of_bot(anna.id)) == [f"{n}" for n in range(5)]
    assert clock.sleeps == []
    for number, room in enumerate((Room(anna.id), Room(group)), start=1):
        waiting = asyncio.create_task(telegram.outbox.say(room, Message("one too many")))
        await until(lambda number=number: len(clock.sleeps) == number)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    assert clock.sleeps == [20, 60]
    assert not [body for chat in (anna.id, group) for body in world.server.of_bot(chat) if "too many" in said(body)]
    assert world.server.refusals == []


async def test_errors_tell_whether_a_request_was_sent_but_not_the_token() -> None:
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
