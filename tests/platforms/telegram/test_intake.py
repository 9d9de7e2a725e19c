"""Receiving updates: polling, webhook, crowds, and what an earlier process left."""

from datetime import timedelta
from typing import Any

import pytest
from aiohttp import ClientSession

from bot.settings import BotSettings
from storage.records.notes import Notes
from tests.platforms.telegram.world import World
from tests.platforms.telegram_server import (
    TOKEN,
    Cut,
    Person,
    Refused,
    said,
)
from tests.until import until


async def test_unfinished_updates_of_another_process_are_handled(world: World, anna: Person) -> None:
    assert world.telegram is not None
    message = world.server.add(anna.id, anna.user, text="/status")
    left = {"update": {"update_id": 777, "message": message}}
    await world.storage.records.notes.add("telegram/inbox", "777", left)
    await world.telegram.intake.resume(timedelta(hours=1))
    assert world.telegram.intake.busy == 0
    await world.telegram.intake.resume()
    await world.telegram.intake.resume()
    await world.server.until(anna.id, "You have no jobs")
    await world.settled()
    assert len(world.server.of_bot(anna.id)) == 1


async def test_a_repeated_broadcast_update_is_posted_once(world: World, anna: Person) -> None:
    server = world.server
    world.settings = BotSettings(_env_file=None, operators=f"telegram:{anna.id}")
    await world.restart()
    await world.trained(anna)
    asked = await anna.say("/operator broadcast I rest at ten")
    await server.until(anna.id, "A message from the people who run this bot: I rest at ten")
    await until(world.all_handled)
    # As if the process had been killed before it could write down that it was done.
    number = max(int(key) for key in await world.notes("telegram/inbox"))
    await world.stop()
    await world.storage.records.notes.put(
        "telegram/inbox", str(number), {"update": {"update_id": number, "message": asked}}
    )
    await world.start()
    await world.settled()
    assert len([body for body in server.of_bot(anna.id) if "I rest at ten" in said(body)]) == 1


async def test_under_load_commands_are_acknowledged_before_they_run(world: World) -> None:
    crowd = [world.server.person(f"Person {number}") for number in range(330)]  # polled in several calls
    await world.stop()
    for one in crowd:
        await one.say("/help")
    world.server.calls.clear()
    await world.start()
    for one in crowd:
        await world.server.until(one.id, "Show me 5 to 10 photos")
    told = [method for _, method, _ in world.server.calls if method in ("sendChatAction", "sendMessage")]
    assert told[: len(crowd)] == ["sendChatAction"] * len(crowd)


async def test_two_pollers_are_logged(world: World, anna: Person, caplog: pytest.LogCaptureFixture) -> None:
    async with ClientSession() as session:

        async def told() -> bool:
            async with session.post(f"{world.address}/bot{TOKEN}/getUpdates", data={"timeout": "0"}) as answer:
                await answer.read()
            return "another process polls" in caplog.text

        await until(told)
    assert TOKEN not in caplog.text
    await anna.say("/status")
    await world.server.until(anna.id, "You have no jobs")


async def test_a_bad_line_at_the_start_ends_no_process(
    world: World, anna: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.stop()
    world.server.inject("deleteWebhook", Cut())
    world.server.inject("getUpdates", Refused(500, "Internal Server Error"))
    add, failures = Notes.add_many, [OSError("the disk is full")]

    async def fails_once(*given: Any) -> set[str]:
        if failures:
            raise failures.pop()
        return await add(*given)

    monkeypatch.setattr(Notes, "add_many", fails_once)
    await world.start()
    await anna.say("/status")
    await world.server.until(anna.id, "You have no jobs")
    assert failures == []


async def test_the_webhook_knows_its_secret(world: World, anna: Person, unused_tcp_port: int) -> None:
    await world.stop()
    address = f"http://127.0.0.1:{unused_tcp_port}/telegram"
    world.settings = BotSettings(_env_file=None, telegram_webhook_url=address, telegram_webhook_port=unused_tcp_port)
    world.server.inject("setWebhook", Cut())
    await world.start()
    await until(lambda: world.server.webhook)
    await anna.say("/status", times=2)
    await world.server.until(anna.id, "You have no jobs")
    async with ClientSession() as session:
        for headers, body, status in (
            ({}, "{}", 403),
            ({"X-Telegram-Bot-Api-Secret-Token": "guess"}, "{}", 403),
            ({"X-Telegram-Bot-Api-Secret-Token": world.server.webhook["secret_token"]}, "no json", 400),
        ):
            async with session.post(address, data=body, headers=headers) as answer:
                assert answer.status == status
    assert len(world.server.of_bot(anna.id)) == 1
    assert TOKEN not in world.server.webhook["secret_token"]
