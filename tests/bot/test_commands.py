"""The commands over real records: what people ask for, and everything they get wrong."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from bot import limits
from bot.messages import Upload
from bot.table import COMMANDS, Source
from storage.jobs import Imagine, Inspect, State, Train

TWO_FACES = {"ok": False, "codes": ["several_faces"], "facts": {"faces": 2}}
BROKEN = {"ok": False, "codes": ["broken"], "facts": {}}
SOFT = {"ok": True, "codes": ["soft"], "facts": {}}


async def avatars(bot: Any, name: str = "Anna") -> list[Any]:
    owner = await bot.records.users.get_or_create("chat", name.lower(), name)
    return list(await bot.records.avatars.owned_by(owner.id))


async def test_from_photos_to_pictures(bot: Any) -> None:
    bot.engine.verdicts = {3: TWO_FACES}
    asked = await bot.say("/train mia7 woman", 8)
    assert not asked.private
    assert "8 photos of mia7" in asked.message.text

    checked = await bot.answer(asked)
    assert checked.text == "8 photos: 7 good, #3 shows two faces."
    assert [button.label for button in checked.buttons] == ["Train with the 7 good ones", "Cancel"]

    training = await bot.press(checked.buttons[0].action)
    assert training.spent
    assert training.message.text == "Training mia7: next in line."
    trained = await bot.answer(training)
    assert len(trained.pictures) == 4
    assert [button.label for button in trained.buttons] == ["Imagine", "Delete", "Share here"]
    assert "draws cartoons" in trained.text

    listed = (await bot.say("/avatars")).message
    assert "mia7 · woman · ready · 84 % alike" in listed.text
    assert listed.pictures == trained.pictures[:1]

    drawing = await bot.say("/imagine Mia7 woman in a red hoodie --count 2 --seed 41 --negative hat")
    drawn = await bot.answer(drawing)
    [mia] = await avatars(bot)
    assert bot.engine.seen[-1].payload == Imagine(
        "Mia7 woman in a red hoodie", (mia.id,), count=2, seed=41, negative_prompt="hat"
    )
    assert [picture.seed for picture in drawn.pictures] == [41, 42]
    assert "41 and 42" in drawn.text

    again = await bot.press(drawn.buttons[0].action)
    assert again.job_id is not None
    assert bot.engine.seen[-1].id != again.job_id
    job = await bot.records.jobs.get(again.job_id)
    assert (job.payload.prompt, job.payload.seed, job.payload.count) == ("Mia7 woman in a red hoodie", None, 2)


async def test_a_variation_needs_the_rights_of_the_person_who_asks(bot: Any) -> None:
    await bot.avatar()
    drawn = await bot.answer(await bot.say("/imagine mia7 woman in a suit --count 2 --seed 41 --negative hat"))
    assert [button.label for button in drawn.buttons] == ["Again", "V1", "V2", "Seed", "Delete"]
    first = bot.engine.seen[-1]
    keys = [picture.key for picture in drawn.pictures]
    again = await bot.answer(await bot.press(drawn.buttons[2].action))
    assert bot.engine.seen[-1].payload == replace(first.payload, seed=None, original=keys[1], repeats=first.id)
    assert "not shared with you here" in (await bot.press(drawn.buttons[1].action, name="Ben")).message.text
    await bot.say("/share mia7")
    assert (await bot.press(drawn.buttons[1].action, name="Ben")).job_id
    # Again under a variation varies the same picture.
    await bot.answer(await bot.press(again.buttons[0].action))
    assert bot.engine.seen[-1].payload.original == keys[1]
    await bot.blobs.delete(keys[1])
    for button in (drawn.buttons[2], again.buttons[0]):
        gone = await bot.press(button.action)
        assert gone.private and "That picture was deleted" in gone.message.text
    assert "That picture was deleted" in (await bot.press(f"vary:9:{first.id}")).message.text
    assert "That picture was deleted" in (await bot.press(f"vary:x:{first.id}")).message.text


async def test_the_seed_button_tells_how_to_draw_each_picture_again(bot: Any) -> None:
    await bot.avatar()
    line = "/imagine mia7 woman in a suit --seed 41 --count 2 --steps 7 --guidance 2.5 --negative a hat --size 128x64"
    drawn = await bot.answer(await bot.say(line))
    first = bot.engine.seen[-1].payload
    seeds = next(button for button in drawn.buttons if button.label == "Seed")
    told = await bot.press(seeds.action)
    assert told.private
    head, *lines = told.message.text.splitlines()
    assert head.startswith("Each of these commands draws one of the pictures again")
    for number, one in enumerate(lines):
        await bot.answer(await bot.say(one))
        assert bot.engine.seen[-1].payload == replace(first, seed=41 + number, count=1)
    varied = await bot.answer(await bot.press(drawn.buttons[1].action))
    assert "These are variations" in (await bot.press(f"seed:{varied.job}")).message.text
    assert "Only the person who" in (await bot.press(seeds.action, name="Ben")).message.text


async def test_deleted_pictures_are_gone_everywhere(bot: Any) -> None:
    await bot.avatar()
    before = await bot.kept()
    asked = await bot.say("/imagine mia7 woman in a suit --count 2")
    drawn = await bot.answer(asked)
    button = next(button for button in drawn.buttons if button.label == "Delete")
    assert "Only the person who" in (await bot.press(button.action, name="Ben")).message.text
    assert len(await bot.kept()) == len(before) + 2
    gone = await bot.press(button.action)
    assert gone.spent and "Deleted here" in gone.message.text
    assert await bot.kept() == before
    assert await bot.records.jobs.pictures(asked.job_id) == []
    assert await bot.commands.drawings(bot.caller(), 0, 10) == []
    assert "That picture was deleted" in (await bot.answer(asked)).text
    assert "That picture was deleted" in (await bot.press(button.action)).message.text


async def test_an_adapter_tag_is_answered_with_what_to_do(bot: Any) -> None:
    await bot.avatar()
    said = (await bot.say("/imagine mia7 woman <lora:inks:0.8>")).message.text
    assert "don't read <lora:inks:0.8>" in said and "no styles here" in said
    bot.queue.offered = ["inks", "oils"]
    for line, told in (
        ("/imagine mia7 woman <lora:Inks:0.8>", "--style inks:0.8"),
        ("/imagine mia7 woman --negative <lora:other>", "inks and oils"),
    ):
        refused = await bot.say(line)
        assert refused.private and told in refused.message.text and not refused.job_id


async def test_a_token_within_another_word_names_nobody(bot: Any) -> None:
    await bot.avatar()
    for word in ("xmia7", "émia7", "mia7x"):
        said = (await bot.say(f"/imagine {word} in a suit")).message.text
        assert "mia7" in said and "Did you mean" in said
    assert (await bot.say("/imagine (mia7:1.3) in a suit")).job_id


async def test_a_token_with_the_class_noun_is_refused(bot: Any) -> None:
    refused = await bot.say("/train xwoman7 woman", 6)
    assert "holds the word woman" in refused.message.text and "How about" in refused.message.text


async def test_a_style_is_one_that_the_engine_offers(bot: Any) -> None:
    await bot.avatar()
    said = (await bot.say("/imagine mia7 woman --style inks")).message.text
    assert said == "There are no styles here. Leave out --style."
    bot.queue.offered = ["inks", "oils"]
    assert [one.value for one in await bot.commands.complete(bot.caller(), Source.STYLES)] == [
        "inks", "oils", "inks:0.6", "oils:0.6"
    ]  # fmt: skip
    refused = await bot.say("/imagine mia7 woman --style ink")
    assert refused.private and refused.message.text == "There is no style “ink”. Available: inks, oils."
    drawn = await bot.answer(await bot.say("/imagine mia7 woman --style Oils --seed 3 --count 1"))
    assert bot.engine.seen[-1].payload.style == "oils"
    seeds = next(button for button in drawn.buttons if button.label == "Seed")
    assert "--style oils" in (await bot.press(seeds.action)).message.text
    await bot.answer(await bot.press(drawn.buttons[0].action))
    assert bot.engine.seen[-1].payload.style == "oils"
    # With a weight, and in few steps; both are told with the seeds.
    lightly = await bot.answer(await bot.say("/imagine mia7 woman --steps 4 --style Inks:0,6 --count 1"))
    asked = bot.engine.seen[-1].payload
    assert (asked.steps, asked.style, asked.style_weight) == (4, "inks", 0.6)
    seeds = next(button for button in lightly.buttons if button.label == "Seed")
    assert "--style inks:0.6 --count 1 --seed 7 --steps 4" in (await bot.press(seeds.action)).message.text
    heavy = await bot.say("/imagine mia7 woman --style inks:3")
    assert heavy.message.text == "A style's weight is a number from 0 to 2, as in --style inks:0.6."
    # The engine may have lost it since.
    lost = {"code": "unknown_style", "facts": {"style": "oils", "styles": ["inks"]}}
    bot.engine.errors = {Imagine: lost}
    failed = await bot.answer(await bot.say("/imagine mia7 woman --style oils"))
    assert "There is no style “oils”. Available: inks." in failed.text


async def test_too_few_good_photos_leave_nothing(bot: Any) -> None:
    bot.engine.verdicts = {1: BROKEN, 4: TWO_FACES}
    checked = await bot.answer(await bot.say("/train mia7 woman", 6))
    assert checked.text.startswith(
        "6 photos, but only 4 that I can learn from: #1 is damaged and can't be opened and #4 shows two faces."
    )
    assert not checked.buttons
    assert len(checked.verdicts) == 6
    assert await avatars(bot) == []
    assert await bot.kept() == []


async def test_an_answer_asked_for_twice_is_the_same(bot: Any) -> None:
    bot.engine.verdicts = {1: BROKEN, 2: BROKEN, 3: BROKEN}
    asked = await bot.say("/train mia7 woman", 6)
    first = await bot.answer(asked)
    assert await bot.answer(asked) == first


async def test_a_hint_does_not_keep_from_training(bot: Any) -> None:
    bot.engine.verdicts = {2: SOFT}
    checked = await bot.answer(await bot.say("/train mia7 woman", 5))
    assert checked.text == "5 photos, all good. Hint: #2 is a little soft."
    assert checked.buttons[0].label == "Train mia7"


BAD_TRAIN = {
    "an empty album": ("/train mia7 woman", 0, "Add 5 to 10 photos"),
    "too few": ("/train mia7 woman", 4, "got 4"),
    "too many": ("/train mia7 woman", 11, "10 photos are enough"),
    "an empty file": ("/train mia7 woman", [b"x", b"", b"x", b"x", b"x"], "#2 is an empty file"),
    "an English word": ("/train suit woman", 6, "How about “suit7”?"),
    "a shape": ("/train Mia! woman", 6, "How about “mia7”?"),
    "a noun with digits": ("/train mia7 woman2", 6, "letters only"),
    "a minor": ("/train mia7 girl", 6, "only make avatars of adults"),
    "no token": ("/train", 6, "still needs token"),
    "no noun": ("/train mia7", 6, "still needs noun"),
}


@pytest.mark.parametrize(("text", "photos", "said"), BAD_TRAIN.values(), ids=BAD_TRAIN)
async def test_a_wrong_train_is_answered_kindly_and_leaves_nothing(bot: Any, text: str, photos: Any, said: str) -> None:
    reply = await bot.say(text, photos)
    assert reply.private
    assert said in reply.message.text
    assert "\n" not in reply.message.text
    assert reply.job_id is None
    assert await bot.kept() == []
    assert await avatars(bot) == []
    assert await bot.records.jobs.active() == []


async def test_a_photo_is_cut_off_at_the_limit(bot: Any) -> None:
    read = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal read
        while True:
            read += 1
            yield bytes(1024 * 1024)

    async def photos() -> AsyncIterator[Upload]:
        yield Upload(endless())

    reply = await bot.commands.line(bot.caller(), "/train mia7 woman", photos(), consent=True)
    assert "#1 is larger than 20 MB" in reply.message.text
    assert read == 21
    assert await bot.kept() == []


async def test_without_consent_no_photo_is_read(bot: Any) -> None:
    async def photos() -> AsyncIterator[Upload]:
        raise AssertionError("read a photo")
        yield

    reply = await bot.commands.line(bot.caller(), "/train mia7 woman", photos())
    assert "has agreed" in reply.message.text


async def test_a_sender_who_hangs_up_leaves_nothing(bot: Any) -> None:
    started = asyncio.Event()

    async def stuck() -> AsyncIterator[bytes]:
        yield b"the beginning"
        started.set()
        await asyncio.Event().wait()

    async def photos() -> AsyncIterator[Upload]:
        async def whole() -> AsyncIterator[bytes]:
            yield b"photo"

        yield Upload(whole())
        yield Upload(stuck())

    task = asyncio.create_task(bot.commands.line(bot.caller(), "/train mia7 woman", photos(), consent=True))
    await started.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await bot.kept() == []
    assert await avatars(bot) == []


async def test_no_photo_is_left_if_the_records_fail(
    bot: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails(*_: object) -> None:
        raise RuntimeError("disk full")

    monkeypatch.setattr(bot.records.jobs, "create", fails)
    reply = await bot.say("/train mia7 woman", 6)
    [record] = caplog.records
    error_id = reply.message.text.rpartition(" ")[2].rstrip(".")
    assert error_id in record.getMessage()
    assert await bot.kept() == []
    assert await avatars(bot) == []


async def test_a_taken_token_suggests_a_free_one(bot: Any) -> None:
    await bot.avatar("mia7")
    before = await bot.kept()
    reply = await bot.say("/train mia7 woman", 6)
    assert "already have an avatar called mia7" in reply.message.text
    assert "“mia1”" in reply.message.text
    assert await bot.kept() == before
    assert (await bot.say("/train mia7 woman", 6, name="Ben")).job_id is not None


async def test_new_photos_replace_a_draft(bot: Any) -> None:
    first = await bot.answer(await bot.say("/train mia7 woman", 5))
    second = await bot.answer(await bot.say("/train mia7 woman", 7))
    assert "gone" in (await bot.press(first.buttons[0].action)).message.text
    assert len(await bot.kept()) == 7
    assert (await bot.press(second.buttons[0].action)).job_id is not None


async def test_discarding_a_draft_erases_its_photos(bot: Any) -> None:
    checked = await bot.answer(await bot.say("/train mia7 woman", 6))
    reply = await bot.press(checked.buttons[1].action)
    assert reply.spent
    assert await bot.kept() == []


async def test_two_presses_start_one_training(bot: Any) -> None:
    checked = await bot.answer(await bot.say("/train mia7 woman", 6))
    action = checked.buttons[0].action
    replies = await asyncio.gather(bot.press(action), bot.press(action))
    assert sorted(reply.private for reply in replies) == [False, True]
    assert len(await bot.records.jobs.active()) == 1


async def test_buttons_work_only_for_their_person(bot: Any) -> None:
    checked = await bot.answer(await bot.say("/train mia7 woman", 6))
    for button in checked.buttons:
        reply = await bot.press(button.action, name="Ben")
        assert "Only the person who started this" in reply.message.text
    assert len(await bot.kept()) == 6


async def test_a_failed_training_can_be_tried_again(bot: Any) -> None:
    checked = await bot.answer(await bot.say("/train mia7 woman", 6))
    bot.engine.errors = {Train: {"code": "crashed", "facts": {"attempts": 10}}}
    failed = await bot.answer(await bot.press(checked.buttons[0].action))
    assert "did not work out" in failed.text and "does not count towards your quota" in failed.text
    assert "finish" in (await bot.say("/imagine mia7 in a suit")).message.text
    bot.engine.errors = {}
    trained = await bot.answer(await bot.press(failed.buttons[0].action))
    assert "mia7 is ready" in trained.text


@pytest.mark.parametrize("code", ["timeout", "prompt_too_long", "missing_avatar", "out_of_memory", "internal"])
async def test_a_failed_drawing_says_why(bot: Any, code: str) -> None:
    await bot.avatar("mia7")
    bot.engine.errors = {Imagine: {"code": code, "facts": {}}}
    failed = await bot.answer(await bot.say("/imagine mia7 in a suit"))
    assert failed.tone == "trouble"
    assert code not in failed.text
    assert [button.label for button in failed.buttons] == ["Try again"]


async def test_a_check_that_fails_leaves_nothing(bot: Any) -> None:
    bot.engine.errors = {Inspect: {"code": "internal", "facts": {}}}
    failed = await bot.answer(await bot.say("/train mia7 woman", 6))
    assert "could not check" in failed.text
    assert await bot.kept() == []


BAD_IMAGINE = {
    "nothing": ("/imagine", "still needs prompt"),
    "ten thousand characters": ("/imagine mia7 " + "very " * 2000, "10,004 characters"),
    "no avatar": ("/imagine a woman in a suit", "You can use mia7 here"),
    "a slip of the pen": ("/imagine mia8 in a suit", "Did you mean mia7?"),
    "part of a word": ("/imagine mia77x in a suit", "mia7"),
    "too many": ("/imagine mia7 --count 5", "count must be from 1 to 4"),
    "a negative seed": ("/imagine mia7 --seed -1", "seed must be from 0 to 4,294,967,295"),
    "many steps": ("/imagine mia7 --steps 9999", "steps must be from 1 to 150"),
    "a control character": ("/imagine mia7 \x00", "can't read"),
}


@pytest.mark.parametrize(("text", "said"), BAD_IMAGINE.values(), ids=BAD_IMAGINE)
async def test_a_wrong_imagine_is_answered_kindly(bot: Any, text: str, said: str) -> None:
    await bot.avatar("mia7")
    reply = await bot.say(text)
    assert reply.private
    assert said in reply.message.text
    assert await bot.records.jobs.active() == []


async def test_imagine_before_any_avatar(bot: Any) -> None:
    assert "no avatar yet" in (await bot.say("/imagine mia7 in a suit")).message.text


async def test_an_avatar_on_its_way_says_so(bot: Any) -> None:
    checked = await bot.answer(await bot.say("/train mia7 woman", 6))
    assert "press Train" in (await bot.say("/imagine mia7")).message.text
    await bot.press(checked.buttons[0].action)
    assert "still training" in (await bot.say("/imagine mia7")).message.text


async def test_an_avatar_is_private_until_it_is_granted(bot: Any) -> None:
    mia = await bot.avatar("mia7")
    assert "no avatar yet" in (await bot.say("/imagine mia7", name="Ben")).message.text
    await bot.records.grants.create(mia.id, "room", "chat:studio")
    assert (await bot.say("/imagine mia7", name="Ben")).job_id is not None
    assert "shared with you" in (await bot.say("/avatars", name="Ben")).message.text
    assert "no avatar yet" in (await bot.say("/imagine mia7", name="Ben", room="kitchen")).message.text


async def test_two_avatars_in_one_prompt(bot: Any) -> None:
    mia, ann = await bot.avatar("mia7"), await bot.avatar("ann3")
    reply = await bot.say("/imagine ann3 and mia7 at the sea")
    job = await bot.records.jobs.get(reply.job_id)
    assert job.payload.avatar_ids == (ann.id, mia.id)


async def test_status_and_cancel_are_about_ones_own_jobs(bot: Any) -> None:
    await bot.avatar("mia7")
    first = await bot.say("/imagine mia7 --count 1")
    second = await bot.say("/imagine mia7")
    status = (await bot.say("/status")).message
    assert f"Drawing the picture · next in line · job {first.job_id}" in status.text
    assert "number 2 in line" in status.text
    assert "You have no jobs" in (await bot.say("/status", name="Ben")).message.text
    assert "Only the person" in (await bot.say(f"/cancel {first.job_id}", name="Ben")).message.text
    assert "no such job" in (await bot.say("/cancel nonsense")).message.text

    assert "Stopped" in (await bot.say("/cancel")).message.text
    assert (await bot.records.jobs.get(second.job_id)).state == State.CANCELLED
    assert (await bot.records.jobs.get(first.job_id)).state == State.QUEUED
    assert "already over" in (await bot.say(f"/cancel {second.job_id}")).message.text
    assert (await bot.answer(second)).text == "The drawing is cancelled."


async def test_cancelling_a_photo_check_erases_the_photos(bot: Any) -> None:
    asked = await bot.say("/train mia7 woman", 6)
    await bot.press(asked.message.buttons[0].action)
    assert "erased" in (await bot.answer(asked)).text
    assert await bot.kept() == []


async def test_a_person_has_a_limited_number_of_jobs(bot: Any) -> None:
    await bot.avatar("mia7")
    for _ in range(limits.ACTIVE_JOBS_MOST):
        assert (await bot.say("/imagine mia7")).job_id is not None
    assert "20 jobs under way" in (await bot.say("/imagine mia7")).message.text


async def test_delete_asks_and_then_erases_everything(bot: Any) -> None:
    await bot.avatar("mia7")
    drawn = await bot.say("/imagine mia7 --count 2")
    await bot.answer(drawn)
    waiting = await bot.say("/imagine mia7")
    assert len(await bot.kept()) == 6 + 1 + 4 + 2

    asked = (await bot.say("/delete mia7")).message
    assert "can't be undone" in asked.text
    assert "stays" in (await bot.press(asked.buttons[1].action)).message.text
    assert "Only the person" in (await bot.press(asked.buttons[0].action, name="Ben")).message.text
    assert len(await avatars(bot)) == 1

    erased = await bot.press(asked.buttons[0].action)
    assert "13 files" in erased.message.text
    assert await bot.kept() == []
    assert await avatars(bot) == []
    assert (await bot.records.jobs.get(waiting.job_id)).state == State.CANCELLED
    assert "gone" in (await bot.press(asked.buttons[0].action)).message.text


async def test_delete_of_an_unknown_avatar(bot: Any) -> None:
    assert "Make one with /train" in (await bot.say("/delete mia7")).message.text
    await bot.avatar("ann3")
    assert "Yours: ann3" in (await bot.say("/delete mia7")).message.text


async def test_help_names_every_command(bot: Any) -> None:
    text = (await bot.say("/help")).message.text
    assert [name for name in COMMANDS if f"/{name}" not in text] == ["operator"]
    assert len(text.splitlines()) < 50


async def test_completions(bot: Any) -> None:
    await bot.avatar("mia7")
    await bot.say("/train ann3 woman", 6)

    async def words(source: Source, name: str = "Anna") -> list[str]:
        return [found.value for found in await bot.commands.complete(bot.caller(name), source)]

    assert await words(Source.AVATARS) == ["mia7"]
    assert await words(Source.OWN_AVATARS) == ["mia7", "ann3"]
    assert len(await words(Source.JOBS)) == 1
    assert await words(Source.AVATARS, "Ben") == []


@pytest.mark.parametrize("action", ["", "train", "train:nobody", "fly:away", "again:nothing", "imagine:x", "cancel:x"])
async def test_forged_buttons_are_answered_kindly(bot: Any, action: str) -> None:
    reply = await bot.press(action)
    assert reply.private
    assert reply.message.tone in ("warning", "plain")


async def test_actions_fit_every_platform(bot: Any) -> None:
    checked = await bot.answer(await bot.say("/train mia7 woman", 6))
    trained = await bot.answer(await bot.press(checked.buttons[0].action))
    drawn = await bot.answer(await bot.say("/imagine mia7"))
    for button in (*checked.buttons, *trained.buttons, *drawn.buttons):
        assert len(button.action.encode()) <= 64


async def test_no_job_is_lost_while_the_queue_is_unreachable(
    bot: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def away(_: object) -> bool:
        raise ConnectionError

    monkeypatch.setattr(bot.queue, "enqueue", away)
    asked = await bot.say("/train mia7 woman", 6)
    assert "all good" in (await bot.answer(asked)).text
    assert "waits for the reconciler" in caplog.text
