"""The local chat over real HTTP and WebSockets."""

import asyncio
import os
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import ClientSession

from bot.frontends.chat.sessions import Session, Signer
from bot.limits import PHOTO_BYTES
from tests.bot.browser import Browser
from tests.fakes.engine import SEEN


@pytest.fixture
async def anna(chat: str) -> AsyncIterator[Browser]:
    browser = Browser(chat)
    yield await browser.enter("Anna")
    await browser.session.close()


@pytest.fixture
async def ben(chat: str) -> AsyncIterator[Browser]:
    browser = Browser(chat)
    yield await browser.enter("Ben")
    await browser.session.close()


PHOTOS = [b"photo %d" % number for number in range(8)]


async def test_two_browsers_see_the_same(anna: Browser, ben: Browser) -> None:
    hers, his = await anna.listen(), await ben.listen()
    await anna.say("Hello!")
    answer = await anna.say("/train mia7 woman", PHOTOS)
    assert answer["job"]
    checked = [await listener.until("8 photos, all good") for listener in (hers, his)]
    assert checked[0] == checked[1]
    await anna.press(checked[0], "Train")
    trained = [await listener.until("mia7 is ready") for listener in (hers, his)]
    assert trained[0] == trained[1]
    assert hers.seen == his.seen
    assert hers.seen[checked[0]["id"]]["body"]["buttons"] == []
    lines = [message for message in hers.seen.values() if message["author"]]
    assert [(line["author"], line["body"]["text"]) for line in lines] == [
        ("Anna", "Hello!"),
        ("Anna", "/train mia7 woman"),
    ]
    assert lines[1]["body"]["photos"] == 8


async def test_what_was_read_from_photos_is_corrected_in_one_message(anna: Browser, ben: Browser, bot: Any) -> None:
    bot.engine.album = {"looks": SEEN}
    hers, his = await anna.listen(), await ben.listen()
    await anna.say("/train mia7 man", PHOTOS)
    checked = await hers.until("I see short dark brown hair, a full beard, light skin, no glasses.")
    await his.until("I see short dark brown hair")
    assert "Only the person who" in (await ben.press(checked, "Beard"))["private"]["text"]
    assert await anna.press(checked, "Beard") == {"spent": False}
    asked = await hers.until("mia7: Beard. Which is right?")
    await anna.press(asked, "Moustache")
    corrected = await hers.until("mia7 gets short dark brown hair, a moustache")
    assert corrected["id"] == asked["id"] == checked["id"]
    # A press of a button that the message no longer has changes nothing that others see.
    await anna.press(asked, "Back")
    assert (await his.until("mia7 gets short dark brown hair"))["body"] == corrected["body"]
    await anna.press(corrected, "Train mia7")
    await hers.until("This bot draws cartoons.")
    assert [looks["facial_hair"] for looks in bot.engine.drawn_from] == ["moustache"]


async def test_private_answers_stay_private(anna: Browser, bot: Any) -> None:
    for text in ("/status", "/help", "/avatars", "/train suit woman", "/imagine " + "a" * 10_000, "/nonsense", "/"):
        answer = await anna.say(text)
        assert answer["private"]["text"], text
    assert await bot.records.chat.history("studio") == []


@pytest.mark.parametrize(
    ("text", "photos", "said"),
    [
        ("", [], "Type a message first"),
        ("here they are", [b"photo"], "What should I do with these photos?"),
        ("x" * 4001, [], "4,000 characters"),
        ("x" * 100_000, [], "4,000 characters"),
        ("/train mia7 woman", [b"x"] * 11, "10 photos are enough"),
        ("/train mia7 woman", [b"x", b""], "#2 is an empty file"),
        ("/train mia7 woman", [b"x", bytes(PHOTO_BYTES + 1)], "#2 is larger than 20 MB"),
    ],
    ids=["nothing", "loose photos", "long", "very long", "eleven photos", "an empty photo", "a large photo"],
)
async def test_wrong_messages_are_answered_kindly(
    anna: Browser, bot: Any, text: str, photos: list[bytes], said: str
) -> None:
    answer = await anna.say(text, photos)
    assert said in answer["private"]["text"]
    assert await bot.kept() == []
    assert await bot.records.chat.history("studio") == []


