"""The local chat's HTTP side: the page, login, messages, button presses, pictures, and the WebSocket of each room.

The page sends a key with each message and press in the header `Idempotency-Key`. A browser or proxy that sends the same
request again sends the same key, so that it makes one job, one line and one answer.
"""

import asyncio
import ipaddress
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import suppress
from dataclasses import asdict
from typing import Any
from urllib.parse import urlsplit

from aiohttp import BodyPartReader, ClientError, MultipartReader, WSMsgType, web

from bot import limits
from bot.commands.commands import Commands
from bot.delivery import Delivery
from bot.frontends.chat import pages
from bot.frontends.chat.hub import NAME, Hub
from bot.frontends.chat.pages import TEXT_MOST
from bot.frontends.chat.sessions import LIFETIME, Session, Signer
from bot.language import closest, speak
from bot.messages import Caller, Reply, Upload
from bot.replies import refusals
from bot.settings import BotSettings
from bot.table import Source
from storage import keys
from storage.errors import UnknownBlob, UserError
from storage.jobs import Imagine, Train
from storage.open import Storage
from storage.records import Job

COOKIE = "avatar_session"
_REQUEST = "Idempotency-Key"
_TEXT_BYTES = 64 * 1024
_CHUNK = 64 * 1024
_YEAR = 365 * 24 * 3600
_GALLERY_MOST = 40
"""Drawings of one page of the gallery."""
_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Chat:
    """The HTTP routes."""

    def __init__(
        self,
        storage: Storage,
        signer: Signer,
        host: str = "127.0.0.1",
        operators: Collection[str] = (),
        *,
        edit_every: float = 1.0,
        sweep_every: float = 2.0,
    ) -> None:
        self._blobs = storage.blobs
        self._records = storage.records
        self._signer = signer
        self._host = host
        self._operators = frozenset(operators)
        self.hub = Hub(storage.records, storage.blobs)
        self.commands = Commands(storage.records, storage.blobs, storage.queue, storage.events, operators)
        self.delivery = Delivery(
            storage.records,
            storage.events,
            self.hub,
            self.commands.answer,
            edit_every=edit_every,
            sweep_every=sweep_every,
        )

    def app(self) -> web.Application:
        """The web application."""
        app = web.Application(middlewares=[self._guard, _in_their_language, _kindly], client_max_size=_TEXT_BYTES)
        app.router.add_get("/", pages.page)
        app.router.add_get("/r/{room}", pages.page)
        for path in pages.FILES:
            app.router.add_get(path, pages.file)
        app.router.add_get("/api/me", self.me)
        app.router.add_get("/api/commands", pages.table)
        app.router.add_post("/api/language", self.language)
        app.router.add_post("/api/login", self.login)
        app.router.add_post("/api/logout", self.logout)
        app.router.add_post("/api/rooms", self.join)
        app.router.add_post("/api/rooms/{room}/leave", self.leave)
        app.router.add_post("/api/rooms/{room}/say", self.say)
        app.router.add_post("/api/rooms/{room}/press", self.press)
        app.router.add_get("/api/rooms/{room}/complete", self.complete)
        app.router.add_get("/api/rooms/{room}/socket", self.socket)
        app.router.add_get("/api/gallery", self.gallery)
        app.router.add_get("/api/gallery/{job}/{name}", self.own_picture)
        app.router.add_get("/api/rooms/{room}/pictures/{job}/{name}", self.picture)
        app.router.add_get("/api/rooms/{room}/samples/{avatar}/{job}-{attempt}/{name}", self.sample)
        app.router.add_get("/api/rooms/{room}/files/{key:.+}", self.saved)
        app.on_response_prepare.append(_harden)
        app.on_shutdown.append(self._shutdown)
        return app

    # Logging in and rooms

    async def me(self, request: web.Request) -> web.Response:
        return self._me(self._session(request))

    async def login(self, request: web.Request) -> web.Response:
        name = limits.person_name(str((await _json(request)).get("name", "")))
        known = self._session(request)
        same = known is not None and known.name.casefold() == name.casefold()
        return self._signed(Session(name, known.rooms if known and same else ()))

    async def logout(self, request: web.Request) -> web.Response:
        response = self._me(None)
        response.del_cookie(COOKIE, path="/", samesite="Strict", httponly=True)
        return response

    async def join(self, request: web.Request) -> web.Response:
        session = self._logged_in(request)
        room = limits.room_name(str((await _json(request)).get("name", "")))
        return self._signed(session.joined(room), room=room)

    async def leave(self, request: web.Request) -> web.Response:
        session, room = self._member(request)
        return self._signed(session.left(room))

    async def language(self, request: web.Request) -> web.Response:
        """Store the language chosen in the page."""
        chosen = closest([str((await _json(request)).get("language", ""))])
        response = web.json_response({"language": chosen})
        response.set_cookie(pages.CHOSEN, chosen, max_age=_YEAR, path="/", httponly=True, samesite="Strict")
        return response

    def _me(self, session: Session | None, **more: str) -> web.Response:
        who = {"name": None, "rooms": ()} if session is None else {"name": session.name, "rooms": session.rooms}
        operator = session is not None and f"{NAME}:{session.name.lower()}" in self._operators
        return web.json_response({**who, "operator": operator, **more})

    def _signed(self, session: Session, **more: str) -> web.Response:
        response = self._me(session, **more)
        response.set_cookie(
            COOKIE, self._signer.cookie(session), max_age=LIFETIME, path="/", httponly=True, samesite="Strict"
        )
        return response

    def _session(self, request: web.Request) -> Session | None:
        cookie = request.cookies.get(COOKIE)
        return self._signer.session(cookie) if cookie else None

    def _logged_in(self, request: web.Request) -> Session:
        session = self._session(request)
        if session is None:
            raise web.HTTPUnauthorized(text="log in first")
        return session

    def _member(self, request: web.Request) -> tuple[Session, str]:
        session, room = self._logged_in(request), request.match_info["room"]
        if room not in session.rooms:
            raise web.HTTPForbidden(text="enter the room first")
        return session, room

    # Talking

    async def say(self, request: web.Request) -> web.Response:
        """Send a line with photos: multipart with `text`, `consent` and any number of `photo`, in this order."""
        session, room = self._member(request)
        if not request.content_type.startswith("multipart/"):
            raise web.HTTPBadRequest(text="not multipart")
        parts = _Parts(await request.multipart())
        text = await parts.text("text")
        consent = await parts.text("consent") == "yes"
        if len(text) > TEXT_MOST and not text.startswith("/"):
            raise UserError("message_long", most=TEXT_MOST)
        if text.startswith("/"):
            caller = _caller(session, room, request)
            reply = await self.commands.line(caller, text, parts.photos(), consent=consent)
            if not reply.private:
                await self.hub.say(room, session.name, text, parts.count, dedupe=_dedupe("line", caller))
            return await self._answered(caller, reply)
        if await parts.more():
            raise UserError("photos_loose")
        if not text:
            raise UserError("message_empty")
        await self.hub.say(room, session.name, text, dedupe=_dedupe("line", _caller(session, room, request)))
        return web.json_response({})

    async def press(self, request: web.Request) -> web.Response:
        """Press a button of a message."""
        session, room = self._member(request)
        pressed = await _json(request)
        action = str(pressed.get("action", ""))[:64]
        caller = _caller(session, room, request)
        reply = await self.commands.press(caller, action)
        message_id = pressed.get("message")
        if reply.replaces and isinstance(message_id, int):
            await self.hub.replace(room, message_id, action, reply.message)
            return web.json_response({"spent": False})
        if reply.spent and isinstance(message_id, int):
            await self.hub.remove_buttons(room, message_id, action)
        if reply.spent and action.startswith(("erase:", "forget-")):
            await self.hub.refresh()
        return await self._answered(caller, reply)

    async def _answered(self, caller: Caller, reply: Reply) -> web.Response:
        answer: dict[str, Any] = {"spent": reply.spent}
        if reply.private:
            # Shown to this person only, and not stored.
            answer["private"] = asdict(reply.message)
        else:
            ref = await self.hub.post(caller.room, reply.message, _dedupe("reply", caller))
            if reply.job_id:
                answer["job"] = reply.job_id
                await self.delivery.follow(reply.job_id, ref, reply.message)
        return web.json_response(answer)

    async def complete(self, request: web.Request) -> web.Response:
        """Completions of an option's source."""
        session, room = self._member(request)
        try:
            source = Source(request.query.get("source", ""))
        except ValueError:
            raise web.HTTPBadRequest(text="no such source") from None
        found = await self.commands.complete(_caller(session, room), source)
        return web.json_response([asdict(completion) for completion in found])

    async def socket(self, request: web.Request) -> web.StreamResponse:
        """A WebSocket with the room's messages and people as they change."""
        session, room = self._member(request)
        socket = web.WebSocketResponse(heartbeat=20, max_msg_size=1024)
        await socket.prepare(request)
        await self.hub.enter(room, socket, session.name)
        try:
            async for message in socket:
                if message.type == WSMsgType.ERROR:
                    break
        finally:
            await self.hub.leave(room, socket)
        return socket

    # Pictures

    async def picture(self, request: web.Request) -> web.StreamResponse:
        """A picture that a job of this room drew. Photos and adapters are never served."""
        session, room = self._member(request)
        job = await self._visible(request, _caller(session, room))
        return await self._png(keys.pictures(job.id) + request.match_info["name"])

    async def sample(self, request: web.Request) -> web.StreamResponse:
        """A sample that a training drew: of a training in this room, or of an avatar that the person may draw here."""
        session, room = self._member(request)
        asked = request.match_info
        caller = _caller(session, room)
        if not await self.commands.may_draw(caller, asked["avatar"]):
            job = await self._visible(request, caller)
            if not isinstance(job.payload, Train) or job.payload.avatar_id != asked["avatar"]:
                raise web.HTTPNotFound
        return await self._png(keys.samples(asked["avatar"]) + f"{asked['job']}-{asked['attempt']}/{asked['name']}")

    async def saved(self, request: web.Request) -> web.StreamResponse:
        """The file of a private reply, for the person it belongs to."""
        session, room = self._member(request)
        key = request.match_info["key"]
        if not await self.commands.may_save(_caller(session, room), key) or not await self._blobs.exists(key):
            raise web.HTTPNotFound
        response = web.StreamResponse(
            headers={
                "Cache-Control": "private, no-store",
                "Content-Disposition": "attachment",
                "Content-Type": "application/octet-stream",
            }
        )
        await response.prepare(request)
        async for chunk in self._blobs.stream(key):
            await response.write(chunk)
        return response

    async def gallery(self, request: web.Request) -> web.Response:
        """The person's drawings from every room, newest first, after the first `skip`."""
        skip = request.query.get("skip", "0")
        if not re.fullmatch(r"\d{1,6}", skip, re.ASCII):
            raise web.HTTPBadRequest(text="skip is a number")
        caller = _alone(self._logged_in(request))
        drawings = await self.commands.drawings(caller, int(skip), _GALLERY_MOST + 1)
        shown = [
            {
                "prompt": job.payload.prompt if isinstance(job.payload, Imagine) else "",
                "at": job.created.isoformat(),
                "pictures": [
                    {"url": f"/api/gallery/{job.id}/{one.key.rpartition('/')[2]}", "seed": one.seed} for one in drawn
                ],
            }
            for job, drawn in drawings[:_GALLERY_MOST]
        ]
        return web.json_response({"drawings": shown, "more": len(drawings) > _GALLERY_MOST})

    async def own_picture(self, request: web.Request) -> web.StreamResponse:
        """A picture of the gallery, for the person who asked for it."""
        job = await self._visible(request, _alone(self._logged_in(request)))
        return await self._png(keys.pictures(job.id) + request.match_info["name"])

    async def _visible(self, request: web.Request, caller: Caller) -> Job:
        job = await self.commands.visible_job(caller, request.match_info["job"])
        if job is None:
            raise web.HTTPNotFound
        return job

    async def _png(self, key: str) -> web.Response:
        try:
            data = await self._blobs.get(key)
        except (UnknownBlob, ValueError):
            raise web.HTTPNotFound from None
        # Not cached by the browser, so that an erased picture is gone there too.
        return web.Response(body=data, content_type="image/png", headers={"Cache-Control": "private, no-store"})

    # Keeping other sites out

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Refuse requests from other sites in the person's name, and host names that were rebound to this address."""
        if not _own_name(urlsplit(f"//{request.host}").hostname or "", self._host):
            raise web.HTTPForbidden(text="unknown host name")
        writes = request.method not in ("GET", "HEAD") or request.path.endswith("/socket")
        if writes and urlsplit(request.headers.get("Origin", "")).netloc != request.host:
            raise web.HTTPForbidden(text="another site's request")
        return await handler(request)

    async def _shutdown(self, app: web.Application) -> None:
        await self.hub.close()


