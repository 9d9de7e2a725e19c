"""A request that is delivered twice, at once or much later, does its work once."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bot.commands.commands import Commands
from bot.frontends.chat.bot import Chat
from bot.frontends.chat.sessions import Signer
from bot.messages import Caller, Reply
from storage.jobs import Imagine, Inspect, State, Train
from storage.open import Storage
from tests.bot.browser import Browser
from tests.fakes.bot import album

PHOTOS = [b"photo %d" % number for number in range(6)]


def anna(bot: Any, request: str) -> Caller:
    return replace(bot.caller(), request=request)


async def jobs(bot: Any, kind: type) -> list[Any]:
    owner = await bot.records.users.get_or_create("chat", "anna", "Anna")
    return [job for job in await bot.records.jobs.for_user(owner.id) if isinstance(job.payload, kind)]


async def line(bot: Any, request: str, text: str, photos: list[bytes] | None = None) -> Reply:
    return await bot.commands.line(anna(bot, request), text, album(photos or []), consent=True)


async def test_a_drawing_is_made_once(bot: Any) -> None:
    await bot.avatar("mia7")
    first, second = await asyncio.gather(*[line(bot, "chat:1", "/imagine mia7 --count 1") for _ in range(2)])
    assert first.job_id == second.job_id is not None
    assert first.message == second.message
    await bot.engine.work_off()
    late = await line(bot, "chat:1", "/imagine mia7 --count 1")
    assert (late.job_id, late.message.text) == (first.job_id, "Drawing: done.")
    assert [job.id for job in await jobs(bot, Imagine)] == [first.job_id]


async def test_the_same_line_in_another_request_is_another_drawing(bot: Any) -> None:
    await bot.avatar("mia7")
    replies = [await line(bot, f"chat:{number}", "/imagine mia7 --count 1") for number in range(3)]
    assert len({reply.job_id for reply in replies}) == 3
    assert len(await jobs(bot, Imagine)) == 3


async def test_a_request_of_another_person_is_their_own(bot: Any) -> None:
    await bot.avatar("mia7")
    await bot.say("/share mia7")
    hers = await line(bot, "chat:1", "/imagine mia7 --count 1")
    his = await bot.commands.line(replace(bot.caller("Ben"), request="chat:1"), "/imagine mia7 --count 1")
    assert hers.job_id and his.job_id and hers.job_id != his.job_id


async def test_an_album_is_taken_in_once(bot: Any) -> None:
    first, second = await asyncio.gather(*[line(bot, "chat:1", "/train mia7 woman", PHOTOS) for _ in range(2)])
    assert first.job_id == second.job_id is not None
    [job] = await jobs(bot, Inspect)
    owner = await bot.records.users.get_or_create("chat", "anna", "Anna")
    [avatar] = await bot.records.avatars.owned_by(owner.id)
    assert job.payload == Inspect(avatar.id)
    assert len(await bot.kept()) == len(PHOTOS)


async def test_a_training_is_started_once(bot: Any) -> None:
    checked = await bot.answer(await line(bot, "chat:1", "/train mia7 woman", PHOTOS))
    action = checked.buttons[0].action
    first, second = await asyncio.gather(*[bot.commands.press(anna(bot, "chat:2"), action) for _ in range(2)])
    assert first.job_id == second.job_id is not None
    other = await bot.commands.press(anna(bot, "chat:3"), action)
    assert "already training" in other.message.text
    assert len(await jobs(bot, Train)) == 1


async def test_a_press_draws_again_once_and_a_second_press_once_more(bot: Any) -> None:
    await bot.avatar("mia7")
    drawn = await bot.answer(await bot.say("/imagine mia7 --count 1"))
    again = next(button.action for button in drawn.buttons if button.action.startswith("again:"))
    ids = [(await bot.commands.press(anna(bot, request), again)).job_id for request in ("chat:1", "chat:1", "chat:2")]
    assert ids[0] == ids[1] != ids[2]
    assert len(await jobs(bot, Imagine)) == 3


@pytest.mark.parametrize("ended", [False, True])
async def test_the_reply_to_a_repeated_press_leaves_the_same_buttons(bot: Any, ended: bool) -> None:
    checked = await bot.answer(await line(bot, "chat:1", "/train mia7 woman", PHOTOS))
    trained = [await bot.commands.press(anna(bot, "chat:2"), checked.buttons[0].action)]
    if ended:
        await bot.engine.work_off()
    trained.append(await bot.commands.press(anna(bot, "chat:2"), checked.buttons[0].action))
    assert [reply.spent for reply in trained] == [True, True]
    await bot.engine.work_off()
    drawn = await bot.answer(await line(bot, "chat:3", "/imagine mia7 --count 1"))
    again = next(button.action for button in drawn.buttons if button.action.startswith("again:"))
    drawings = [await bot.commands.press(anna(bot, "chat:4"), again)]
    if ended:
        await bot.engine.work_off()
    drawings.append(await bot.commands.press(anna(bot, "chat:4"), again))
    assert [reply.spent for reply in drawings] == [False, False]


async def test_a_request_that_arrives_again_after_forget_creates_nobody(bot: Any) -> None:
    await line(bot, "chat:1", "/train mia7 woman", PHOTOS)
    asked = await line(bot, "chat:2", "/forget")
    erase = next(button.action for button in asked.message.buttons if button.action.startswith("forget-all:"))
    await bot.commands.press(anna(bot, "chat:3"), erase)
    assert not await bot.records.users.exists("chat", "anna")
    assert (await line(bot, "chat:1", "/train mia7 woman", PHOTOS)).job_id is None
    assert not await bot.records.users.exists("chat", "anna")
    assert await bot.kept() == []


async def test_a_repeated_request_is_not_refused_for_what_it_used_up(bot: Any) -> None:
    await bot.avatar("mia7")
    await bot.records.quotas.update({"pictures": 1})
    first = await line(bot, "chat:1", "/imagine mia7 --count 1")
    assert (await line(bot, "chat:1", "/imagine mia7 --count 1")).job_id == first.job_id is not None
    assert "used up" in (await line(bot, "chat:2", "/imagine mia7 --count 1")).message.text


@pytest.mark.parametrize("restarted", [False, True])
async def test_cancel_without_a_name_stops_one_job(bot: Any, restarted: bool) -> None:
    await bot.avatar("mia7")
    older, newer = [await line(bot, f"chat:{number}", "/imagine mia7 --count 1") for number in (1, 2)]
    first = await line(bot, "chat:3", "/cancel")
    if restarted:
        bot.commands = Commands(bot.records, bot.blobs, bot.queue, bot.events)
    assert (await line(bot, "chat:3", "/cancel")).message == first.message
    states = [(await bot.records.jobs.get(reply.job_id)).state for reply in (older, newer)]
    assert states == [State.QUEUED, State.CANCELLED]
    await line(bot, "chat:4", "/cancel")
    assert (await bot.records.jobs.get(older.job_id)).state == State.CANCELLED


async def test_sharing_renaming_and_erasing_twice_change_nothing_more(bot: Any) -> None:
    avatar = await bot.avatar("mia7")
    for _ in range(2):
        await line(bot, "chat:1", "/share mia7")
    assert len(await bot.records.grants.for_avatar(avatar.id)) == 1
    for _ in range(2):
        await line(bot, "chat:2", "/unshare mia7")
    assert await bot.records.grants.for_avatar(avatar.id) == []
    for _ in range(2):
        await line(bot, "chat:3", "/avatars mia7 --rename mia8")
    owner = await bot.records.users.get_or_create("chat", "anna", "Anna")
    assert [one.token for one in await bot.records.avatars.owned_by(owner.id)] == ["mia8"]
    for _ in range(2):
        await bot.commands.press(anna(bot, "chat:4"), f"erase:{avatar.id}")
    assert await bot.records.avatars.owned_by(owner.id) == []


# Over the chat's HTTP


@pytest.fixture
async def page(chat: str) -> AsyncIterator[Browser]:
    browser = Browser(chat)
    yield await browser.enter("Anna")
    await browser.session.close()


async def said(bot: Any, author: str) -> list[str]:
    """What an author's lines in the room say; the bot has no name."""
    return [line.body["text"] for line in await bot.records.chat.history("studio") if line.author == author]