async def test_an_upload_that_breaks_off_leaves_nothing(anna: Browser, bot: Any) -> None:
    async def half() -> AsyncIterator[bytes]:
        yield (
            b'--b\r\nContent-Disposition: form-data; name="text"\r\n\r\n/train mia7 woman\r\n'
            b'--b\r\nContent-Disposition: form-data; name="consent"\r\n\r\nyes\r\n'
            b'--b\r\nContent-Disposition: form-data; name="photo"; filename="p"\r\n\r\nhalf a pho'
        )

    headers = {"Content-Type": "multipart/form-data; boundary=b"}
    async with anna.session.post("/api/rooms/studio/say", data=half(), headers=headers) as response:
        assert response.status == 200
        assert "broke off" in (await response.json())["private"]["text"]
    assert await bot.kept() == []


async def test_the_page_registers_the_table(anna: Browser) -> None:
    from bot.table import COMMANDS

    table = await anna.get("/api/commands")
    assert [command["name"] for command in table["commands"]] == list(COMMANDS)
    for command in table["commands"]:
        assert [option["name"] for option in command["options"]] == [
            option.name for option in COMMANDS[command["name"]].options
        ]


async def test_completion(anna: Browser, bot: Any) -> None:
    await bot.avatar("mia7")
    assert await anna.get("/api/rooms/studio/complete?source=avatars") == [{"value": "mia7", "hint": "woman"}]
    assert await anna.status("/api/rooms/studio/complete?source=secrets") == 400


async def test_pictures_are_for_those_in_the_room(anna: Browser, ben: Browser, chat: str, bot: Any) -> None:
    await bot.avatar("mia7")
    listener = await anna.listen()
    await anna.say("/imagine mia7 --count 1 --seed 5")
    drawn = await listener.until("Here you are")
    key = drawn["body"]["pictures"][0]["key"]
    path = f"/api/rooms/studio/{key}"
    async with anna.session.get(path) as response:
        assert response.status == 200
        assert response.content_type == "image/png"
        assert "no-store" in response.headers["Cache-Control"]
        assert await response.read() == await bot.blobs.get(key)
    assert await ben.status(path) == 200

    stranger = Browser(chat)
    assert await stranger.status(path) == 401
    await stranger.enter("Eve", "kitchen")
    assert await stranger.status(path) == 403
    assert await stranger.status(path.replace("studio", "kitchen")) == 404
    for other in ("/api/rooms/studio/pictures/nobody/0.png", f"{path}x", f"{path}%2F..%2F0.png"):
        assert await anna.status(other) == 404
    for prefix in ("photos/", "adapters/"):
        for blob in await bot.blobs.list(prefix):
            assert await anna.status(f"/api/rooms/studio/{blob}") == 404
    [first, *_] = await bot.blobs.list("samples/")
    assert await anna.status(f"/api/rooms/studio/{first}") == 200
    assert await anna.status(f"/api/rooms/studio/samples/x{first.removeprefix('samples/')}") == 404
    assert await stranger.status(f"/api/rooms/studio/{first}") == 403
    await stranger.session.close()


async def test_a_sample_is_shown_in_every_room_to_those_who_may_draw_it(anna: Browser, chat: str, bot: Any) -> None:
    await bot.avatar("mia7")
    hers = Browser(chat)
    await hers.enter("Anna", "attic")
    [sample] = (await hers.say("/avatars", room="attic"))["private"]["pictures"]
    assert await hers.status(f"/api/rooms/attic/{sample['key']}") == 200
    stranger = Browser(chat)
    await stranger.enter("Eve", "attic")
    assert await stranger.status(f"/api/rooms/attic/{sample['key']}") == 404
    for browser in (hers, stranger):
        await browser.session.close()


async def test_erased_pictures_are_gone_for_everybody(anna: Browser, ben: Browser, bot: Any) -> None:
    await bot.avatar("mia7")
    hers, his = await anna.listen(), await ben.listen()
    await anna.say("/imagine mia7 --count 1")
    drawn = await hers.until("Here you are")
    asked = (await anna.say("/delete mia7"))["private"]
    erase = {"id": None, "body": asked}
    assert "is erased" in (await anna.press(erase, "Erase"))["private"]["text"]
    await his.until("Here you are")
    while not (await his.until("Here you are"))["body"]["pictures"][0]["gone"]:
        pass
    assert await ben.status(f"/api/rooms/studio/{drawn['body']['pictures'][0]['key']}") == 404


