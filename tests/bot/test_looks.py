"""What was read from photos is said before training; what is unsure is asked; everything can be corrected."""

from typing import Any

import pytest

from bot.frontends.telegram.rendering import ACTION_BYTES
from bot.language import speaking
from bot.replies import looks as replies
from storage.errors import UserError
from storage.jobs import Train
from storage.looks import CHOICES, choice, corrected, unknown
from tests.fakes.engine import SEEN


def labels(message: Any) -> list[str]:
    return [button.label for button in message.buttons]


def action(message: Any, label: str) -> str:
    return str(next(button.action for button in message.buttons if button.label.startswith(label)))


async def details(bot: Any) -> dict[str, Any]:
    owner = await bot.records.users.get_or_create("chat", "anna", "Anna")
    [avatar] = await bot.records.avatars.owned_by(owner.id)
    return dict(avatar.details)


async def test_what_was_read_is_said_before_training_and_can_be_corrected(bot: Any) -> None:
    bot.engine.album = {"looks": SEEN}
    checked = await bot.answer(await bot.say("/train cr7d man", 8))
    assert checked.text == (
        "8 photos, all good. I see short dark brown hair, a full beard, light skin, no glasses. "
        "I'll draw you as a cartoon."
    )
    assert labels(checked) == [
        "Train cr7d", "Hair length", "Hair colour", "Hair type", "Beard", "Skin", "Glasses", "Cancel",
    ]  # fmt: skip

    asked = await bot.press(action(checked, "Hair length"))
    assert asked.replaces and not asked.private
    assert asked.message.text == "cr7d: Hair length. Which is right?"
    assert labels(asked.message) == ["Bald", "Short", "To the shoulders", "Long", "Back"]
    assert [button.label for button in asked.message.buttons if button.role == "primary"] == ["Short"]

    long = await bot.press(action(asked.message, "Long"))
    assert long.replaces
    assert long.message.text == (
        "cr7d gets long dark brown hair, a full beard, light skin, no glasses. I'll draw you as a cartoon."
    )
    back = await bot.press(action((await bot.press(action(long.message, "Glasses"))).message, "Back"))
    assert back.message == long.message
    worn = await bot.press(action((await bot.press(action(long.message, "Glasses"))).message, "With"))
    assert "light skin, glasses." in worn.message.text
    # The answer to the check tells the same from now on, wherever it is shown again.
    assert "I see long dark brown hair, a full beard, light skin, glasses." in (await again(bot)).text

    trained = await bot.answer(await bot.press(action(worn.message, "Train")))
    assert bot.engine.drawn_from == [corrected(corrected(SEEN, "hair_length", "long"), "glasses", "yes")]
    assert trained.text.endswith("This bot draws cartoons.")
    assert (await details(bot))["looks"]["hair_length"] == "long"
    for late in ("Hair length", "Glasses"):
        assert "already trained" in (await bot.press(action(worn.message, late))).message.text


async def again(bot: Any) -> Any:
    """The answer to the first photo check, composed once more."""
    return await bot.commands.answer(await bot.records.jobs.get(bot.engine.seen[0].id))


async def test_a_failed_training_is_tried_again_with_the_corrected_looks(bot: Any) -> None:
    bot.engine.album, bot.engine.errors = {"looks": SEEN}, {Train: {"code": "crashed", "facts": {}}}
    checked = await bot.answer(await bot.say("/train cr7d man", 8))
    asked = await bot.press(action(checked, "Skin"))
    assert labels(asked.message)[:-1] == ["Very light", "Light", "Medium", "Tan", "Brown", "Dark"]
    await bot.press(action(asked.message, "Tan"))
    failed = await bot.answer(await bot.press(action(checked, "Train")))
    bot.engine.errors = {}
    await bot.answer(await bot.press(action(failed, "Try again")))
    assert [looks["skin"] for looks in bot.engine.drawn_from] == [4]
    assert bot.engine.drawn_from[0]["skin_srgb"] is None  # measured on a skin that it is not


async def test_what_is_unsure_is_asked_and_not_claimed(bot: Any) -> None:
    confidence = {**SEEN["confidence"], "facial_hair": 0.5, "hair_colour": 0.4}
    bot.engine.album = {"looks": SEEN | {"confidence": confidence}}
    checked = await bot.answer(await bot.say("/train cr7d man", 8))
    assert checked.text == (
        "8 photos, all good. I see short hair, light skin, no glasses. I'll draw you as a cartoon. "
        "I'm not sure about 2 things, please choose: Hair colour and Beard."
    )
    assert labels(checked)[:4] == ["Train cr7d", "Hair colour?", "Beard?", "Hair length"]
    asked = await bot.press(action(checked, "Beard?"))
    assert not any(button.role == "primary" for button in asked.message.buttons)
    answered = await bot.press(action(asked.message, "Moustache"))
    assert "a moustache" in answered.message.text
    assert "one thing, please choose: Hair colour." in answered.message.text
    assert labels(answered.message)[1:3] == ["Hair colour?", "Hair length"]


async def test_nothing_is_claimed_of_a_person_whom_the_reader_did_not_see(bot: Any) -> None:
    bot.engine.album = {"looks": unknown()}
    checked = await bot.answer(await bot.say("/train cr7d man", 8))
    assert "I see" not in checked.text and "I'm not sure about 5 things" in checked.text
    assert labels(checked)[1:6] == ["Hair length?", "Hair colour?", "Beard?", "Skin?", "Glasses?"]


