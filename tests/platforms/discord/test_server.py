"""The simulated server is as strict as Discord."""

import aiohttp
import pytest

from bot.frontends.discord.rendering import FILE
from tests.platforms.discord.world import ANNA
from tests.platforms.discord_server import TOKEN, DiscordServer, Refused, check_message


async def test_the_server_refuses_what_discord_refuses(server: DiscordServer, studio: int) -> None:
    with pytest.raises(Refused, match="content"):
        check_message({"content": "x" * 2001}, {}, FILE)
    with pytest.raises(Refused, match="empty"):
        check_message({"content": " "}, {}, FILE)
    with pytest.raises(Refused, match="too large"):
        check_message({"content": "x", "attachments": [{"id": 0}]}, {"0": bytes(11 * 1024 * 1024)}, FILE)
    row = {"type": 1, "components": [{"type": 2, "style": 2, "label": "x", "custom_id": "y" * 101}]}
    with pytest.raises(Refused, match="custom_id"):
        check_message({"content": "x", "components": [row]}, {}, FILE)
    async with aiohttp.ClientSession(headers={"Authorization": f"Bot {TOKEN}"}) as session:
        async with session.get(f"{server.api}/guilds/1/bans") as answer:
            assert answer.status == 404
        assert server.faults == ["GET /guilds/1/bans: no such route"]
        asked = await server.slash_raw(ANNA, studio)
        server.turn(3.5)
        path = f"{server.api}/interactions/{asked.id}/{asked.token}/callback"
        async with session.post(path, json={"type": 5}) as answer:
            assert (await answer.json())["code"] == 10062
        asked = await server.slash_raw(ANNA, studio)
        path = f"{server.api}/interactions/{asked.id}/{asked.token}/callback"
        async with session.post(path, json={"type": 5}) as answer:
            assert answer.status == 200
        async with session.post(path, json={"type": 5}) as answer:
            assert (await answer.json())["code"] == 40060
        server.turn(15 * 60)
        path = f"{server.api}/webhooks/900/{asked.token}"
        async with session.post(path, json={"content": "late"}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (401, 50027)
    async with aiohttp.ClientSession() as session, session.get(f"{server.api}/users/@me") as answer:
        assert answer.status == 401