async def test_an_exported_file_is_for_its_owner(anna: Browser, ben: Browser, chat: str, bot: Any) -> None:
    await bot.avatar("mia7")
    answer = await anna.say("/export mia7")
    [file] = answer["private"]["files"]
    assert (file["name"], file["content"]) == ("mia7.safetensors", None)
    path = f"/api/rooms/studio/files/{file['key']}"
    async with anna.session.get(path) as response:
        assert response.status == 200
        assert response.headers["Content-Disposition"] == "attachment"
        assert "no-store" in response.headers["Cache-Control"]
        assert await response.read() == b"weights"
    stranger = Browser(chat)
    assert await stranger.status(path) == 401
    await stranger.session.close()
    assert await ben.status(path) == 404
    for key in (*await bot.blobs.list("photos/"), *await bot.blobs.list("samples/"), "adapters/x", "../chat.key", "x"):
        assert await anna.status(f"/api/rooms/studio/files/{key}") == 404
    await bot.blobs.delete("adapters/")
    assert await anna.status(path) == 404
    mydata = (await anna.say("/mydata"))["private"]
    assert '"mia7"' in mydata["files"][0]["content"]


async def test_shared_in_a_room_and_taken_back(anna: Browser, ben: Browser, bot: Any) -> None:
    await bot.avatar("mia7")
    hers, his = await anna.listen(), await ben.listen()
    assert "no avatar yet" in (await ben.say("/imagine mia7"))["private"]["text"]
    await anna.say("/share mia7")
    shared = await his.until("Anna shares mia7 with this group")
    await ben.say("/imagine mia7 --count 1")
    drawn = await his.until("Here you are")
    assert "mia7 is Anna's" in drawn["body"]["text"]
    assert "Only the person" in (await ben.press(shared, "Take it back"))["private"]["text"]
    await hers.until("Anna shares mia7")
    assert "not shared with this group" in (await anna.press(shared, "Take it back"))["private"]["text"]
    while (await his.until("Anna shares mia7"))["body"]["buttons"]:
        pass
    assert "no avatar yet" in (await ben.say("/imagine mia7"))["private"]["text"]


async def test_a_forgotten_persons_lines_leave_every_browser(anna: Browser, ben: Browser, bot: Any) -> None:
    await ben.say("good morning")
    await anna.say("hello from Anna")
    await bot.avatar("mia7")
    await anna.say("/share mia7")
    his = await ben.listen()
    await his.until("Anna shares mia7")
    asked = (await anna.say("/forget"))["private"]
    receipt = await anna.press({"id": None, "body": asked}, "Erase everything and my")
    assert "You are forgotten" in receipt["private"]["text"]
    while (news := (await his.socket.receive(timeout=5)).json())["type"] != "history":
        pass
    assert [message["body"]["text"] for message in news["messages"]] == ["good morning"]
    assert [line.author for line in await bot.records.chat.history("studio")] == ["Ben"]


async def test_strangers_see_nothing(chat: str) -> None:
    stranger = Browser(chat)
    assert await stranger.get("/api/me") == {"name": None, "rooms": [], "operator": False}
    assert await stranger.status("/api/rooms/studio/complete?source=avatars") == 401
    assert await stranger.status("/api/rooms/studio/socket") == 401
    for path in ("/api/rooms", "/api/rooms/studio/say", "/api/rooms/studio/press"):
        async with stranger.session.post(path, json={}) as response:
            assert response.status == 401
    await stranger.session.close()


async def test_requests_from_other_sites_are_refused(anna: Browser, chat: str) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:1", chat.replace("http", "ftp") + ".example"):
        async with anna.session.post("/api/rooms", json={"name": "x"}, headers={"Origin": origin}) as response:
            assert response.status == 403
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await anna.session.ws_connect("/api/rooms/studio/socket", headers={"Origin": origin})
    async with anna.session.get("/api/me", headers={"Host": "evil.example"}) as response:
        assert response.status == 403