async def test_a_message_that_the_browser_sends_twice(page: Browser, bot: Any) -> None:
    await bot.avatar("mia7")
    sent = [page.say("/imagine mia7 --count 1 --seed 5", key="0123456789abcdef") for _ in range(2)]
    first, second = await asyncio.gather(*sent)
    assert first["job"] == second["job"]
    listener = await page.listen()
    await listener.until("Here you are")
    assert (await page.say("/imagine mia7 --count 1 --seed 5", key="0123456789abcdef"))["job"] == first["job"]
    assert await said(bot, "Anna") == ["/imagine mia7 --count 1 --seed 5"]
    assert [text.split(" (")[0] for text in await said(bot, "") if text.startswith(("Drawing", "Here"))] == [
        "Drawing: done.",
        "Here you are",
    ]
    assert [job.id for job in await jobs(bot, Imagine)] == [first["job"]]


async def test_a_line_that_the_browser_sends_twice(page: Browser, bot: Any) -> None:
    for key in ("0123456789abcdef", "0123456789abcdef", "another-key"):
        await page.say("Hello!", key=key)
    assert await said(bot, "Anna") == ["Hello!", "Hello!"]


async def test_an_album_and_a_press_that_the_browser_sends_twice(page: Browser, bot: Any) -> None:
    sent = [page.say("/train mia7 woman", PHOTOS, key="0123456789abcdef") for _ in range(2)]
    first, second = await asyncio.gather(*sent)
    assert first["job"] == second["job"]
    checked = await (await page.listen()).until("6 photos, all good")
    presses = await asyncio.gather(*[page.press(checked, "Train", key="fedcba9876543210") for _ in range(2)])
    assert presses[0]["job"] == presses[1]["job"]
    assert (len(await jobs(bot, Inspect)), len(await jobs(bot, Train))) == (1, 1)
    trained = await (await page.listen()).until("mia7 is ready")
    assert trained["body"]["job"] == presses[0]["job"]
    assert len([text for text in await said(bot, "") if "is ready" in text]) == 1


