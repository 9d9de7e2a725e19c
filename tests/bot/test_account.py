"""One person on two platforms, what is kept about them, and that nothing is left of who wants to be forgotten."""

import asyncio
import json
import sqlite3
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.delivery import Delivery
from bot.messages import Caller, Message, Upload
from storage.jobs import State
from storage.records.linking import REDEEMED

MARK = b"the-face-of-anna"
ON_DISCORD = Caller("discord", "471108154711", "Anna Berg", "900")


async def code_of(bot: Any, caller: Caller) -> str:
    reply = await bot.commands.line(caller, "/link")
    assert reply.private
    return str(reply.message.text.split("/link ")[1].split()[0])


# /link


async def test_train_here_and_imagine_there(bot: Any) -> None:
    mia = await bot.avatar("mia7")
    assert (await bot.commands.line(ON_DISCORD, "/imagine mia7")).job_id is None
    code = await code_of(bot, bot.caller())
    joined = await bot.commands.line(ON_DISCORD, f"/link {code.upper()}")
    assert "Anna Berg here and Anna on chat are one person" in joined.message.text
    there = await bot.records.users.account_on(mia.owner_id, "discord")
    assert (there.id, there.platform_id) == (mia.owner_id, ON_DISCORD.platform_id)
    assert await bot.records.users.account_on(mia.owner_id, "telegram") is None
    drawing = await bot.commands.line(ON_DISCORD, "/imagine mia7")
    job = await bot.records.jobs.get(drawing.job_id)
    assert (job.payload.avatar_ids, job.frontend, job.room) == ((mia.id,), "discord", "900")
    assert "Anna's" not in (await bot.answer(drawing)).text
    assert drawing.job_id[:4] not in (await bot.say("/status")).message.text
    again = await bot.commands.line(ON_DISCORD, "/imagine mia7")
    assert again.job_id in (await bot.say("/status")).message.text


async def test_linked_accounts_keep_their_avatars(bot: Any) -> None:
    here, ben = await bot.avatar("mia7"), await bot.avatar("ben5", "Ben")
    code = await code_of(bot, ON_DISCORD)
    there = await bot.records.users.get_or_create("discord", ON_DISCORD.platform_id, "Anna Berg")
    theirs = await bot.records.avatars.create(there.id, "mia7", "woman", [], "1")
    await bot.records.avatars.update(theirs.id, state="ready", adapter_key="adapters/x/a")
    await bot.records.grants.create(ben.id, "user", there.id)
    await bot.records.grants.create(here.id, "user", there.id)

    joined = await bot.say(f"/link {code}")
    assert "mia7 is called mia1 now" in joined.message.text
    owned = await bot.records.avatars.owned_by(there.id)
    assert {(one.id, one.token, one.learned_as) for one in owned} == {
        (here.id, "mia1", "mia7"),
        (theirs.id, "mia7", "mia7"),
    }
    usable = await bot.commands.complete(bot.caller(), "avatars")
    assert {one.value for one in usable} == {"mia1", "mia7", "ben5"}
    assert await bot.records.grants.for_avatar(here.id) == []
    assert len(await bot.records.users.accounts(there.id)) == 2


