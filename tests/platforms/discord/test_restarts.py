"""Processes that end or die in the middle."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from bot.frontends.discord.rooms import NAME
from bot.messages import Message, Reply
from bot.replies import jobs as replies
from storage.jobs import JobKind
from storage.open import open_storage
from storage.settings import StorageSettings
from tests.platforms.discord.world import ANNA, BEN, PHOTOS, World, _attached, _imagine, engine_of
from tests.platforms.discord_server import TOKEN, Asked, DiscordServer
from tests.until import until


async def test_a_restart_in_the_middle(world: World, studio: int) -> None:
    server = world.server
    world.engine.gate.clear()
    asked = await world.acknowledged(await server.slash(ANNA, studio, "train"))
    await world.stop()
    # The form was still open, and the button under the check is older than the bot.
    await world.start()
    await server.submit(asked, PHOTOS, token="mia7", noun="woman", consent=True)
    checked = await server.sees(ANNA, studio, "all good")
    await world.stop()
    await world.start()
    await server.press(ANNA, checked, "Train")
    progress = await server.sees(ANNA, studio, "Training mia7: step 2 of 4")
    await world.stop()
    world.engine.gate.set()
    await world.start()
    await server.sees(ANNA, studio, "only you can open it")
    await world.idle()
    assert progress.content.startswith("Training of mia7: done")
    assert len([one for one in server.seen(BEN, studio) if "only you can open it" in one.content]) == 1
    assert len([job for job in world.engine.seen if job.kind == JobKind.TRAIN]) == 1


async def test_an_answer_that_was_sent_but_not_written_down(world: World, studio: int) -> None:
    """As if the bot was killed between the two, and came back when Discord had forgotten the nonce."""
    server, records = world.server, world.storage.records
    user = await records.users.get_or_create(NAME, str(ANNA), "User 11")
    job = await records.jobs.create(JobKind.IMAGINE, user.id, NAME, f"server/{studio}", _imagine())
    answer = Message("The drawing is cancelled.", job=job.id)
    write, lost = records.notes.put, RuntimeError("killed")

    async def killed(*_: object) -> None:
        raise lost

    records.notes.put = killed  # type: ignore[method-assign, assignment]
    with pytest.raises(RuntimeError, match="killed"):
        await world.bot.outbox.post(job.room, answer, dedupe=job.id)
    records.notes.put = write  # type: ignore[method-assign]
    for _ in range(2):
        server.turn(3600)
        ref = await world.bot.outbox.post(job.room, answer, dedupe=job.id)
        assert [f"{job.room}/{one.id}" for one in server.seen(ANNA, studio)] == [ref]
    await records.jobs.request_cancel(job.id)


async def test_an_open_interaction_is_followed_after_a_restart(world: World, studio: int) -> None:
    """While its token is fresh, nobody has to be told in front of all that an answer is there."""
    server = world.server
    await world.avatar(server.dm(ANNA))
    world.engine.pause = 0.3
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    hidden = await server.sees(ANNA, studio, "Drawing 4 pictures: step 1 of 4")
    await world.stop()
    await world.start()
    drawn = await server.sees(ANNA, studio, "Here you are")
    await world.idle()
    assert drawn is hidden and len(drawn.files) == 4
    assert server.seen(BEN, studio) == []
    assert len([text for text in drawn.said if "Here you are" in text]) == 1


async def test_an_answer_that_was_shown_but_not_marked_as_delivered(world: World, studio: int) -> None:
    """As if the bot was killed between the two: what tells the progress must not take the answer's place again."""
    server = world.server
    await world.avatar(server.dm(ANNA))
    marked, killed = world.storage.records.jobs.mark_delivered, asyncio.Event()

    async def dying(job_id: str) -> bool:
        if killed.is_set():
            return await marked(job_id)
        killed.set()
        raise RuntimeError("killed")

    world.storage.records.jobs.mark_delivered = dying  # type: ignore[method-assign]
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    await killed.wait()
    await world.stop()
    await world.start()
    await world.idle()
    drawn = await server.sees(ANNA, studio, "Here you are")
    assert len(drawn.files) == 4 and drawn.said[-1] == drawn.content
    assert len([text for text in drawn.said if "Here you are" in text]) == 1
    assert server.seen(BEN, studio) == []


