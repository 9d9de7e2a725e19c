"""The simulated server is as strict as Telegram."""

import pytest
from aiohttp import ClientSession

from tests.platforms.telegram_server import (
    BOT,
    PARAMETERS,
    TOKEN,
    Server,
    said,
    served,
)


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


async def test_the_server_returns_the_updates_of_a_bot() -> None:
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