async def test_a_link_code_works_once_within_ten_minutes(bot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    used, replaced = await code_of(bot, bot.caller("Ben")), await code_of(bot, bot.caller())
    fresh = await code_of(bot, bot.caller())
    assert "unknown, used or older" in (await bot.commands.line(ON_DISCORD, f"/link {replaced}")).message.text
    assert "one person" in (await bot.commands.line(ON_DISCORD, f"/link {fresh}")).message.text
    telegram = Caller("telegram", "5", "Eve", "5")
    for code in (fresh, "", "x", "bcdfghjk", used[:-1]):
        text = (await bot.commands.line(telegram, f"/link {code}.")).message.text
        assert "unknown, used or older" in text
    clock = bot.records.database.clock
    monkeypatch.setattr(bot.records.database, "clock", lambda: clock() + timedelta(minutes=10, seconds=1))
    assert "unknown, used or older" in (await bot.commands.line(telegram, f"/link {used}")).message.text
    assert [len(await bot.records.users.accounts((await bot.records.users.get_or_create(*who)).id)) for who in (
        ("chat", "anna", "Anna"), ("chat", "ben", "Ben"), ("telegram", "5", "Eve"))] == [2, 1, 1]  # fmt: skip


async def test_redeeming_again_says_the_same_and_changes_nothing(bot: Any) -> None:
    """A frontend that died before it answered runs the command again."""
    await bot.avatar("mia7")
    code = await code_of(bot, ON_DISCORD)
    first = await bot.say(f"/link {code}")
    [account, joined] = await bot.records.users.accounts(
        (await bot.records.users.get_or_create("chat", "anna", "Anna")).id
    )
    own = await bot.records.avatars.owned_by(account.id)
    assert "one person" in first.message.text and (account.platform, joined.platform) == ("chat", "discord")
    again = await bot.say(f"/link {code}")
    assert again.message == first.message
    assert await bot.records.users.accounts(account.id) == [account, joined]
    assert await bot.records.avatars.owned_by(account.id) == own
    assert "your own" in (await bot.commands.line(ON_DISCORD, f"/link {code}")).message.text
    assert "unknown, used" in (await bot.say(f"/link {code}", name="Ben")).message.text
    # Nor does it stay with whoever is forgotten.
    reply = await bot.say("/forget")
    await bot.press(next(button.action for button in reply.message.buttons if button.action.startswith("forget-all")))
    assert await bot.records.notes.find(REDEEMED) == []


async def test_accounts_that_cannot_be_linked(bot: Any) -> None:
    own = await code_of(bot, bot.caller())
    assert "your own" in (await bot.say(f"/link {own}")).message.text
    another = await code_of(bot, bot.caller())
    assert "accounts on chat" in (await bot.say(f"/link {another}", name="Ben")).message.text
    assert "unknown, used" in (await bot.commands.line(ON_DISCORD, f"/link {another}")).message.text
    banned = await code_of(bot, bot.caller())
    await bot.records.operators.ban("chat", "anna")
    assert "banned" in (await bot.commands.line(ON_DISCORD, f"/link {banned}")).message.text
    assert (await bot.commands.line(ON_DISCORD, "/avatars")).message.text.startswith("You have no avatar")


# /mydata and /privacy


async def test_mydata_counts_and_lists(bot: Any) -> None:
    await bot.avatar("mia7")
    await bot.answer(await bot.say("/imagine mia7 in a suit --count 2"))
    await bot.say("/share mia7")
    await bot.records.chat.append("studio", "Anna", {"text": "hello", "photos": 0})
    await bot.records.chat.append("studio", "Ben", {"text": "mine", "photos": 0})
    reply = await bot.say("/mydata")
    assert reply.private
    assert "1 avatar, 6 photos, 2 pictures, 3 requests and 1 chat line of yours." in reply.message.text
    [file] = reply.message.files
    data = json.loads(file.content)
    assert [one["name"] for one in data["accounts"]] == ["Anna"]
    assert [one["token"] for one in data["avatars"]] == ["mia7"]
    assert {one["payload"].get("prompt") for one in data["jobs"]} == {None, "mia7 in a suit"}
    assert [one["body"]["text"] for one in data["chat_lines"]] == ["hello"]
    assert len(data["photos"]) == 6
    assert "mine" not in file.content


async def test_mydata_of_somebody_new(bot: Any) -> None:
    assert "0 avatars, 0 photos" in (await bot.say("/mydata", name="Ben")).message.text


async def test_privacy_says_what_how_long_and_how_to_erase(bot: Any) -> None:
    text = (await bot.say("/privacy")).message.text
    assert all(word in text for word in ("Photos", "Pictures", "Where", "until /forget", "fingerprint", "/delete"))
    assert len(text) < 4096


# /forget


async def everywhere(bot: Any, tmp_path: Path) -> bytes:
    """Every row of every table, every blob's key and content, and the database's files as they lie on the disk."""
    found = []
    with sqlite3.connect(tmp_path / "records.sqlite") as database:
        names = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        assert {"users", "avatars", "jobs", "grants", "messages", "forgotten", "link_codes", "notes"} <= set(names)
        for name in names:
            found += [repr(row).encode() for row in database.execute(f"select * from {name}")]
    database.close()
    for key in await bot.blobs.list():
        found += [key.encode(), await bot.blobs.get(key)]
    return b"\n".join([*found, *on_disk(tmp_path)])


def on_disk(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.glob("records.sqlite*")]


async def a_life(bot: Any) -> list[str]:
    """Anna leaves traces wherever one can; the words that must not be found afterwards."""
    album = [MARK + b"%d" % number for number in range(6)]
    checked = await bot.answer(await bot.say("/train mia7 woman", album))
    await bot.answer(await bot.press(checked.buttons[0].action))
    await bot.say("/train draft3 woman", album)
    shared = await bot.say("/share mia7")
    await bot.records.chat.append("studio", "", {"text": shared.message.text, "avatar": shared.message.avatar})
    await bot.records.chat.append("studio", "Anna", {"text": "/train mia7 woman", "photos": 6})
    await bot.records.chat.append("studio", "Ben", {"text": "good morning", "photos": 0})
    await bot.avatar("ben5", "Ben")
    await bot.say("/share ben5 Anna", name="Ben")
    drawn = await bot.say("/imagine mia7 woman in a secret place")
    answer = await bot.answer(drawn)
    await bot.records.chat.append("studio", "", {"text": answer.text, "prompt": answer.prompt, "job": drawn.job_id})
    await bot.answer(await bot.say("/imagine mia7 and ben5 in a secret place", name="Ben"))
    await bot.say("/imagine ben5 in a secret place")
    await bot.say("/imagine mia7 in a secret place", name="Ben")
    await bot.commands.line(ON_DISCORD, f"/link {await code_of(bot, bot.caller())}")
    await bot.commands.line(ON_DISCORD, "/imagine mia7 in a secret place")
    await code_of(bot, ON_DISCORD)
    # What frontends remember of her, and photos that came before their command.
    account = f"discord:{ON_DISCORD.platform_id}"
    await bot.records.notes.put("discord/inbox", "1", {"said": "a secret place"})
    await bot.records.notes.put("discord/inbox", "1", {"said": "a hidden whisper"}, account)
    await bot.records.notes.add("discord/sent", f"{ON_DISCORD.platform_id}|7", {"ref": "8"}, account)
    await bot.blobs.put(f"incoming/{ON_DISCORD.platform}/{ON_DISCORD.platform_id}/loose/1", MARK)
    await bot.records.notes.add("discord/sent", "bens", {"ref": "9"}, "discord:4711")
    await bot.blobs.put("incoming/discord/4711/loose/1", b"the-face-of-ben")
    user = await bot.records.users.get_or_create("chat", "anna", "Anna")
    mia = next(avatar for avatar in await bot.records.avatars.owned_by(user.id) if avatar.token == "mia7")
    return [
        user.id,
        "anna",
        "Anna",
        ON_DISCORD.platform_id,
        "mia7",
        "draft3",
        "secret place",
        "hidden whisper",
        MARK.decode(),
        mia.id,
        *await own(bot),
    ]


async def own(bot: Any) -> list[str]:
    user = await bot.records.users.get_or_create("chat", "anna", "Anna")
    return [job.id for job in await bot.records.jobs.for_user(user.id)]


async def test_forget_erases_everything(bot: Any, tmp_path: Path) -> None:
    words = await a_life(bot)
    before = await everywhere(bot, tmp_path)
    assert [word for word in words if word.encode() not in before] == []
    queued = [job for job in await bot.records.jobs.active() if job.user_id != words[0] and job.payload.avatar_ids]
    [waiting] = queued

    asked = (await bot.say("/forget")).message
    assert "1 request" not in asked.text
    assert "This covers you on chat and discord." in asked.text
    assert [button.label for button in asked.buttons] == [
        "Erase everything",
        "Erase everything and my chat lines",
        "Keep it all",
    ]
    for button in asked.buttons:
        assert "Only the person" in (await bot.press(button.action, name="Ben")).message.text
    assert "stays as it is" in (await bot.press(asked.buttons[2].action)).message.text
    receipt = await bot.press(asked.buttons[1].action)
    assert receipt.spent
    assert receipt.private
    assert "2 avatars, 12 photos" in receipt.message.text

    after = await everywhere(bot, tmp_path)
    assert [word for word in words if word.encode() in after] == []
    # Ben keeps what is his alone.
    assert b"ben5" in after
    assert b"good morning" in after
    assert b"the-face-of-ben" in after
    assert [note.key for note in await bot.records.notes.find("discord/sent")] == ["bens"]
    assert (await bot.say("/imagine ben5", name="Ben")).job_id is not None
    stopped = await bot.records.jobs.get(waiting.id)
    assert (stopped.state, stopped.payload.prompt) == (State.CANCELLED, "")
    assert "cancelled" in (await bot.commands.answer(stopped)).text
    assert "no avatar" in (await bot.say("/imagine mia7")).message.text


async def test_chat_lines_stay_unless_they_are_asked_for(bot: Any) -> None:
    await bot.records.chat.append("studio", "Anna", {"text": "hello", "photos": 0})
    asked = (await bot.say("/forget")).message
    await bot.press(asked.buttons[0].action)
    assert [line.body["text"] for line in await bot.records.chat.history("studio")] == ["hello"]
    asked = (await bot.commands.line(ON_DISCORD, "/forget")).message
    assert [button.label for button in asked.buttons] == ["Erase everything", "Keep it all"]


async def test_an_engine_can_write_nothing_after_forget(bot: Any, tmp_path: Path) -> None:
    """The person is forgotten while an engine draws and another one trains; neither can write it down any more."""
    await bot.avatar("mia7")
    await bot.say("/share mia7")
    theirs = await bot.records.jobs.claim((await bot.say("/imagine mia7 --count 1", name="Ben")).job_id)
    own = await bot.records.jobs.claim((await bot.say("/imagine mia7 --count 1")).job_id)
    await bot.press((await bot.say("/forget")).message.buttons[0].action)
    for job in (theirs, own):
        assert await bot.records.jobs.renew(job.id, job.attempt) == "lost"
        key = f"pictures/{job.id}/0.png"
        assert not await bot.records.jobs.finish(job.id, job.attempt, State.SUCCEEDED, {}, pictures=[(key, 1)])
        assert await bot.records.jobs.pictures(job.id) == []
    assert await bot.records.jobs.get(own.id) is None


async def test_an_upload_that_ends_after_its_person_was_erased_leaves_nothing(
    bot: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def photos() -> AsyncIterator[Upload]:
        async def chunks() -> AsyncIterator[bytes]:
            yield MARK

        for number in range(6):
            if number == 3:
                await bot.press((await bot.say("/forget")).message.buttons[0].action)
            yield Upload(chunks())

    reply = await bot.commands.line(bot.caller(), "/train mia7 woman", photos(), consent=True)
    assert "forget you in the meantime" in reply.message.text
    assert await bot.kept() == []
    assert caplog.records == []


async def test_a_picture_of_an_avatar_deleted_meanwhile_is_not_kept(bot: Any) -> None:
    mia = await bot.avatar("mia7")
    job = await bot.records.jobs.claim((await bot.say("/imagine mia7 --count 1")).job_id)
    await bot.press(f"erase:{mia.id}")
    assert not await bot.records.jobs.finish(
        job.id, job.attempt, State.SUCCEEDED, {}, pictures=[("pictures/x/0.png", 1)]
    )
    ended = await bot.records.jobs.get(job.id)
    assert (ended.state, await bot.records.jobs.pictures(job.id)) == (State.CANCELLED, [])


class Wall:
    """A frontend that keeps what it shows."""

    name = "chat"

    def __init__(self) -> None:
        self.shown: dict[str, Message] = {}

    async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
        ref = dedupe or str(len(self.shown))
        self.shown[ref] = message
        return ref

    async def edit(self, ref: str, message: Message) -> None:
        self.shown[ref] = message


async def test_progress_messages_of_an_erased_person_promise_no_answer(bot: Any) -> None:
    await bot.avatar("mia7")
    for job in await bot.records.jobs.undelivered("chat"):
        await bot.records.jobs.mark_delivered(job.id)
    wall = Wall()
    delivery = Delivery(bot.records, bot.events, wall, bot.commands.answer)
    reply = await bot.say("/imagine mia7")
    await delivery.follow(reply.job_id, await wall.post("studio", reply.message), reply.message)
    news = bot.events.subscribe(after="0")
    await bot.press((await bot.say("/forget")).message.buttons[0].action)
    async with asyncio.timeout(10):
        async for event in news:
            await delivery.news(event)
            if event.job_id == reply.job_id:
                break
    await news.aclose()
    assert [message.text for message in wall.shown.values()] == ["Cancelled and forgotten."]