async def test_progress_that_is_late_does_not_replace_the_answer(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    asked = await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    drawn = await server.sees(ANNA, studio, "Here you are")
    await world.idle()
    job = world.engine.seen[-1]
    late = replies.under_way(job, None, "step", {"step": 3, "steps": 4, "seconds_left": 1.0})
    for message in (late, replies.ended(job, None)):
        await world.bot.outbox.edit(f"server/{studio}/@{job.id}", message)
    assert drawn.id == asked.original and drawn.content == drawn.said[-1] and "Here you are" in drawn.content
    assert server.seen(BEN, studio) == []


@pytest.mark.parametrize("begun", [False, True])
async def test_an_acknowledged_command_is_answered_after_a_restart(world: World, studio: int, begun: bool) -> None:
    """As if the bot was killed between an acknowledgement and its answer: before the job was written down, or after."""
    server, run = world.server, world.bot.commands.run
    await world.avatar(server.dm(ANNA))
    world.engine.pause = 0.2

    tasks: list[asyncio.Task[object]] = []

    async def killed(*given: object) -> Reply:
        task = asyncio.current_task()
        assert task
        tasks.append(task)
        if begun:
            await run(*given)  # type: ignore[arg-type]
        await asyncio.Event().wait()
        raise AssertionError

    world.bot.commands.run = killed  # type: ignore[method-assign, assignment]
    asked = await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    await until(lambda: tasks and (not begun or world.engine.seen[2:]))
    assert await world.storage.records.notes.find("discord/open")
    for task in tasks:
        task.cancel()
    await world.stop()
    server.fail("PATCH /webhooks/.*", None, times=4)
    await world.start()
    if begun:
        assert (await server.sees(ANNA, studio, "Here you are")).id == asked.original
    else:
        assert (await server.sees(ANNA, studio, "Please send it again")).id == asked.original
    await world.idle()
    assert server.seen(BEN, studio) == []
    assert await world.storage.records.notes.find("discord/open") == []


# Requests in order: acknowledged, six photos, progress (8), its end, the answer (10), [Train] acknowledged, its buttons
# off, progress (13), and so on.
@pytest.mark.slow
@pytest.mark.parametrize(("point", "handled"), [(1, True), (4, False), (8, False), (10, True), (13, True)])
async def test_a_bot_killed_in_the_middle_of_a_training(
    server: DiscordServer, tmp_path: Path, point: int, handled: bool
) -> None:
    """SIGKILL at one of the bot's requests, before or after Discord does what it asks for; the person tries again."""
    environment = os.environ | {
        "AVATAR_HOME": str(tmp_path),
        "AVATAR_DISCORD_TOKEN": TOKEN,
        "AVATAR_DISCORD_API_URL": server.api,
        "AVATAR_DISCORD_GATEWAY_URL": server.gateway,
    }

    bots: list[asyncio.subprocess.Process] = []

    async def start() -> asyncio.subprocess.Process:
        bot = await asyncio.create_subprocess_exec(sys.executable, "-m", "bot", "discord", env=environment)
        bots.append(bot)
        await server.until(lambda: server._sockets, 120)
        return bot

    dm = server.dm(ANNA)
    async with open_storage(StorageSettings(home=tmp_path)) as storage, engine_of(storage):
        bot = await start()
        killed = server.kill_at(point, bot.pid, handled)
        asked: Asked | None = None
        try:
            async with asyncio.timeout(240):
                while not server.find(ANNA, dm, "mia7 is ready"):
                    if bot.returncode is not None:
                        bot = await start()
                    checked = server.find(ANNA, dm, "6 photos, all good")
                    under_way = any(server.find(ANNA, dm, text) for text in ("Thank you", "Checking", "Photo check"))
                    if checked and checked.buttons:
                        await server.press(ANNA, checked, "Train")
                    elif asked is None or not (checked or under_way):
                        given = {"token": "mia7", "noun": "woman", "consent": True, **_attached(PHOTOS)}
                        asked = await server.slash(ANNA, dm, "train", **given)
                    for _ in range(100):
                        await asyncio.sleep(0.02)
                        if bot.returncode is not None or server.find(ANNA, dm, "mia7 is ready"):
                            break
                while await storage.records.jobs.undelivered(NAME):
                    await asyncio.sleep(0.05)
        finally:
            for bot in bots:
                if bot.returncode is None:
                    bot.terminate()
                await bot.wait()
        assert killed.is_set()
        jobs = await storage.records.jobs.for_user(
            (await storage.records.users.get_or_create(NAME, str(ANNA), "User 11")).id
        )
        assert len([job for job in jobs if job.kind == JobKind.TRAIN]) == 1
        for job in jobs:
            answers = [one for one in server.seen(ANNA, dm) if one.notified and job.id in one.content]
            assert job.over and len(answers) == 1
    assert server.faults == []
