"""A request that Telegram delivers twice, or that a dead process left, makes one job and is answered once."""

from typing import Any

import pytest

from bot.settings import BotSettings
from storage.jobs import Imagine, Inspect, Train
from tests.platforms.telegram.world import PHOTOS, World
from tests.platforms.telegram_server import Person, said
from tests.until import until


async def replay(world: World) -> None:
    """Start the bot with an inbox as a killed process leaves it: everything came, and nothing is marked as handled."""
    await until(world.all_handled)
    await world.stop()
    for update in world.server.pushed:
        await world.storage.records.notes.put("telegram/inbox", str(update["update_id"]), {"update": update})
    await world.start()
    await until(world.all_handled)
    await world.settled()


def answers(world: World, chat: int, text: str) -> int:
    """How many messages ever said this in a chat."""
    return len([texts for (where, _), texts in world.server.told.items() if where == chat and text in "\n".join(texts)])


async def kinds(world: World) -> list[type]:
    return [type(job.payload) for job in world.engine.seen]


@pytest.mark.parametrize("way", ["polling", "webhook"])
async def test_doubled_updates_make_one_job_each(world: World, anna: Person, unused_tcp_port: int, way: str) -> None:
    server = world.server
    if way == "webhook":
        await world.stop()
        address = f"http://127.0.0.1:{unused_tcp_port}/telegram"
        world.settings = BotSettings(
            _env_file=None, telegram_webhook_url=address, telegram_webhook_port=unused_tcp_port
        )
        await world.start()
        await until(lambda: server.webhook.get("url"))
    await anna.hand_out(anna.album(PHOTOS[:6], "/train mia7 woman"), times=2)
    await anna.press(await server.until(anna.id, "mia7 woman: 6 photos"), "They agreed", times=2)
    await anna.press(await server.until(anna.id, "6 photos, all good"), "Train", times=2)
    await server.until(anna.id, "mia7 is ready")
    await anna.say("/imagine mia7 --count 1 --seed 5", times=2)
    drawn = await server.until(anna.id, "Here you are (seed 5)")
    await anna.press(drawn, "Again", times=2)
    await server.until(anna.id, "Here you are", 2)
    await world.settled()
    assert await kinds(world) == [Inspect, Train, Imagine, Imagine]
    assert answers(world, anna.id, "Here you are") == 2


async def test_replayed_updates_make_no_second_job(world: World, anna: Person) -> None:
    await world.trained(anna)
    group = world.server.group()
    await anna.say("/imagine mia7 --count 1 --seed 5")
    await world.server.until(anna.id, "Here you are (seed 5)")
    await anna.say("/imagine mia7 --count 1 --seed 6", chat=group)
    await world.server.until(group, "Here you are (seed 6)")
    jobs = {job.id for job in world.engine.seen}
    for _ in range(2):
        await replay(world)
    assert {job.id for job in world.engine.seen} == jobs and await kinds(world) == [Inspect, Train, Imagine, Imagine]
    assert {job.request is not None for job in world.engine.seen} == {True}
    for chat, text in ((anna.id, "Here you are"), (group, "Here you are"), (anna.id, "mia7 is ready")):
        assert answers(world, chat, text) == 1
    assert await world.storage.blobs.list("incoming/") == []


async def test_two_commands_in_one_second_are_two_requests(world: World, anna: Person) -> None:
    """Told apart by their requests: by room and time, the second would be taken for the first."""
    await world.trained(anna)
    world.engine.pause = 0.1
    for _ in range(2):
        await anna.say("/imagine mia7 --count 1 --seed 5")
    await world.server.until(anna.id, "Here you are (seed 5)", 2)
    await replay(world)
    drawings = await world.jobs(Imagine)
    assert len(drawings) == len({job.request for job in drawings}) == 2
    assert answers(world, anna.id, "Here you are") == 2


async def test_an_album_is_one_request_however_often_they_agree(world: World, anna: Person) -> None:
    """Two presses are two updates, and yet the photos are learned once."""
    await anna.say("/train mia7 woman")
    await world.server.until(anna.id, "Now send me the photos")
    for photo in PHOTOS[:5]:
        await anna.hand_out([anna.photo(photo)])
    await anna.press(await world.server.until(anna.id, "5 photos so far"), "Done")
    asked = await world.server.until(anna.id, "mia7 woman: 5 photos. One question")
    await anna.press(asked, "They agreed")
    await anna.press(asked, "They agreed")
    await world.server.until(anna.id, "5 photos, all good")
    await world.settled()
    assert len(await world.jobs(Inspect)) == 1
    # The loose tray can be filled again, which is another request.
    await anna.say("/train ben7 man")
    await world.server.until(anna.id, "Now send me the photos")
    for photo in PHOTOS[5:10]:
        await anna.hand_out([anna.photo(photo)])
    await anna.press(await world.server.until(anna.id, "5 photos so far"), "Done")
    await anna.press(await world.server.until(anna.id, "ben7 man: 5 photos. One question"), "They agreed")
    await world.server.until(anna.id, "5 photos, all good", 2)
    first, second = await world.jobs(Inspect)
    assert first.request != second.request


@pytest.mark.parametrize("album", [True, False], ids=["album", "loose photos"])
async def test_a_process_that_died_before_it_showed_the_reply(
    world: World, anna: Person, monkeypatch: pytest.MonkeyPatch, album: bool
) -> None:
    """The job is written down and the photos are taken, and nobody was told: the replayed press tells them."""
    if album:
        await anna.send(PHOTOS[:5], "/train mia7 woman")
    else:
        await anna.say("/train mia7 woman")
        for photo in PHOTOS[:5]:
            await anna.hand_out([anna.photo(photo)])
        await anna.press(await world.server.until(anna.id, "5 photos so far"), "Done")
    asked = await world.server.until(anna.id, "mia7 woman: 5 photos. One question")
    shown: list[Any] = []

    async def died(*given: Any, **named: Any) -> None:
        shown.append(given)

    assert world.telegram is not None
    monkeypatch.setattr("bot.frontends.telegram.answering.Answering.show", died)
    await anna.press(asked, "They agreed")
    await until(lambda: shown)
    monkeypatch.undo()
    press = world.server.pushed[-1]
    await until(world.all_handled)
    await world.stop()
    await world.storage.records.notes.put("telegram/inbox", str(press["update_id"]), {"update": press})
    await world.start()
    await world.server.until(anna.id, "5 photos, all good")
    await until(lambda: [body for body in world.server.of_bot(anna.id) if "Photo check: done" in said(body)])
    await world.settled()
    assert len(await world.jobs(Inspect)) == 1
    assert answers(world, anna.id, "all good") == 1