async def test_two_presses_on_purpose_are_two_requests(page: Browser, bot: Any) -> None:
    await bot.avatar("mia7")
    await page.say("/imagine mia7 --count 1", key="0123456789abcdef")
    drawn = await (await page.listen()).until("Here you are")
    ids = [(await page.press(drawn, "Again", key=key))["job"] for key in ("press-one", "press-two", "press-two", "")]
    assert ids[1] == ids[2] and len(set(ids)) == 3


async def test_a_message_replayed_to_a_restarted_chat(page: Browser, bot: Any, tmp_path: Path) -> None:
    await bot.avatar("mia7")
    first = await page.say("/imagine mia7 --count 1", key="0123456789abcdef")
    storage = Storage(bot.records, bot.blobs, bot.queue, bot.events)
    restarted = Chat(storage, Signer.at(tmp_path / "chat.key"))
    runner = web.AppRunner(restarted.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    later = Browser(f"http://127.0.0.1:{runner.addresses[0][1]}")
    await later.enter("Anna")
    assert (await later.say("/imagine mia7 --count 1", key="0123456789abcdef"))["job"] == first["job"]
    await later.session.close()
    await runner.cleanup()
    assert len(await jobs(bot, Imagine)) == 1
    assert await said(bot, "Anna") == ["/imagine mia7 --count 1"]


async def test_a_key_is_short_and_plain(page: Browser) -> None:
    for key in ("short", "x" * 65, "no spaces here", "ünïcödé-key"):
        headers = {"Idempotency-Key": key.encode().decode("latin-1")}
        body = {"action": "help", "message": 1}
        async with page.session.post("/api/rooms/studio/press", json=body, headers=headers) as response:
            assert response.status == 400