async def test_only_its_owner_corrects_an_avatar_and_only_before_training(bot: Any) -> None:
    bot.engine.album = {"looks": SEEN}
    checked = await bot.answer(await bot.say("/train cr7d man", 8))
    pressed = action(checked, "Skin")
    refused = await bot.press(pressed, name="Ben")
    assert refused.private and "Only the person who" in refused.message.text
    assert (await bot.press(f"{pressed}=3", name="Ben")).private
    for wrong in (f"{pressed}=7", f"{pressed}=", pressed.replace("skin", "age"), pressed.replace("skin", "age=3")):
        reply = await bot.press(wrong)
        assert "older version" in reply.message.text or reply.replaces
    assert (await details(bot))["looks"] == SEEN
    training = await bot.press(action(checked, "Train"))
    assert "already training" in (await bot.press(f"{pressed}=3")).message.text
    await bot.answer(training)
    assert bot.engine.drawn_from == [SEEN]
    assert "That avatar is gone" in (await bot.press("look:nobody:skin")).message.text


async def test_a_base_that_learns_photos_as_they_are_says_nothing_of_looks(bot: Any) -> None:
    checked = await bot.answer(await bot.say("/train cr7d man", 8))
    assert checked.text == "8 photos, all good." and labels(checked) == ["Train cr7d", "Cancel"]
    pressed = action(checked, "Train").replace("train:", "look:")
    assert "older version" in (await bot.press(f"{pressed}:skin=3")).message.text
    await bot.answer(await bot.press(action(checked, "Train")))
    assert bot.engine.drawn_from == [None]


async def test_a_noun_that_the_world_has_not_is_asked_about_before_training(bot: Any) -> None:
    bot.engine.album = {"unknown_noun": True}
    checked = await bot.answer(await bot.say("/train rex5 dog", 8))
    assert checked.text == "8 photos, all good. This bot draws cartoon people. Train anyway?"
    assert labels(checked) == ["Train anyway", "Cancel"]
    assert not [job for job in bot.engine.seen if isinstance(job.payload, Train)]
    assert "rex5 is ready" in (await bot.answer(await bot.press(action(checked, "Train anyway")))).text


@pytest.mark.parametrize(
    ("left_out", "said"),
    [
        ({"drawings": 1}, "I leave out the drawing among the photos."),
        ({"drawings": 2}, "I leave out the 2 drawings among the photos."),
        ({"photos": 1}, "I learn the drawings and leave out the photo among them."),
        ({"photos": 3}, "I learn the drawings and leave out the 3 photos among them."),
    ],
)
async def test_a_mixed_album_says_what_is_left_out(bot: Any, left_out: dict[str, int], said: str) -> None:
    bot.engine.album = {"left_out": left_out}
    assert (await bot.answer(await bot.say("/train cr7d man", 8))).text == f"8 photos, all good. {said}"


async def test_the_cartoons_are_told_once_for_each_avatar_and_the_setting_only_to_operators(bot: Any) -> None:
    bot.engine.album = {"looks": SEEN}
    checked = await bot.answer(await bot.say("/train cr7d man", 8))
    said = [checked.text, (await bot.answer(await bot.press(action(checked, "Train")))).text]
    drawn = [(await bot.answer(await bot.say("/imagine cr7d man"))).text for _ in range(2)]
    assert ["This bot draws cartoons." in text for text in said + drawn] == [False, True, False, False]
    assert not any("AVATAR_BASE_MODEL" in text for text in said + drawn)


def test_a_womans_missing_beard_is_not_mentioned() -> None:
    looks = SEEN | {"facial_hair": "none", "beard_length": None}
    assert "no beard" in replies.seen(looks, "man") and "no beard" in replies.seen(looks, "person")
    assert "beard" not in replies.seen(looks, "woman")


@pytest.mark.parametrize("language", ["en", "de"])
def test_every_choice_has_a_button_and_a_phrase(language: str) -> None:
    """Whatever somebody chooses is offered, fits a button of every platform, and is then said."""
    from types import SimpleNamespace

    avatar: Any = SimpleNamespace(id="0" * 32, token="cr7d", noun="man")
    with speaking(language):
        for attribute, choices in CHOICES.items():
            asked = replies.question(avatar, SEEN, attribute)
            offered = {button.action.rpartition("=")[2]: button for button in asked.buttons[:-1]}
            assert tuple(offered) == choices
            assert all(len(button.action.encode()) <= ACTION_BYTES for button in asked.buttons)
            texts = set()
            for value in choices:
                looks = corrected(SEEN, attribute, value)
                assert choice(looks, attribute) == value
                texts.add(replies.card(avatar, looks).text)
            assert len(texts) == len(choices)
    with pytest.raises(UserError, match="unknown_look"):
        corrected(SEEN, "skin", "0")


def test_german_adjectives_agree() -> None:
    with speaking("de"):
        text = replies.seen(SEEN, "man")
    assert text.startswith("Ich sehe kurzes dunkelbraunes Haar, einen Vollbart, helle Haut, keine Brille. ")
