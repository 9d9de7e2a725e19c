"""A browser in the local chat without the page: real HTTP and WebSockets."""

import io
from typing import Any

import aiohttp
from aiohttp import ClientSession, CookieJar, FormData, WSMsgType


def _headers(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key} if key else {}


class Browser:
    """One person's browser, without the page."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.session = ClientSession(address, cookie_jar=CookieJar(unsafe=True), headers={"Origin": address})

    async def post(self, path: str, body: Any, key: str = "") -> dict[str, Any]:
        async with self.session.post(path, json=body, headers=_headers(key)) as response:
            assert response.status == 200, await response.text()
            return dict(await response.json())

    async def get(self, path: str) -> Any:
        async with self.session.get(path) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def status(self, path: str) -> int:
        async with self.session.get(path) as response:
            return response.status

    async def enter(self, name: str, room: str = "studio") -> "Browser":
        await self.post("/api/login", {"name": name})
        await self.post("/api/rooms", {"name": room})
        return self

    async def say(
        self, text: str, photos: list[bytes] | None = None, consent: bool = True, room: str = "studio", key: str = ""
    ) -> Any:
        form = FormData(default_to_multipart=True)
        form.add_field("text", text)
        form.add_field("consent", "yes" if consent else "no")
        for photo in photos or []:
            form.add_field("photo", io.BytesIO(photo), filename="photo", content_type="image/png")
        async with self.session.post(f"/api/rooms/{room}/say", data=form, headers=_headers(key)) as response:
            assert response.status == 200, await response.text()
            return await response.json()

    async def press(self, message: dict[str, Any], label: str, key: str = "") -> Any:
        action = next(button["action"] for button in message["body"]["buttons"] if button["label"].startswith(label))
        return await self.post("/api/rooms/studio/press", {"action": action, "message": message["id"]}, key)

    async def listen(self, room: str = "studio") -> "Listener":
        return Listener(await self.session.ws_connect(f"/api/rooms/{room}/socket"))


class Listener:
    """What comes in on a room's socket. `told`: everything that its messages ever said."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket
        self.seen: dict[int, dict[str, Any]] = {}
        self.told: list[str] = []

    async def until(self, text: str, seconds: float = 5) -> dict[str, Any]:
        """The message that holds this text, once it is there; `seconds`: how long nothing at all may come."""
        while True:
            news = await self.socket.receive(timeout=seconds)
            assert news.type == WSMsgType.TEXT
            body = news.json()
            for message in body.get("messages", [body.get("message")]):
                if message is not None:
                    self.seen[message["id"]] = message
                    self.told.append(message["body"]["text"])
                    if text in message["body"]["text"]:
                        return dict(message)
