"""The buttons under an answer: post, pick, edit the prompt, vary, seed, delete, style."""

from dataclasses import replace

from storage.jobs import Imagine
from tests.fakes.engine import SEEN, drawing
from tests.platforms.discord.world import ANNA, BEN, PHOTOS, World


async def test_pictures_are_private_until_posted(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    world.engine.remarks = {"unknown": [{"phrase": "submarine", "similar": []}], "known": {}}
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a submarine")
    drawn = await server.sees(ANNA, studio, "Here you are")
    assert drawn.only_for == ANNA and len(drawn.files) == 4
    assert "I can't draw “submarine” yet; I drew the rest." in drawn.content
    assert server.seen(BEN, studio) == []

    await server.press(ANNA, drawn, "Post here")
    posted = await server.sees(BEN, studio, "Here you are")
    assert [file["data"] for file in posted.files] == [file["data"] for file in drawn.files]
    assert "Again" in posted.buttons and "Post here" not in posted.buttons
    assert "I can't draw" not in posted.content
    await server.press(ANNA, drawn, "Post here")
    await server.sees(ANNA, studio, "already posted here")
    assert server.seen(BEN, studio) == [posted]
    # Ben has no right to Anna's avatar, and hears so alone.
    await server.press(BEN, posted, "Again")
    refused = await server.until(lambda: next((one for one in server.seen(BEN, studio) if one.only_for == BEN), None))
    assert "not shared with you here" in refused.content


async def test_a_refused_post_is_reported_and_can_be_repeated(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit")
    drawn = await server.sees(ANNA, studio, "Here you are")
    server.fail("POST /webhooks", 403)
    await server.press(ANNA, drawn, "Post here")
    await server.sees(ANNA, studio, "I could not post it here")
    assert server.find(BEN, studio, "Here you are") is None
    await server.press(ANNA, drawn, "Post here")
    await server.sees(BEN, studio, "Here you are")


async def test_what_was_read_from_photos_is_corrected_in_one_message(world: World, studio: int) -> None:
    server = world.server
    world.engine.album = {"looks": SEEN}
    asked = await world.acknowledged(await server.slash(ANNA, studio, "train", token="mia7"))
    await server.submit(asked, PHOTOS, noun="man", consent=True)
    checked = await server.sees(ANNA, studio, "I see short dark brown hair, a full beard, light skin, no glasses.")
    assert list(checked.buttons) == [
        "Train mia7", "Hair length", "Hair colour", "Hair type", "Beard", "Skin", "Glasses", "Cancel"
    ]  # fmt: skip
    await server.press(ANNA, checked, "Glasses")
    await server.until(lambda: "mia7: Glasses. Which is right?" in checked.content)
    assert list(checked.buttons) == ["No glasses", "With glasses", "Back"] and checked.only_for == ANNA
    await server.press(ANNA, checked, "With glasses")
    await server.until(lambda: "light skin, glasses." in checked.content)
    await server.press(ANNA, checked, "Train mia7")
    await server.until(lambda: world.engine.drawn_from)
    assert [looks["glasses"] for looks in world.engine.drawn_from if looks] == [True]
    assert checked.components == []


async def test_one_picture_and_another_prompt(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await world.storage.queue.offer(["inks"], 600)
    kept = {"style": "inks:0.6", "negative": "hat", "size": "256x128", "guidance": 3.5}
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit", count=3, seed=5, steps=9, **kept)
    drawn = await server.sees(ANNA, studio, "Here you are")
    assert list(drawn.buttons) == [
        "Again", "V1", "V2", "V3", "Seed", "Delete", "Post here", "Edit prompt", "U1", "U2", "U3"
    ]  # fmt: skip
    await world.stop()
    await world.start()
    await server.press(ANNA, drawn, "U3")
    alone = await server.until(lambda: next((one for one in server.seen(ANNA, studio) if len(one.files) == 1), None))
    assert alone.only_for == ANNA and alone.files[0]["data"] == drawing(7)
    form = await world.acknowledged(await server.press(ANNA, drawn, "Edit prompt"))
    # Whatever it was asked for in particular has a field of its own, before what everything has.
    fields = {one["component"]["custom_id"]: one["component"].get("value") for one in form.data["components"]}
    assert fields == {"prompt": "mia7 woman in a suit", **{name: str(value) for name, value in kept.items()}}
    await server.submit(form, prompt="mia7 woman on the moon", guidance="")
    await server.until(lambda: [job for job in world.engine.seen if isinstance(job.payload, Imagine)][1:])
    edited = world.engine.seen[-1]
    # A field that is emptied takes its default; what had no field is as it was.
    job = next(job for job in world.engine.seen if isinstance(job.payload, Imagine))
    assert isinstance(job.payload, Imagine) and (job.payload.count, job.payload.seed, job.payload.steps) == (3, 5, 9)
    changed = {"prompt": "mia7 woman on the moon", "guidance": None, "repeats": job.id}
    assert edited.payload == replace(job.payload, **changed)
    await server.submit(form, prompt=" ")
    assert (await server.sees(ANNA, studio, "What should I draw?")).only_for == ANNA
    await server.press(ANNA, drawn, "V2")
    await server.until(lambda: world.engine.seen[-1].payload.original)
    await world.idle()
    varied = await server.sees(ANNA, studio, "Here you are")
    form = await world.acknowledged(await server.press(ANNA, varied, "Edit prompt"))
    await server.submit(form, prompt="mia7 woman, sad")
    await server.until(lambda: world.engine.seen[-1].payload.prompt == "mia7 woman, sad")
    original = (await world.storage.records.jobs.pictures(job.id))[1].key
    assert (world.engine.seen[-1].payload.original, world.engine.seen[-1].payload.steps) == (original, 9)
    await server.press(ANNA, drawn, "Post here")
    posted = await server.sees(BEN, studio, "Here you are")
    for label in ("U1", "Edit prompt"):
        before = len(server.seen(BEN, studio))
        await server.press(BEN, posted, label)
        await server.until(lambda before=before: len(server.seen(BEN, studio)) > before)
        assert "Only the person who started this" in server.seen(BEN, studio)[-1].content
    assert server.seen(BEN, studio)[-1].only_for == BEN


async def test_a_picture_is_varied_after_a_restart(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit", count=4, seed=5)
    drawn = await server.sees(ANNA, studio, "Here you are")
    [job] = [job for job in world.engine.seen if isinstance(job.payload, Imagine)]
    await world.stop()
    await world.start()
    await server.press(ANNA, drawn, "V3")
    varied = await server.until(
        lambda: next((one for one in server.seen(ANNA, studio) if "Here you are" in one.content and one != drawn), None)
    )
    assert varied.only_for == ANNA and len(varied.files) == 4
    original = (await world.storage.records.jobs.pictures(job.id))[2].key
    assert world.engine.seen[-1].payload == replace(job.payload, seed=None, original=original, repeats=job.id)
    # Ben has no right to Anna's avatar, and hears so alone.
    await server.press(ANNA, drawn, "Post here")
    posted = await server.sees(BEN, studio, "Here you are")
    await server.press(BEN, posted, "V1")
    refused = await server.until(lambda: next((one for one in server.seen(BEN, studio) if one.only_for == BEN), None))
    assert "not shared with you here" in refused.content
    await world.storage.blobs.delete(world.engine.seen[-1].payload.original)
    await server.press(ANNA, drawn, "V3")
    await server.sees(ANNA, studio, "That picture was deleted")


async def test_the_seed_and_the_deletion_are_for_the_person_who_asked(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit", count=2, seed=5)
    drawn = await server.sees(ANNA, studio, "Here you are")
    await server.press(ANNA, drawn, "Post here")
    posted = await server.sees(BEN, studio, "Here you are")
    for label in ("Seed", "Delete"):
        before = len(server.seen(BEN, studio))
        await server.press(BEN, posted, label)
        await server.until(lambda before=before: len(server.seen(BEN, studio)) > before)
        assert "Only the person who started this" in server.seen(BEN, studio)[-1].content
    await server.press(ANNA, posted, "Seed")
    told = await server.sees(ANNA, studio, "/imagine mia7 woman in a suit --count 1 --seed 6")
    assert told.only_for == ANNA
    assert len(await world.storage.blobs.list("pictures/")) == 2
    await server.press(ANNA, drawn, "Delete")
    await server.sees(ANNA, studio, "Deleted here")
    assert not await world.storage.blobs.list("pictures/")
    await server.press(ANNA, posted, "Seed")
    await server.sees(ANNA, studio, "That picture was deleted")


async def test_a_style_is_completed_and_drawn_in(world: World, studio: int) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await world.storage.queue.offer(["inks", "oils"], 600)
    assert await server.complete(ANNA, studio, "imagine", "style", "in") == ["inks", "inks:0.6"]
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman in a suit", style="inks", count=1)
    await server.sees(ANNA, studio, "Here you are")
    assert world.engine.seen[-1].payload.style == "inks"
