"""What people read under a drawing that could not be all that they asked for: once, and where the prompt may be."""

import io
import logging
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from bot.frontends.chat.hub import Hub
from bot.frontends.discord import rendering as discord
from bot.frontends.telegram import rendering as telegram
from bot.frontends.terminal import Terminal
from bot.language import speaking
from bot.messages import Message
from bot.replies import remarks
from storage.jobs import Imagine, State

KNOWN = {"clothes": ["in a red hoodie", "in a suit"], "expressions": ["tongue out"], "backgrounds": []}
SUBMARINE = {"unknown": [{"phrase": "submarine", "similar": []}], "known": KNOWN}
SQUARE = {"size": {"asked": [512, 768], "drawn": [128, 128]}}
SAID = "I can't draw “submarine” yet; I drew the rest. I know “in a red hoodie” and “tongue out”, for example."


def unknown(*phrases: str, similar: str = "") -> dict[str, Any]:
    found = [{"phrase": phrase, "similar": [similar] if similar else []} for phrase in phrases]
    return {"unknown": found, "known": KNOWN}


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (SUBMARINE, SAID),
        (unknown("hoddie", similar="hoodie"), "I can't draw “hoddie” yet; I drew the rest. Did you mean “hoodie”?"),
        ({"unknown": [{"phrase": "flag", "similar": []}], "known": {}}, "I can't draw “flag” yet; I drew the rest."),
        ({"unknown": [], "known": {}}, None),
        ({}, None),  # of an older engine
    ],
)
def test_unknown_words(result: dict[str, Any], said: str | None) -> None:
    assert remarks.unknown_words(result) == said


def test_a_remark_is_short() -> None:
    long = remarks.unknown_words(unknown("ein mann in einem unterseeboot " * 30, "b", "c", "d", "e"))
    assert long is not None and len(long) < 300
    assert "“ein mann in einem unterseeboot ein mann…”, “b”, “c” and 2 more yet" in long


def test_the_remark_is_german_in_a_german_room() -> None:
    with speaking("de"):
        assert remarks.unknown_words(SUBMARINE) == (
            "Noch nicht zeichnen kann ich „submarine“; den Rest habe ich gezeichnet. "
            "Auf Englisch kenne ich zum Beispiel „in a red hoodie“ und „tongue out“."
        )
        assert remarks.other_size(SQUARE) == "512x768 kann ich noch nicht zeichnen, deshalb sind es 128x128."


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (SQUARE, "I can't draw 512x768 yet, so I drew 128x128."),
        ({"size": {"asked": [128, 128], "drawn": [128, 128]}}, None),
        ({}, None),
    ],
)
def test_another_size(result: dict[str, Any], said: str | None) -> None:
    assert remarks.other_size(result) == said


async def test_it_is_said_once_for_a_prompt_and_a_size(bot: Any) -> None:
    await bot.avatar("mia7")
    bot.engine.remarks = SUBMARINE | SQUARE
    drawn = await bot.answer(await bot.say("/imagine mia7 woman in a submarine --count 2 --size 512x768"))
    assert drawn.remark == SAID
    assert "so I drew 128x128" in drawn.text and "submarine" not in drawn.text
    again = await bot.answer(await bot.press(f"again:{drawn.job}"))
    varied = await bot.answer(await bot.press(f"vary:1:{drawn.job}"))
    further = await bot.answer(await bot.press(f"again:{varied.job}"))
    for one in (again, varied, further):
        assert one.pictures and one.remark is None and "128x128" not in one.text
    # A new line says it again, and so does an edited prompt; an edited size alone says the size.
    assert (await bot.answer(await bot.say("/imagine mia7 woman in a submarine"))).remark == SAID
    edited = await bot.commands.edit(bot.caller(), drawn.job, ["prompt"], {"prompt": "mia7 in a blue submarine"})
    told = await bot.answer(edited)
    assert told.remark == SAID and "128x128" not in told.text
    edited = await bot.commands.edit(bot.caller(), drawn.job, ["size"], {"size": "768x512"})
    told = await bot.answer(edited)
    assert told.remark is None and "so I drew 128x128" in told.text
    # So does a variation with another prompt.
    varied = await bot.commands.vary(bot.caller(), f"1:{drawn.job}", "a red submarine")
    assert (await bot.answer(varied)).remark == SAID


async def test_it_is_said_where_nothing_was_drawn_before(bot: Any) -> None:
    await bot.avatar("mia7")
    bot.engine.errors = {Imagine: {"code": "timeout", "facts": {}}}
    failed = await bot.answer(await bot.say("/imagine mia7 woman in a submarine"))
    bot.engine.errors, bot.engine.remarks = {}, SUBMARINE
    assert (await bot.answer(await bot.press(failed.buttons[0].action))).remark == SAID


async def test_it_is_kept_and_erased_with_the_prompt_and_never_logged(
    bot: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await bot.avatar("mia7")
    await bot.say("/share mia7")
    bot.engine.remarks = SUBMARINE
    own = await bot.answer(await bot.say("/imagine mia7 woman in a submarine"))
    theirs = await bot.answer(await bot.say("/imagine mia7 woman in a submarine", name="Ben"))
    assert theirs.remark == SAID
    hub = Hub(bot.records, bot.blobs)
    await hub.post("studio", own, dedupe=own.job)
    asked = await bot.say("/forget")
    erase = [button for button in asked.message.buttons if "chat" in button.label] or asked.message.buttons
    await bot.press(erase[0].action)
    assert await bot.records.jobs.get(own.job) is None
    emptied = await bot.records.jobs.get(theirs.job)
    assert (emptied.payload.prompt, emptied.result) == ("", None)
    assert not [line for line in await bot.records.chat.history("studio") if "submarine" in str(line.body)]
    assert "submarine" not in caplog.text


def answer() -> Message:
    return Message("Here you are.", tone="good", job="j1", prompt="mia7 in a submarine", remark=SAID)


def test_discord_shows_it_where_the_prompt_is_shown() -> None:
    assert discord.content(answer()).splitlines() == [
        "Here you are.", SAID, "> mia7 in a submarine", discord.wording.job("j1").join(["-# ", ""]),
    ]  # fmt: skip
    public = discord.content(answer(), public=True)
    assert "submarine" not in public and "Here you are." in public
    risky = replace(answer(), remark="I can't draw “@everyone *a*” yet")
    assert "@everyone" not in discord.content(risky) and "\\*a\\*" in discord.content(risky)
    assert len(discord.content(replace(answer(), text="x" * 3000, prompt="y" * 1000))) <= discord.CONTENT


def test_telegram_shows_it_below_the_text() -> None:
    assert telegram.text_of(answer()) == f"Here you are.\n{SAID}"


async def test_the_terminal_shows_it_in_the_bubble() -> None:
    file = io.StringIO()
    terminal = Terminal(Console(file=file, width=200))
    await terminal.post("demo", answer())
    assert SAID in file.getvalue()


async def test_the_chat_page_gets_it(bot: Any) -> None:
    hub = Hub(bot.records, bot.blobs)
    await hub.post("studio", answer())
    [line] = await bot.records.chat.history("studio")
    assert (await hub.rendered(line))["body"]["remark"] == SAID


async def test_an_answer_is_the_same_when_it_is_composed_again(bot: Any) -> None:
    await bot.avatar("mia7")
    bot.engine.remarks = SUBMARINE
    drawn = await bot.answer(await bot.say("/imagine mia7 woman in a submarine"))
    job = await bot.records.jobs.get(drawn.job)
    assert job.state == State.SUCCEEDED and await bot.commands.answer(job) == drawn
