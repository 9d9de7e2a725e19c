"""Whose an avatar is, and who else may draw it, from where and for how long."""

from datetime import timedelta
from typing import Any

import pytest

from bot.messages import Caller
from bot.table import Source
from storage.jobs import State

DISCORD = Caller("discord", "77", "Ben", "4001", group="guild-9")


async def test_a_group_draws_until_it_is_taken_back(bot: Any) -> None:
    await bot.avatar("mia7")
    assert (await bot.say("/imagine mia7", name="Ben")).job_id is None
    shared = await bot.say("/share mia7")
    assert not shared.private
    assert "Anna shares mia7 with this group" in shared.message.text
    [button] = shared.message.buttons

    drawn = await bot.answer(await bot.say("/imagine mia7 woman at the sea --count 1", name="Ben"))
    assert "mia7 is Anna's." in drawn.text
    assert "Anna's" not in (await bot.answer(await bot.say("/imagine mia7 --count 1"))).text
    assert "shared with you by Anna" in (await bot.say("/avatars", name="Ben")).message.text
    assert (await bot.say("/imagine mia7", name="Ben", room="kitchen")).job_id is None
    elsewhere = Caller("telegram", "ben", "Ben", "studio")
    assert (await bot.commands.line(elsewhere, "/imagine mia7")).job_id is None

    assert "Only the person" in (await bot.press(button.action, name="Ben")).message.text
    waiting = await bot.say("/imagine mia7", name="Ben")
    own = await bot.say("/imagine mia7")
    taken = await bot.press(button.action)
    assert taken.spent
    assert "not shared with this group any more. Drawings under way there are stopped." in taken.message.text
    assert (await bot.records.jobs.get(waiting.job_id)).state == State.CANCELLED
    assert (await bot.records.jobs.get(own.job_id)).state == State.QUEUED
    assert (await bot.say("/imagine mia7", name="Ben")).job_id is None
    again = await bot.press(drawn.buttons[0].action, name="Ben")
    assert "not shared with you here" in again.message.text
    assert "no longer shared" in (await bot.press(button.action)).message.text


async def test_a_grant_to_a_person_holds_everywhere_until_it_expires(bot: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    await bot.avatar("mia7")
    assert "anybody called Ben" in (await bot.say("/share mia7 Ben")).message.text
    await bot.say("/help", name="Ben")
    await bot.say("/status", name="Ben")
    shared = await bot.say("/share mia7 @Ben --expires 2h")
    assert shared.private
    assert "Ben can now draw mia7" in shared.message.text
    assert "in 2 h" in shared.message.text
    assert (await bot.say("/imagine mia7", name="Ben", room="kitchen")).job_id is not None
    assert (await bot.say("/imagine mia7", name="Cleo")).job_id is None
    card = (await bot.say("/avatars mia7")).message
    assert "Shared with Ben for another 2 h." in card.text

    clock = bot.records.database.clock
    monkeypatch.setattr(bot.records.database, "clock", lambda: clock() + timedelta(hours=2, seconds=1))
    assert (await bot.say("/imagine mia7", name="Ben", room="kitchen")).job_id is None
    assert "Nobody but you" in (await bot.say("/avatars mia7")).message.text
    assert "Nobody but you" in (await bot.say("/unshare mia7 Ben")).message.text


async def test_a_grant_to_a_group_holds_in_all_of_its_rooms(bot: Any) -> None:
    """A Discord server with its channels, a Telegram group with its topics."""
    await bot.avatar("mia7")
    owner = await bot.records.users.get_or_create("chat", "anna", "Anna")
    other = await bot.records.users.get_or_create("discord", "1", "Anna")
    assert owner.id != other.id
    code = (await bot.say("/link")).message.text.split("/link ")[1].split()[0]
    here = Caller("discord", "1", "Anna", "4000", group="guild-9")
    assert "one person" in (await bot.commands.line(here, f"/link {code}")).message.text
    assert not (await bot.commands.line(here, "/share mia7")).private
    assert (await bot.commands.line(DISCORD, "/imagine mia7")).job_id is not None
    outside = Caller("discord", "77", "Ben", "4001", group="guild-8")
    assert (await bot.commands.line(outside, "/imagine mia7")).job_id is None
    alone = Caller("discord", "1", "Anna", "5000", direct=True)
    assert "just you and me" in (await bot.commands.line(alone, "/share mia7")).message.text


async def test_names_that_several_people_have(bot: Any) -> None:
    await bot.avatar("mia7")
    for number in ("1", "2"):
        await bot.records.users.get_or_create("chat", number, "Ben")
    assert "2 people here" in (await bot.say("/share mia7 Ben")).message.text
    by_id = await bot.say("/share mia7 <@2>")
    assert "Ben (chat 2) can now draw" in by_id.message.text


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("/share", "still needs token"),
        ("/share ann3", "no avatar called ann3"),
        ("/share mia7 Anna", "That is you"),
        ("/share mia7 Nobody", "anybody called Nobody"),
        ("/share mia7 @nobody", "look up @nobody"),
        ("/share mia7 --expires soon", "2h"),
        ("/share mia7 --expires 9999999d", "2h"),
        ("/share mia7 --expires 0m", "2h"),
        ("/share mia7 --expires 2y", "2h"),
        ("/unshare mia7", "Nobody but you"),
        ("/unshare ann3", "no avatar called ann3"),
        ("/share raw5", "press Train"),
        ("/export raw5", "press Train"),
        ("/avatars raw5 --default", "press Train"),
    ],
)
async def test_a_wrong_share_is_answered_kindly(bot: Any, text: str, said: str) -> None:
    mia = await bot.avatar("mia7")
    await bot.answer(await bot.say("/train raw5 woman", 6))
    reply = await bot.say(text)
    assert reply.private
    assert said in reply.message.text
    assert await bot.records.grants.for_avatar(mia.id) == []


