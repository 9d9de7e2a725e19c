"""Who sees what: private chats, channels of a server, and channels where the bot may not write."""

import pytest

from bot.frontends.discord.rooms import NAME
from storage.jobs import JobKind, Train
from tests.platforms.discord.world import ANNA, BEN, PHOTOS, World, _imagine


async def test_only_their_person_sees_errors(world: World, studio: int) -> None:
    server = world.server
    world.engine.errors[Train] = {"code": "out_of_memory", "facts": {}}
    asked = await server.slash(ANNA, studio, "train")
    await server.until(lambda: asked.answer)
    await server.submit(asked, PHOTOS, token="mia7", noun="woman", consent=True)
    await server.press(ANNA, await server.sees(ANNA, studio, "6 photos, all good"), "Train")
    notice = await server.sees(BEN, studio, "only you can open it")
    assert server.find(BEN, studio, "did not fit into memory") is None
    await server.press(ANNA, notice, "Show me")
    failed = await server.sees(ANNA, studio, "did not fit into memory")
    [job] = [job for job in world.engine.seen if isinstance(job.payload, Train)]
    assert f"This does not count towards your quota (job {job.id})." in failed.content and failed.only_for == ANNA


async def test_a_training_in_a_server_shows_no_picture_to_others(world: World, studio: int) -> None:
    server = world.server
    asked = await world.acknowledged(await server.slash(ANNA, studio, "train"))
    await server.submit(asked, PHOTOS, token="mia7", noun="woman", consent=True)
    await server.press(ANNA, await server.sees(ANNA, studio, "all good"), "Train")
    waiting = await server.sees(BEN, studio, "only you can open it")
    assert waiting.notified == [ANNA]
    await server.press(BEN, waiting, "Show")
    assert (await server.sees(BEN, studio, "Only the person who started this")).only_for == BEN
    await server.press(ANNA, waiting, "Show")
    shown = await server.sees(ANNA, studio, "mia7 is ready")
    assert shown.only_for == ANNA and len(shown.files) == 4
    await world.idle()
    assert all(one.files == [] for one in server.seen(BEN, studio))


async def test_a_private_channel_is_followed_in_the_private_chat(world: World) -> None:
    server, private = world.server, world.server.add("private", ANNA, BEN)
    asked = await world.acknowledged(await server.slash(ANNA, private, "train"))
    await server.submit(asked, PHOTOS, token="mia7", noun="woman", consent=True)
    await server.press(ANNA, await server.sees(ANNA, private, "all good"), "Train")
    ready = await server.sees(ANNA, server.dm(ANNA), "mia7 is ready")
    assert len(ready.files) == 4
    assert await server.sees(ANNA, private, "in our private chat")
    await server.slash(ANNA, private, "imagine", prompt="mia7 woman")
    assert (await server.sees(ANNA, private, "Here you are")).only_for == ANNA
    assert server.seen(BEN, private) == []
    await world.idle()
    assert not [one for one in server.requests if one[2] == 403]


async def test_where_the_bot_may_not_write(world: World, studio: int, caplog: pytest.LogCaptureFixture) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    server.channels[studio].closed = True
    for closed, seen_in in ((False, dm), (True, None)):
        server.channels[dm].closed = closed
        job = await world.storage.records.jobs.create(
            JobKind.IMAGINE,
            (await world.storage.records.users.get_or_create(NAME, str(ANNA), "User 11")).id,
            NAME,
            f"server/{studio}",
            _imagine(),
        )
        await world.storage.queue.enqueue(job)
        await world.idle()
        ended = await world.storage.records.jobs.get(job.id)
        assert ended and ended.delivered
        assert (server.find(ANNA, dm, job.id) is not None) is (seen_in == dm)
    assert "was not delivered" in caplog.text
    # It does not try again and again, but tells her as soon as she is there.
    assert len([one for one in server.requests if one[2] == 403]) == 3
    await server.slash(ANNA, studio, "help")
    missed = await server.sees(ANNA, studio, "only you can open it")
    await server.press(ANNA, missed, "Show")
    await server.sees(ANNA, studio, "Here you are")
    await server.press(ANNA, missed, "Show")
    await server.slash(ANNA, studio, "status")
    await server.sees(ANNA, studio, "You have no jobs under way")
    await world.idle()
    assert len([one for one in server.seen(ANNA, studio) if "only you can open it" in one.content]) == 1


@pytest.mark.parametrize("place", ["dm", "server", "closed", "private"])
async def test_a_reply_finds_its_person_without_the_interaction(world: World, studio: int, place: str) -> None:
    """Once its token is worth nothing, in the private chat; and if that is closed, the person hears at least."""
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    where = {"dm": dm, "private": server.add("private", ANNA, BEN)}.get(place, studio)
    server.channels[dm].closed = place == "closed"
    before = len(server.seen(ANNA, dm))
    (await server.slash(ANNA, where, "avatars")).expired = True
    if place == "closed":
        lost = await server.sees(BEN, studio, "I could not show you my answer")
        assert lost.notified == [ANNA] and "mia7" not in lost.content
        return
    listed = await server.sees(ANNA, dm, "mia7 · woman · ready")
    assert "Change mia7" in listed.buttons and len(listed.files) == 1
    (await server.slash(ANNA, where, "export", token="mia7")).expired = True
    assert [file["data"] for file in (await server.sees(ANNA, dm, "what I learned of mia7")).files] == [b"weights"]
    (await server.slash(ANNA, where, "share", token="mia7")).expired = True
    if place == "server":
        await server.sees(BEN, studio, "shares mia7 with this group")
    else:
        await server.sees(ANNA, dm, "share mia7" if place == "dm" else "shares mia7")
    await world.idle()
    # One for each, but for what everybody was to read.
    assert len(server.seen(ANNA, dm)) - before == (2 if place == "server" else 3)