async def test_headers_and_cookie(chat: str) -> None:
    async with ClientSession(chat) as session:
        async with session.get("/") as page:
            policy = page.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe" not in policy
            assert page.headers["X-Content-Type-Options"] == "nosniff"
        async with session.post("/api/login", json={"name": "Anna"}, headers={"Origin": chat}) as response:
            cookie = response.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie


@pytest.mark.parametrize("name", ["", "   ", "x" * 33, "a\x00b", "\u202e"])
async def test_wrong_names(chat: str, name: str) -> None:
    browser = Browser(chat)
    assert "1 to 32" in (await browser.post("/api/login", {"name": name}))["private"]["text"]
    await browser.session.close()


async def test_rooms_by_name(anna: Browser) -> None:
    joined = await anna.post("/api/rooms", {"name": "  Family & Friends "})
    assert joined["room"] == "family-friends"
    assert (await anna.get("/api/me"))["rooms"] == ["family-friends", "studio"]
    assert "room's name" in (await anna.post("/api/rooms", {"name": "!!!"}))["private"]["text"]
    assert (await anna.post("/api/rooms/studio/leave", {}))["rooms"] == ["family-friends"]
    assert await anna.status("/api/rooms/studio/complete?source=avatars") == 403


async def test_forged_and_old_cookies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    signer = Signer.at(tmp_path / "chat.key")
    cookie = signer.cookie(Session("Änna", ("studio",)))
    assert signer.session(cookie) == Session("Änna", ("studio",))
    assert Signer.at(tmp_path / "chat.key").session(cookie) is not None
    assert (tmp_path / "chat.key").stat().st_mode & 0o777 == 0o600
    assert Signer(bytes(32)).session(cookie) is None
    for forged in ("", ".", "x.y", cookie[:-1], "e30" + cookie, cookie + "é"):
        assert signer.session(forged) is None
    monkeypatch.setattr("itsdangerous.timed.time.time", lambda: 4e9)
    assert signer.session(cookie) is None


@pytest.mark.parametrize("left", [b"", b"half a key"], ids=["an empty key", "half a key"])
def test_a_key_file_that_a_crash_left_short_is_made_again(tmp_path: Path, left: bytes) -> None:
    path = tmp_path / "chat.key"
    path.write_bytes(left)
    with pytest.raises(ValueError, match="32 bytes"):
        Signer(left)
    signer = Signer.at(path)
    assert len(path.read_bytes()) == 32
    assert Signer.at(path).session(signer.cookie(Session("Anna"))) == Session("Anna")


def test_a_crash_while_the_key_is_written_leaves_no_half_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        """The process ends here."""

    def half(path: Path, data: bytes) -> int:
        with path.open("wb") as file:
            file.write(data[:7])
        raise Killed

    path = tmp_path / "chat.key"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Path, "write_bytes", half)
        Signer.at(path)
    assert not path.exists()
    Signer.at(path)
    assert len(path.read_bytes()) == 32
    assert path.stat().st_mode & 0o777 == 0o600
    assert [one.name for one in tmp_path.iterdir()] == ["chat.key"]


def test_a_key_of_an_earlier_version_is_kept(tmp_path: Path) -> None:
    path, key = tmp_path / "chat.key", bytes(range(32))
    path.write_bytes(key)
    Signer.at(path)
    assert path.read_bytes() == key


async def test_history_survives_a_new_connection(anna: Browser) -> None:
    await anna.say("one")
    await anna.say("two")
    listener = await anna.listen()
    await listener.until("two")
    assert [message["body"]["text"] for message in listener.seen.values()] == ["one", "two"]


async def test_a_terminated_chat_closes_its_connections(tmp_path: Path) -> None:
    environment = os.environ | {"AVATAR_HOME": str(tmp_path / "home")}
    chat = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bot", "chat", "--port", "0", stdout=PIPE, stderr=PIPE, env=environment
    )
    assert chat.stdout
    async with asyncio.timeout(60):
        assert (await chat.stdout.readline()).startswith(b"The chat is open at http://")
        chat.terminate()
        _, said = await chat.communicate()
    assert (chat.returncode, said) == (0, b"")
