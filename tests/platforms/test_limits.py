"""Each limit of the platforms, gone over by one: the simulator refuses it, and our rendering keeps below it."""

import io
import time
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from PIL import Image
from telegram import Bot

from bot.commands.commands import Completion
from bot.frontends.discord import rendering
from bot.frontends.discord.form import UPLOADS, form
from bot.frontends.discord.registry import completions, slash_command
from bot.frontends.discord.rendering import FILE, files_of, pictures, render
from bot.frontends.telegram import calls
from bot.frontends.telegram.inline import RESULTS_MOST
from bot.frontends.telegram.outbox import FILE_MOST, TelegramOutbox
from bot.frontends.telegram.pace import Pace, Rate
from bot.frontends.telegram.rendering import CAPTION_MOST, TEXT_MOST, clipped, keyboard, pieces, units
from bot.frontends.telegram.rooms import ChatMigrations, Room
from bot.messages import Button, File, Message, Shown
from bot.table import COMMANDS, Command, Option, OptionKind
from storage.blobs import MemoryBlobs
from storage.records import Records
from tests.fakes.clock import Clock
from tests.fakes.engine import drawing
from tests.platforms import discord_server
from tests.platforms.discord_server import DiscordServer, check_command, check_form, check_message
from tests.platforms.telegram_server import TOKEN, Person, Rates, Server, said, served

ANNA = 11
MEBIBYTE = 1024 * 1024


def row(buttons: int, first: int = 0, custom_id: str = "") -> dict[str, Any]:
    made = [
        {"type": 2, "style": 2, "label": "x", "custom_id": custom_id or f"{n}"} for n in range(first, first + buttons)
    ]
    return {"type": 1, "components": made}


# Discord


