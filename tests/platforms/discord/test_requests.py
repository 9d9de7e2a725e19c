"""An interaction that Discord delivers twice, or again to the next process, makes one job and is answered once."""

from storage.jobs import Imagine, Inspect, Train
from tests.platforms.discord.world import ANNA, BEN, PHOTOS, World, _attached


async def replay(world: World) -> None:
    """Deliver the last interaction again to a new process, which remembers nothing of it."""
    await world.idle()
    await world.stop()
    await world.start()
    await world.server.repeat()
    await world.server.slash(BEN, world.server.dm(BEN), "help")
    await world.server.sees(BEN, world.server.dm(BEN), "Show me 5 to 10 photos")
    await world.idle()


async def test_a_replayed_interaction_makes_no_second_job(world: World, studio: int) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    given = {"token": "mia7", "noun": "woman", "consent": True, **_attached(PHOTOS)}
    await server.slash(ANNA, dm, "train", **given)
    checked = await server.sees(ANNA, dm, "6 photos, all good")
    await replay(world)
    await server.press(ANNA, checked, "Train")
    await server.sees(ANNA, dm, "mia7 is ready")
    await replay(world)
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman", count=1)
    await server.sees(ANNA, studio, "Here you are")
    await replay(world)
    assert [type(job.payload) for job in world.engine.seen] == [Inspect, Train, Imagine]
    assert len({job.request for job in world.engine.seen}) == 3
    for channel, text in ((dm, "all good"), (dm, "mia7 is ready"), (studio, "Here you are")):
        assert len([one for one in server.seen(ANNA, channel) if text in "\n".join(one.said)]) == 1
    assert server.seen(BEN, studio) == []


async def test_two_commands_in_one_second_are_two_requests(world: World, studio: int) -> None:
    """Told apart by their requests: by room and time, the second would be taken for the first."""
    server = world.server
    await world.avatar(server.dm(ANNA))
    for seed in (5, 6):
        await server.slash(ANNA, studio, "imagine", prompt="mia7 woman", count=1, seed=seed)
    for seed in (5, 6):
        await server.sees(ANNA, studio, f"Here you are (seed {seed})")
    await replay(world)
    drawings = [job for job in world.engine.seen if isinstance(job.payload, Imagine)]
    assert len(drawings) == len({job.request for job in drawings}) == 2