async def test_unshare_in_another_room_offers_the_existing_grants(bot: Any) -> None:
    mia = await bot.avatar("mia7")
    await bot.say("/share mia7")
    reply = await bot.say("/unshare mia7", room="kitchen")
    assert "Shared with another group" in reply.message.text
    await bot.press(reply.message.buttons[0].action, room="kitchen")
    assert await bot.records.grants.for_avatar(mia.id) == []


async def test_a_renamed_avatar_is_drawn_under_its_new_name(bot: Any) -> None:
    mia = await bot.avatar("mia7")
    await bot.avatar("ann3")
    assert "already have" in (await bot.say("/avatars mia7 --rename ann3")).message.text
    assert "How about" in (await bot.say("/avatars mia7 --rename suit")).message.text
    assert "Name the avatar" in (await bot.say("/avatars --rename bob5")).message.text
    how = await bot.press(f"rename:{mia.id}")
    assert how.message.prompt == "/avatars mia7 --rename "
    assert "mia7 is now called bob5" in (await bot.say("/avatars mia7 --rename Bob5")).message.text
    assert (await bot.say("/imagine mia7 in a suit")).job_id is None
    job = await bot.records.jobs.get((await bot.say("/imagine bob5 in a suit")).job_id)
    assert job.payload.avatar_ids == (mia.id,)
    avatar = await bot.records.avatars.get(mia.id)
    assert (avatar.token, avatar.learned_as) == ("bob5", "mia7")
    assert "trained as mia7" in (await bot.say("/avatars bob5")).message.text


async def test_the_default_is_drawn_where_nobody_is_named(bot: Any) -> None:
    mia, ann = await bot.avatar("mia7"), await bot.avatar("ann3")

    async def drawn(text: str) -> tuple[str, tuple[str, ...]]:
        reply = await bot.say(text)
        assert reply.job_id, reply.message.text
        payload = (await bot.records.jobs.get(reply.job_id)).payload
        return payload.prompt, payload.avatar_ids

    assert "Which avatar" in (await bot.say("/imagine in a suit")).message.text
    assert "is now your default" in (await bot.say("/avatars mia7 --default")).message.text
    assert "mia7 · woman · ready · 84 % alike · default" in (await bot.say("/avatars")).message.text
    assert await drawn("/imagine a woman in a suit") == ("mia7 woman in a suit", (mia.id,))
    assert await drawn("/imagine in a suit") == ("mia7 woman, in a suit", (mia.id,))
    assert await drawn("/imagine ann3 in a suit") == ("ann3 in a suit", (ann.id,))
    assert "Did you mean ann3" in (await bot.say("/imagine ann4 in a suit")).message.text
    await bot.press(f"default:{ann.id}")
    assert (await drawn("/imagine in a suit"))[1] == (ann.id,)
    assert await drawn("/imagine in a suit --avatar mia7") == ("mia7 woman, in a suit", (mia.id,))
    assert await drawn("/imagine ann3 and a friend --avatar Mia7") == (
        "mia7 woman, ann3 and a friend",
        (mia.id, ann.id),
    )
    assert "Which avatar" in (await bot.say("/imagine in a suit --avatar nobody")).message.text
    assert "no avatar yet" in (await bot.say("/imagine in a suit --avatar mia7", name="Ben")).message.text