@pytest.mark.parametrize(
    ("payload", "files", "wrong"),
    [
        ({"content": "x" * 2001}, {}, "content"),
        ({"content": "x", "embeds": [{}] * 11}, {}, "embeds"),
        ({"content": "x", "embeds": [{"description": "x" * 3000}, {"description": "x" * 3001}]}, {}, "embeds' text"),
        ({"content": "x", "components": [row(6)]}, {}, "row"),
        ({"content": "x", "components": [row(5, 5 * n) for n in range(6)]}, {}, "rows"),
        ({"content": "x", "components": [row(5, 5 * n) for n in range(7)]}, {}, "components|rows"),
        ({"content": "x", "components": [row(1, custom_id="y" * 101)]}, {}, "custom_id"),
        ({"content": "x", "attachments": [{"id": 0}]}, {"0": bytes(FILE + 1)}, "too large"),
        (
            {"content": "x", "attachments": [{"id": n} for n in range(3)]},
            {str(n): bytes(25 * MEBIBYTE // 3 + 1) for n in range(3)},
            "too large",
        ),
        ({"content": "x", "attachments": [{"id": n} for n in range(11)]}, {str(n): b"x" for n in range(11)}, "attach"),
    ],
)
def test_discord_refuses_a_message(payload: dict[str, Any], files: dict[str, bytes], wrong: str) -> None:
    with pytest.raises(discord_server.Refused, match=wrong):
        check_message(payload, files, FILE)


def test_discord_refuses_a_command_or_form() -> None:
    option = {"type": 3, "name": "a", "description": "x"}
    choice = {"name": "x", "value": "x"}
    for wrong in (
        {"options": [{**option, "name": f"o{n}"} for n in range(26)]},
        {"options": [{**option, "choices": [choice] * 26}]},
    ):
        with pytest.raises(discord_server.Refused):
            check_command({"name": "odd", "description": "x", **wrong})
    upload = {"type": 19, "custom_id": "x", "min_values": 0, "max_values": 11}
    label = {"type": 18, "label": "x", "component": upload}
    with pytest.raises(discord_server.Refused, match="files"):
        check_form({"title": "x", "custom_id": "x", "components": [label]})
    with pytest.raises(discord_server.Refused, match="fields"):
        check_form({"title": "x", "custom_id": "x", "components": [label] * 6})


async def test_discord_refuses_too_many_too_soon_and_too_late() -> None:
    """More than 50 requests a second, 26 completions, an answer after 3 s, a token after 15 minutes."""
    async with DiscordServer() as server, aiohttp.ClientSession(headers={"Authorization": f"Bot {TOKEN}"}) as session:
        session.headers["Authorization"] = f"Bot {discord_server.TOKEN}"
        server._times.extend([time.monotonic() + 60] * 49)
        statuses = []
        for _ in range(2):
            async with session.get(f"{server.api}/users/@me") as answer:
                statuses.append(answer.status)
        assert statuses == [200, 429]
        channel = server.add("server", ANNA)
        asked = await server._ask(discord_server.COMPLETES, ANNA, channel, {"id": "1", "name": "any", "type": 1})
        path = f"{server.api}/interactions/{asked.id}/{asked.token}/callback"
        choices = [{"name": "x", "value": f"{n}"} for n in range(26)]
        async with session.post(path, json={"type": 8, "data": {"choices": choices}}) as answer:
            assert answer.status == 400
        asked = await server.slash_raw(ANNA, channel)
        server.turn(3.01)
        path = f"{server.api}/interactions/{asked.id}/{asked.token}/callback"
        async with session.post(path, json={"type": 5}) as answer:
            assert answer.status == 404
        asked = await server.slash_raw(ANNA, channel)
        path = f"{server.api}/interactions/{asked.id}/{asked.token}/callback"
        async with session.post(path, json={"type": 5}) as answer:
            assert answer.status == 200
        server.turn(15 * 60 + 1)
        async with session.post(f"{server.api}/webhooks/900/{asked.token}", json={"content": "late"}) as answer:
            assert answer.status == 401
        before = len(server.faults)
        server.invalid.extend([time.monotonic()] * discord_server.INVALID)
        async with session.post(f"{server.api}/webhooks/900/{asked.token}", json={"content": "late"}) as answer:
            assert answer.status == 401
        assert "banned" in server.faults[before]


def test_names_and_prompts_are_shown_as_they_were_written() -> None:
    said = "Belongs to [free](https://example.com) *_~`|\n# Ben"
    escaped = "Belongs to \\[free](https://example.com) \\*\\_\\~\\`\\|\n\\# Ben"
    assert render(Message(said)).content == escaped
    asked = render(Message("", job="23456789bc", prompt="# mia7 *in*\na [suit](x), @everyone")).content
    assert "\n> \\# mia7 \\*in\\* a \\[suit](x), @\u200beveryone\n" in asked


def test_discord_messages_stay_below_the_limits() -> None:
    buttons = tuple(Button("y" * 81, f"again:{number}") for number in range(26))
    rendered = render(Message("x" * 2001, job="23456789bc", buttons=buttons))
    assert rendered.view
    components = rendered.view.to_components()
    check_message({"content": rendered.content, "components": components}, {}, FILE)
    assert len(rendered.content) == 2000 and sum(len(one["components"]) for one in components) == 25
    options = tuple(Option(f"o{n}", OptionKind.WORD, "x", choices=tuple(map(str, range(26)))) for n in range(2))
    command = slash_command(Command("odd", "x", "/odd", options), None, None)  # type: ignore[arg-type]
    assert len(command.parameters) == 2
    assert len(completions(OptionKind.WORD, "", [Completion(f"a{n}") for n in range(26)])) == 25
    for known in COMMANDS.values():
        if known.options:
            check_form(form(known, {}).to_dict())
    many = replace(
        COMMANDS["train"], options=(Option("photos", OptionKind.PHOTOS, "x", required=True, most=UPLOADS + 1),)
    )
    check_form(form(many, {}).to_dict())


async def test_files_for_discord_stay_below(monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, file = MemoryBlobs(), io.BytesIO()
    Image.effect_noise((300, 300), 90).save(file, "PNG")
    await blobs.put("pictures/a/0.png", file.getvalue())
    [small] = await pictures(blobs, [Shown("pictures/a/0.png", "x")], len(file.getvalue()) - 1)
    assert len(small.fp.read()) < len(file.getvalue())
    [whole] = await pictures(blobs, [Shown("pictures/a/0.png", "x")], len(file.getvalue()))
    assert whole.fp.read() == file.getvalue()
    assert len(await pictures(blobs, [Shown("pictures/a/0.png", "x")] * 11)) == 10
    fit, lacking = await files_of(blobs, [File("a", "x", content="x" * 11)], 10)
    assert (fit, len(lacking)) == ([], 1)
    monkeypatch.setattr(rendering, "FILES", 2 * len(file.getvalue()) - 1)
    both = await pictures(blobs, [Shown("pictures/a/0.png", "x")] * 2)
    assert sum(len(one.fp.read()) for one in both) < 2 * len(file.getvalue())


# Telegram


async def refused(server: Server, method: str, files: dict[str, bytes] | None = None, **given: Any) -> str:
    """What the server says to this call; nothing if it takes it."""
    async with served(server) as address, aiohttp.ClientSession() as session:
        form = aiohttp.FormData({name: str(value) for name, value in given.items()})
        for name, data in (files or {}).items():
            form.add_field(name, io.BytesIO(data), filename="x")
        async with session.post(f"{address}/bot{TOKEN}/{method}", data=form) as answer:
            body = await answer.json()
    assert server.faults == []
    return str(body.get("description", ""))


def album(count: int) -> str:
    return str([{"type": "photo", "media": f"attach://{n}"} for n in range(count)]).replace("'", '"')


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def ben(server: Server) -> Person:
    return server.person("Ben")


async def test_telegram_refuses(server: Server, ben: Person) -> None:
    picture, to = drawing(0), {"chat_id": ben.id}
    eleven = {f"{n}": picture for n in range(11)}
    assert "too long" in await refused(server, "sendMessage", **to, text="x" * 4097)
    assert await refused(server, "sendMessage", **to, text="x" * 4096) == ""
    assert "caption is too long" in await refused(server, "sendPhoto", {"photo": picture}, **to, caption="x" * 1025)
    data = '{"inline_keyboard": [[{"text": "x", "callback_data": "%s"}]]}'
    assert "BUTTON_DATA" in await refused(server, "sendMessage", **to, text="x", reply_markup=data % ("x" * 65))
    assert await refused(server, "sendMessage", **to, text="x", reply_markup=data % ("x" * 64)) == ""
    assert "SIZE_INVALID" in await refused(server, "sendMediaGroup", eleven, **to, media=album(11))
    assert "SIZE_INVALID" in await refused(server, "sendMediaGroup", {"0": picture}, **to, media=album(1))
    large = picture + bytes(10 * MEBIBYTE)
    assert "Too Large" in await refused(server, "sendPhoto", {"photo": large}, **to)
    assert await refused(server, "sendDocument", {"document": large}, **to) == ""
    assert "Too Large" in await refused(server, "sendDocument", {"document": bytes(50 * MEBIBYTE + 1)}, **to)
    assert "too big" in await refused(server, "getFile", file_id=server.store(bytes(20 * MEBIBYTE + 1)))
    results = [{"id": f"{n}", "type": "photo", "photo_file_id": server.store(b"x")} for n in range(51)]
    found = str(results).replace("'", '"')
    assert "TOO_MUCH" in await refused(server, "answerInlineQuery", inline_query_id="1", results=found)
    with pytest.raises(AssertionError, match="nobody type more"):
        await ben.ask("x" * 257)


async def test_telegram_refuses_fast_calls_and_old_messages(server: Server, ben: Person) -> None:
    server.rates, group = Rates(overall=1000, private=3, group=20), server.group()
    for chat, most in ((ben.id, 3), (group, 20)):
        answers = [await refused(server, "sendMessage", chat_id=chat, text="x") for _ in range(most + 1)]
        assert answers[:-1] == [""] * most and "Too Many" in answers[-1]
    server.rates = Rates(overall=30, private=1000)
    server._times.clear()
    server._chat({"chat_id": ben.id}, 30)
    assert "Too Many" in await refused(server, "sendMessage", chat_id=ben.id, text="x")
    old = server.add(ben.id, {"is_bot": True}, text="x")
    old["date"] -= 48 * 3600 + 1
    assert "can't be deleted" in await refused(server, "deleteMessage", chat_id=ben.id, message_id=old["message_id"])
    await ben.say("/status")
    assert len(await server._getUpdates({})) == 1
    server._came = {number: at - 24 * 3600 - 1 for number, at in server._came.items()}
    assert await server._getUpdates({}) == []


async def test_telegram_messages_stay_below_the_limits() -> None:
    assert [units(part) for part in pieces("x" * (TEXT_MOST + 1))] == [TEXT_MOST, 1]
    assert units(clipped("😀" * (CAPTION_MOST // 2) + "x", CAPTION_MOST)) <= CAPTION_MOST
    with pytest.raises(ValueError, match="64 bytes"):
        keyboard([Button("x", "a" * 65)])
    assert (TEXT_MOST, CAPTION_MOST, RESULTS_MOST) == (4096, 1024, 50)
    for chat, most, seconds in ((1, 20, 20), (-1, 19, 60)):
        clock = Clock()
        pace = Pace(clock=clock, sleep=clock.sleep)
        for _ in range(most):
            await pace.turn(chat)
        assert (pace.wait(chat), clock.sleeps) == (seconds, [])
    assert Pace(overall=Rate(28, 1.0)).wait(5, 29) == 0.0  # more than fits at once goes when nothing else does


async def test_albums_and_files_for_telegram_stay_below(
    server: Server, ben: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    blobs, records = MemoryBlobs(), await Records.open("sqlite+aiosqlite://")
    for n in range(11):
        await blobs.put(f"pictures/a/{n}.png", drawing(n))
    shown = tuple(Shown(f"pictures/a/{n}.png", "x" * 1025, n) for n in range(11))
    async with served(server) as address, Bot(TOKEN, base_url=f"{address}/bot") as bot:
        outbox = TelegramOutbox(bot, records, blobs, ChatMigrations(records), Pace())
        await outbox.say(Room(ben.id), Message("Eleven", pictures=shown))
        albums = [body["media_group_id"] for body in server.of_bot(ben.id) if "media_group_id" in body]
        alone = [body for body in server.of_bot(ben.id) if "photo" in body and "media_group_id" not in body]
        assert (len(albums), len(set(albums)), len(alone)) == (10, 1, 1)
        monkeypatch.setattr(calls, "PHOTO_MOST", len(drawing(0)) - 1)
        await outbox.say(Room(ben.id), Message("As a file", pictures=shown[:1]))
        assert len([body for body in server.of_bot(ben.id) if "document" in body]) == 1
        monkeypatch.setattr("bot.frontends.telegram.outbox.FILE_MOST", 10)
        await outbox.say(Room(ben.id), Message("File", files=(File("a", "x", content="x" * 11),)))
        assert "The person who runs me" in said(server.of_bot(ben.id)[-1])
        await outbox.close()
    assert FILE_MOST == 50_000_000
    await records.close()
    assert server.faults == []
