"""The chat page as a `Frontend`: messages go to the records and to every browser in the room."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from aiohttp import web

from bot.messages import Message
from storage.blobs import Blobs
from storage.records import ChatMessage, Records

NAME = "chat"
BOT = ""
"""The author of the bot's lines; no person has an empty name."""


class Hub:
    """The frontend port of the local chat, and the rooms' open sockets."""

    def __init__(self, records: Records, blobs: Blobs) -> None:
        self._records = records
        self._blobs = blobs
        self._sockets: dict[str, dict[web.WebSocketResponse, str]] = {}

    @property
    def name(self) -> str:
        return NAME

    async def post(self, room: str, message: Message, dedupe: str | None = None) -> str:
        line = await self._records.chat.append(room, BOT, asdict(message), dedupe)
        await self._tell(room, {"type": "message", "message": await self.rendered(line)})
        return f"{room}:{line.id}"

    async def edit(self, ref: str, message: Message) -> None:
        await self._replace(int(ref.rpartition(":")[2]), asdict(message))

    async def say(self, room: str, author: str, text: str, photos: int = 0, dedupe: str | None = None) -> None:
        """A person's own line. A line of the same `dedupe` in this room is not added twice."""
        line = await self._records.chat.append(room, author, {"text": text, "photos": photos}, dedupe)
        await self._tell(room, {"type": "message", "message": await self.rendered(line)})

    async def replace(self, room: str, message_id: int, action: str, message: Message) -> None:
        """Show a message in place of the one whose `action` was pressed."""
        line = await self._records.chat.line(room, message_id)
        if line is not None and any(button["action"] == action for button in line.body.get("buttons", ())):
            await self._replace(message_id, asdict(message))

    async def remove_buttons(self, room: str, message_id: int, action: str) -> None:
        """Remove the buttons of the message whose `action` was pressed."""
        line = await self._records.chat.line(room, message_id)
        if line is None:
            return
        body = line.body
        if any(button["action"] == action for button in body.get("buttons", ())):
            await self._replace(message_id, {**body, "buttons": []})

    async def _replace(self, message_id: int, body: Mapping[str, Any]) -> None:
        line = await self._records.chat.edit(message_id, body)
        await self._tell(line.room, {"type": "message", "message": await self.rendered(line)})

    async def enter(self, room: str, socket: web.WebSocketResponse, person: str) -> None:
        """Add a browser to a room: send it the history, and tell everybody who is there."""
        self._sockets.setdefault(room, {})[socket] = person
        await socket.send_json(await self._history(room))
        await self._send_people(room)

    async def refresh(self) -> None:
        """Send every browser its room's history again, without the pictures that were erased."""
        for room in list(self._sockets):
            await self._tell(room, await self._history(room))

    async def _history(self, room: str) -> dict[str, Any]:
        lines = [await self.rendered(line) for line in await self._records.chat.history(room)]
        return {"type": "history", "messages": lines}

    async def leave(self, room: str, socket: web.WebSocketResponse) -> None:
        """Remove a browser from a room."""
        self._sockets.get(room, {}).pop(socket, None)
        await self._send_people(room)

    async def close(self) -> None:
        """Close every browser's socket."""
        for sockets in list(self._sockets.values()):
            await asyncio.gather(*(socket.close(code=1001) for socket in list(sockets)), return_exceptions=True)

    async def rendered(self, line: ChatMessage) -> dict[str, Any]:
        """The line as JSON for the page. Erased pictures are marked as gone."""
        body = dict(line.body)
        if "pictures" in body:
            body["pictures"] = [
                {**picture, "gone": not await self._blobs.exists(picture["key"])} for picture in body["pictures"]
            ]
        return {"id": line.id, "author": line.author, "at": line.created.isoformat(), "body": body}

    async def _send_people(self, room: str) -> None:
        people = {person.casefold(): person for person in self._sockets.get(room, {}).values()}
        await self._tell(room, {"type": "people", "people": sorted(people.values(), key=str.casefold)})

    async def _tell(self, room: str, news: Mapping[str, Any]) -> None:
        # A browser that has disconnected must not delay the others.
        async def tell(socket: web.WebSocketResponse) -> None:
            with suppress(ConnectionError, asyncio.TimeoutError):
                async with asyncio.timeout(5):
                    await socket.send_json(news)

        await asyncio.gather(*(tell(socket) for socket in list(self._sockets.get(room, {}))))
