"""Photos that people attach, and files and pictures within Discord's limits."""

import io
import random

import pytest
from PIL import Image

from bot.frontends.discord import rendering
from bot.frontends.discord.rendering import FILE, notice, pictures, render
from bot.frontends.discord.rooms import NAME
from bot.messages import Button, Message, Progress, Shown
from storage.blobs import MemoryBlobs
from storage.jobs import JobKind
from tests.fakes.engine import TWO_FACES, drawing
from tests.platforms.discord.world import ANNA, BEN, PHOTOS, World, _attached, _imagine
from tests.platforms.discord_server import check_message


async def test_photos_as_options(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    given = {"token": "mia7", "noun": "woman", "consent": True}
    for wrong, said in (
        ({**given, **_attached(PHOTOS[:4])}, "5 to 10 photos and got 4"),
        ({**given, "consent": False, **_attached(PHOTOS)}, "please tick the box"),
        ({**given, **_attached([*PHOTOS, b""])}, "#7 is an empty file"),
        ({"token": "mia7", **_attached(PHOTOS)}, "still needs noun"),
    ):
        await server.slash(ANNA, dm, "train", **wrong)
        await server.sees(ANNA, dm, said)
    assert list(await world.storage.blobs.list("photos/")) == []
    world.engine.verdicts[2] = TWO_FACES
    await server.slash(ANNA, dm, "train", **given, **_attached([*PHOTOS, *PHOTOS[:4]]))
    await server.sees(ANNA, dm, "10 photos: 9 good, #2 shows two faces")


async def test_a_photo_whose_link_is_dead(world: World) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    server.fail("GET /attachments/.*", 404, times=3)
    await server.slash(ANNA, dm, "train", token="mia7", noun="woman", consent=True, **_attached(PHOTOS))
    await server.sees(ANNA, dm, "The upload broke off")
    assert list(await world.storage.blobs.list("photos/")) == []


async def test_a_huge_file_is_not_fetched(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    server, dm = world.server, world.server.dm(ANNA)
    upload = server._upload
    monkeypatch.setattr(server, "_upload", lambda data: upload(data) | {"size": 500 * 1024 * 1024})
    await server.slash(ANNA, dm, "train", token="mia7", noun="woman", consent=True, **_attached(PHOTOS))
    await server.sees(ANNA, dm, "#1 is larger than 20 MB")
    assert not [one for one in server.requests if one[1].startswith("/attachments")]


async def test_only_their_person_gets_files(world: World, studio: int, monkeypatch: pytest.MonkeyPatch) -> None:
    server = world.server
    await world.avatar(server.dm(ANNA))
    await server.slash(ANNA, studio, "export", token="mia7")
    exported = await server.sees(ANNA, studio, "what I learned of mia7")
    assert exported.only_for == ANNA
    assert [(file["filename"], file["data"]) for file in exported.files] == [("mia7.safetensors", b"weights")]
    await server.slash(ANNA, server.dm(ANNA), "mydata")
    [data] = (await server.sees(ANNA, server.dm(ANNA), "I keep 1 avatar")).files
    assert (data["filename"], b"mia7" in data["data"]) == ("mydata.json", True)
    assert server.seen(BEN, studio) == []

    monkeypatch.setattr(rendering, "FILES", len(b"weights") - 1)
    await server.slash(ANNA, studio, "export", token="mia7")
    assert (await server.sees(ANNA, studio, "The person who runs me can give it to you")).files == []


@pytest.mark.parametrize(("limit", "fits"), [(1024 * 1024, False), (12 * 1024 * 1024, True)])
async def test_files_are_as_large_as_the_interaction_allows(
    world: World, studio: int, monkeypatch: pytest.MonkeyPatch, limit: int, fits: bool
) -> None:
    """What is too large comes smaller, or it is said that it does not come."""
    server = world.server
    server.channels[studio].limit = limit
    await world.avatar(server.dm(ANNA))
    Image.effect_noise((1950, 1950), 90).convert("RGB").save(file := io.BytesIO(), "PNG", compress_level=0)
    large = file.getvalue()
    assert FILE < len(large) < 12 * 1024 * 1024
    monkeypatch.setattr("tests.fakes.engine.drawing", lambda seed: large)
    await server.slash(ANNA, studio, "imagine", prompt="mia7 woman", count=1)
    drawn = await server.sees(ANNA, studio, "Here you are")
    await server.press(ANNA, drawn, "Post here")
    posted = await server.sees(BEN, studio, "Here you are")
    for message in (drawn, posted):
        [one] = message.files
        assert len(one["data"]) <= limit and (one["data"] == large) == fits
        with Image.open(io.BytesIO(one["data"])) as picture:
            assert picture.width == (1950 if fits else 975)
    [adapter] = [key for key in await world.storage.blobs.list() if key.startswith("adapters/")]
    await world.storage.blobs.put(adapter, large)
    await server.slash(ANNA, studio, "export", token="mia7")
    if fits:
        [whole] = (await server.sees(ANNA, studio, "what I learned of mia7")).files
        assert whole["data"] == large
    else:
        assert (await server.sees(ANNA, studio, "larger than the 1 MB that this chat accepts")).files == []


@pytest.mark.parametrize("times", [1, 2, 3])
async def test_files_that_discord_finds_too_large_are_not_lost(
    world: World, studio: int, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    """They come smaller, or the person hears that they are kept and how to get them; through an interaction too."""
    server, dm = world.server, world.server.dm(ANNA)
    await world.avatar(dm)
    monkeypatch.setattr(rendering, "_LIGHTER", FILE // 900)
    server.fail(f"POST /channels/{dm}/messages", 413, times)
    job = await world.storage.records.jobs.create(
        JobKind.IMAGINE,
        (await world.storage.records.users.get_or_create(NAME, str(ANNA), "Anna")).id,
        NAME,
        f"dm/{dm}",
        _imagine(),
    )
    await world.storage.queue.enqueue(job)
    drawn = await server.sees(ANNA, dm, "Here you are")
    await world.idle()
    if times == 1:
        [one] = drawn.files
        assert one["filename"].endswith(".jpg") and len(one["data"]) <= 900
        assert "too large" not in drawn.content
        return
    assert drawn.files == [] and "I have kept them, and [Show me] tries once more" in drawn.content.replace("\\", "")
    assert "Show me" in drawn.buttons
    if times == 2:
        assert {"Again", "Seed"} <= set(drawn.buttons)
        server.fail("PATCH /webhooks", 413, times=2)
        await server.press(ANNA, drawn, "Show me")
        again = await server.until(lambda: next((one for one in server.seen(ANNA, dm) if one.id > drawn.id), None))
        assert again.files == [] and "Show me" in again.buttons
        await server.press(ANNA, again, "Show me")
        shown = await server.until(lambda: next((one for one in server.seen(ANNA, dm) if one.id > again.id), None))
        assert [file["data"] for file in shown.files] == [drawing(3)]
    await server.slash(ANNA, studio, "export", token="mia7")
    exported = await server.sees(ANNA, studio, "what I learned of mia7")
    assert [file["data"] for file in exported.files] == [b"weights"]
    server.fail("PATCH /webhooks", 413, times=2)
    await server.slash(ANNA, studio, "export", token="mia7")
    refused = await server.sees(ANNA, studio, "send that again in another channel")
    assert refused.files == [] and refused.only_for == ANNA


async def test_whatever_is_said_fits_into_discord() -> None:
    pick = random.Random(0)
    for _ in range(50):
        message = Message(
            "x" * pick.choice((1, 1999, 5000)),
            job=pick.choice((None, "23456789bc")),
            prompt=pick.choice((None, "*" * 1000, "@everyone <@11> `a`")),
            pictures=(Shown("pictures/a/0.png", "x" * 2000),) * pick.randrange(2),
            progress=pick.choice((None, Progress("Drawing", 0.3), Progress("Drawing"))),
            buttons=tuple(Button("y" * 90, f"again:{'z' * 50}{number}") for number in range(pick.randrange(40))),
        )
        for rendered in (render(message, mention="11", postable=True), notice("23456789bc", "11")):
            view = rendered.view.to_components() if rendered.view else []
            check_message({"content": rendered.content, "components": view}, {}, FILE)
            assert rendered.mentions.to_dict() == {"parse": [], "users": [11]}
            assert "@everyone" not in rendered.content


async def test_a_picture_too_large_for_discord() -> None:
    blobs, noise = MemoryBlobs(), Image.effect_noise((600, 600), 90).convert("RGB")
    noise.save(file := io.BytesIO(), "PNG")
    await blobs.put("pictures/a/0.png", file.getvalue())
    shown = [Shown("pictures/a/0.png", "a suit", 7), Shown("pictures/a/1.png", "erased", 8)]
    (whole,) = await pictures(blobs, shown)
    assert (whole.filename, whole.description) == ("1-7.png", "a suit")
    (small,) = await pictures(blobs, shown, 50_000)
    data = small.fp.read()
    assert small.filename == "1-7.jpg" and len(data) <= 50_000 and data[:2] == b"\xff\xd8"