async def test_sizes(bot: Any) -> None:
    await bot.avatar("mia7")
    reply = await bot.say("/imagine mia7 --size 512x768")
    payload = (await bot.records.jobs.get(reply.job_id)).payload
    assert (payload.width, payload.height) == (512, 768)
    job = await bot.records.jobs.get((await bot.press(f"again:{reply.job_id}")).job_id)
    assert (job.payload.width, job.payload.height) == (512, 768)
    refused = (await bot.say("/imagine mia7 --size large")).message.text
    assert "width x height" in refused and "--size" not in refused  # no engine said what it draws
    await bot.records.operators.set_base_model("hub/model", None, [(512, 512), (448, 640)])
    assert "--size 448x640" in (await bot.say("/imagine mia7 --size large")).message.text
    assert [one.value for one in await bot.commands.complete(bot.caller(), Source.SIZES)] == ["512x512", "448x640"]
    assert "64 to 1,536" in (await bot.say("/imagine mia7 --size 63")).message.text
    assert "64 to 1,536" in (await bot.say("/imagine mia7 --size 512x2000")).message.text


async def test_a_size_that_the_base_model_refuses(bot: Any) -> None:
    from storage.jobs import Imagine

    await bot.avatar("mia7")
    bot.engine.errors = {Imagine: {"code": "bad_size", "facts": {"low": 16, "high": 1536, "multiple": 16, "value": 70}}}
    failed = await bot.answer(await bot.say("/imagine mia7 --size 70"))
    assert "in steps of 16" in failed.text


async def test_the_adapter_is_its_owners_to_take(bot: Any) -> None:
    mia = await bot.avatar("mia7")
    await bot.say("/share mia7")
    reply = await bot.say("/export mia7")
    assert reply.private
    [file] = reply.message.files
    assert (file.name, file.key, file.content) == ("mia7.safetensors", mia.adapter_key, None)
    assert await bot.commands.may_save(bot.caller(), file.key)
    assert not await bot.commands.may_save(bot.caller("Ben"), file.key)
    assert not await bot.commands.may_save(bot.caller(), (await bot.records.avatars.photos(mia.id))[0].key)
    assert "no avatar called mia7" in (await bot.say("/export mia7", name="Ben")).message.text
    for verb in ("export", "share", "delete", "erase", "rename", "default", "avatar"):
        reply = await bot.press(f"{verb}:{mia.id}", name="Ben")
        assert "Only the person" in reply.message.text
        assert reply.message.files == ()
    assert await bot.records.avatars.get(mia.id) == mia


async def test_an_avatar_is_exported_for_the_program_that_shall_draw_it(bot: Any) -> None:
    mia = await bot.avatar("mia7")
    exports = {form: f"adapters/{mia.id}/1-1/{form}.safetensors" for form in ("kohya", "diffusers")}
    await bot.records.avatars.update(mia.id, details={**mia.details, "exports": exports})
    asked = await bot.say("/export mia7")
    assert asked.private and [button.label for button in asked.message.buttons] == ["WebUI", "ComfyUI", "diffusers"]
    assert not asked.message.files
    for program, form, word in (
        ("webui", "kohya", "<lora:mia7-webui:1> mia7"),
        ("comfyui", "kohya", "models/loras"),
        ("diffusers", "diffusers", "load_lora_weights"),
    ):
        for reply in (await bot.say(f"/export mia7 {program}"), await bot.press(f"export-{program}:{mia.id}")):
            [file] = reply.message.files
            assert reply.private and word in reply.message.text
            assert (file.name, file.key) == (f"mia7-{program}.safetensors", exports[form])
            assert await bot.commands.may_save(bot.caller(), file.key)
            assert not await bot.commands.may_save(bot.caller("Ben"), file.key)
        assert "Only the person" in (await bot.press(f"export-{program}:{mia.id}", name="Ben")).message.text
    assert "only for: webui" in (await bot.say("/export mia7 photoshop")).message.text
    await bot.records.avatars.update(mia.id, details={**mia.details, "exports": {"diffusers": exports["diffusers"]}})
    assert "cannot be written for WebUI" in (await bot.say("/export mia7 webui")).message.text


async def test_every_button_fits_every_platform(bot: Any) -> None:
    await bot.avatar("mia7")
    await bot.say("/status", name="Ben")
    await bot.say("/share mia7 Ben")
    for text in ("/avatars", "/avatars mia7", "/share mia7", "/unshare mia7 Ben", "/privacy", "/mydata", "/forget"):
        for button in (await bot.say(text)).message.buttons:
            assert len(button.action.encode()) <= 64
