"""Old tokens, lost sockets, broken lines, deleted messages and many people at once."""

import pytest

from storage.jobs import JobKind
from tests.platforms.discord.world import ANNA, BEN, PHOTOS, World, _attached


async def test_an_old_token_is_not_used(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await world.idle()
    world.engine.pause = 0.4
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit")
    hidden = await server.sees(ANNA, studio, "Drawing 4 pictures: step 1 of 4")
    assert hidden.only_for == ANNA
    server.turn(16 * 60)
    # The ordinary message that takes over says nothing private.
    moved = await server.until(lambda: next(iter(server.seen(BEN, studio)), None))
    assert "Drawing 4 pictures" in moved.content and "suit" not in moved.content and moved.only_for is None
    waiting = await server.sees(BEN, studio, "only you can open it")
    assert waiting.notified == [ANNA] and not waiting.files
    assert moved.content.startswith("Drawing: done")
    world.engine.pause = 0
    await server.press(ANNA, waiting, "Show")
    shown = await server.sees(ANNA, studio, "Here you are")
    assert len(shown.files) == 4 and "Post here" in shown.buttons
    assert not [one for one in server.requests if one[2] == 401]


async def test_a_lost_socket_is_resumed(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    await server.hang_up()
    await server.until(lambda: not server._sockets)
    # Said while nobody listens, and replayed afterwards.
    await server.slash(ANNA, dm, "help")
    assert "Show me 5 to 10 photos" in (await server.sees(ANNA, dm, "Show me 5 to 10 photos")).content
    assert (server.identified, server.resumed) == (1, 1)


async def test_a_socket_that_dies_silently_is_resumed(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    server.lose_sockets()
    await server.slash(ANNA, dm, "help")
    await server.sees(ANNA, dm, "Show me 5 to 10 photos")
    assert (server.identified, server.resumed) == (1, 1)


async def test_after_a_session_that_discord_forgot_nothing_is_lost_or_doubled(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    world.engine.pause = 0.1
    await world.acknowledged(await server.slash(ANNA, dm, "imagine", prompt="mia7 woman", count=1))
    await server.hang_up(resumable=False)
    drawn = await server.sees(ANNA, dm, "Here you are")
    await server.until(lambda: server._sockets)
    await server.press(ANNA, drawn, "Again")
    await server.until(lambda: len([job for job in world.engine.seen if job.kind == JobKind.IMAGINE]) == 2)
    await world.idle()
    answers = [one for one in server.seen(ANNA, dm) if "Here you are" in one.content]
    assert [len(one.files) for one in answers] == [1, 1]
    assert (server.identified, server.resumed) == (2, 0)


async def test_a_repeated_event(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    await server.slash(ANNA, dm, "imagine", prompt="mia7 woman")
    await server.repeat()
    await server.sees(ANNA, dm, "Here you are")
    await world.idle()
    assert len([job for job in world.engine.seen if job.kind == JobKind.IMAGINE]) == 1
    assert len([one for one in server.seen(ANNA, dm) if "Here you are" in one.content]) == 1


@pytest.mark.parametrize("after", [False, True])
async def test_network_errors_neither_lose_nor_double_a_message(world: World, after: bool) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    server.fail("POST /interactions/.*/callback", 500, after=after)
    server.fail("PATCH /webhooks/.*", 429)
    server.fail(f"POST /channels/{dm}/messages", 500, times=2, after=after)
    server.fail(f"POST /channels/{dm}/messages", 429)
    server.fail(f"PATCH /channels/{dm}/messages/.*", 500)
    await server.slash(ANNA, dm, "train", token="mia7", noun="woman", consent=True, **_attached(PHOTOS))
    await server.sees(ANNA, dm, "6 photos, all good")
    await world.idle()
    assert len([one for one in server.seen(ANNA, dm) if "all good" in one.content]) == 1
    assert server._failures == []


@pytest.mark.parametrize("after", [False, True])
async def test_a_broken_connection_moves_no_answer_into_a_public_channel(
    world: World, studio: int, after: bool
) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    world.engine.pause = 0.2
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    hidden = await server.sees(ANNA, studio, "Drawing 4 pictures: step 1 of 4")
    # More than the tries of one edit, so that a sweep has to ask again too.
    server.fail("PATCH /webhooks/.*", None, times=8, after=after)
    drawn = await server.sees(ANNA, studio, "Here you are")
    await world.idle()
    assert drawn is hidden and len(drawn.files) == 4
    assert server.seen(BEN, studio) == [] and server._failures == []


async def test_an_answer_waits_for_a_command_that_discord_is_slow_to_take(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    # The library waits for one second, and then for three, where Discord waits for three in all.
    server.fail("POST /interactions/.*/callback", 500, times=2)
    server.fail("PATCH /webhooks/.*", 500, times=2)
    asked = await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    assert (await server.sees(ANNA, studio, "Here you are")).id == asked.original
    assert server.seen(BEN, studio) == [] and server._failures == []


async def test_a_form_whose_line_breaks(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    server.fail("POST /interactions/.*/callback", None)
    server.fail("POST /interactions/.*/callback", None, after=True)
    asked = await world.acknowledged(await server.slash(ANNA, dm, "train"))
    assert asked.answer == 9
    await server.until(lambda: not server._failures)


async def test_a_deleted_progress_message(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    world.engine.pause = 0.2
    await server.slash(ANNA, dm, "imagine", prompt="mia7 woman")
    progress = await server.sees(ANNA, dm, "Drawing 4 pictures: step 1 of 4")
    del server.messages[progress.id]
    assert len((await server.sees(ANNA, dm, "Here you are")).files) == 4
    path = f"/api/v10/channels/{dm}/messages/{progress.id}"
    assert len([one for one in server.requests if one[1:] == (path, 404)]) == 1


async def test_a_progress_message_that_its_person_dismissed(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    world.engine.pause = 0.2
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman")
    progress = await server.sees(ANNA, studio, "Drawing 4 pictures: step 1 of 4")
    del server.messages[progress.id]
    assert len((await server.sees(ANNA, studio, "Here you are")).files) == 4
    assert server.seen(BEN, studio) == []


async def test_many_people_at_once_are_acknowledged_in_time(world: World) -> None:
    server = world.server
    asked = [await server.slash(user, server.dm(user), "status") for user in range(100, 160)]
    for one in asked:
        await server.until(lambda one=one: one.answer)
        await server.sees(one.user, one.channel, "You have no jobs under way")
    assert max(one.delay for one in asked) < 3
    assert all(len(server.seen(one.user, one.channel)) == 1 for one in asked)