class _Parts:
    """The parts of a multipart request, in their order."""

    def __init__(self, reader: MultipartReader) -> None:
        self._reader = reader
        self._next: BodyPartReader | None = None
        self.count = 0

    async def more(self) -> bool:
        """Whether a part is left."""
        if self._next is None:
            try:
                part = await self._reader.next()
            except (ClientError, ConnectionError, ValueError):
                raise UserError("upload_cut") from None
            self._next = part if isinstance(part, BodyPartReader) else None
        return self._next is not None

    async def text(self, name: str) -> str:
        """The next part if it has this name, stripped; otherwise nothing."""
        if not await self.more() or self._next is None or self._next.name != name:
            return ""
        part, self._next = self._next, None
        data = bytearray()
        async for chunk in _chunks(part):
            data += chunk
            if len(data) > _TEXT_BYTES:
                raise UserError("message_long", most=TEXT_MOST)
        return data.decode(errors="replace").strip()

    async def photos(self) -> AsyncIterator[Upload]:
        """The remaining photos."""
        while await self.more():
            part, self._next = self._next, None
            if part is not None and part.name == "photo":
                self.count += 1
                yield Upload(_chunks(part))


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    try:
        while chunk := await part.read_chunk(_CHUNK):
            yield chunk
    except (ClientError, ConnectionError, ValueError):
        raise UserError("upload_cut") from None


def _own_name(host: str, bound: str) -> bool:
    with suppress(ValueError):
        ipaddress.ip_address(host)
        return True
    return host in ("localhost", bound)


def _caller(session: Session, room: str, request: web.Request | None = None) -> Caller:
    """The person in a room; `request` is the message or press that they sent."""
    key = request.headers.get(_REQUEST, "") if request is not None else ""
    if key and not re.fullmatch(r"[\w-]{8,64}", key, re.ASCII):
        raise web.HTTPBadRequest(text=f"{_REQUEST} has 8 to 64 letters, digits, _ or -")
    return Caller(NAME, session.name.lower(), session.name, room, request=key and f"{NAME}:{key}")


def _alone(session: Session) -> Caller:
    """The person outside of any room, where nobody else reads."""
    return Caller(NAME, session.name.lower(), session.name, "", direct=True)


def _dedupe(what: str, caller: Caller) -> str | None:
    """The key under which a line or reply of this request is posted once."""
    return f"{what} {caller.account} {caller.request}" if caller.request else None


async def _json(request: web.Request) -> dict[str, Any]:
    try:
        body = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        raise web.HTTPBadRequest(text="not JSON") from None
    if not isinstance(body, dict):
        raise web.HTTPBadRequest(text="not an object")
    return body


@web.middleware
async def _in_their_language(request: web.Request, handler: Handler) -> web.StreamResponse:
    speak(pages.language_of(request))
    return await handler(request)


@web.middleware
async def _kindly(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer wrong input outside of commands with a private message too."""
    try:
        return await handler(request)
    except UserError as error:
        return web.json_response({"private": asdict(refusals.refusal(error))})


async def _harden(request: web.Request, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)


async def serve(storage: Storage, settings: BotSettings, ready: Callable[[str], None]) -> None:
    """Serve the chat and deliver until cancelled. `ready` is called with the address once people can open it."""
    signer = await asyncio.to_thread(Signer.at, settings.home / "chat.key")
    chat = Chat(storage, signer, settings.chat_host, settings.operator_accounts)
    runner = web.AppRunner(chat.app(), access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.chat_host, settings.chat_port)
        await site.start()
        port = runner.addresses[0][1]
        host = f"[{settings.chat_host}]" if ":" in settings.chat_host else settings.chat_host
        ready(f"http://{host}:{port}")
        await chat.delivery.run()
    finally:
        await runner.cleanup()
