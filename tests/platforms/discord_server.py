"""A Discord of our own: gateway and REST, as strict as the real one, and the people who use it.

It validates what Discord validates and refuses what it would refuse. What no correct bot would do (an unknown route,
an invalid body, a first answer after 3 s) is noted in `faults` besides; a test ends with none.
"""

import asyncio
import json
import os
import random
import re
import signal
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
from aiohttp import web

TOKEN = "token-of-the-bot"
BOT, GUILD = 900, 700
FIRST_ANSWER, TOKEN_LIFE, NONCE_LIFE = 3.0, 15 * 60.0, 5 * 60.0
FILE, REQUEST = 10 * 1024 * 1024, 25 * 1024 * 1024
RATE = 50
INVALID, INVALID_SPAN = 10_000, 600.0
EPHEMERAL, LOADING = 1 << 6, 1 << 7
PRIVILEGED = 1 << 1 | 1 << 8 | 1 << 15
SLASH, PRESSED, COMPLETES, SUBMITTED = 2, 3, 4, 5
LOCALES = set("id da de en-GB en-US es-ES es-419 fr hr it lt hu nl no pl pt-BR ro fi sv-SE vi tr cs el bg ru uk hi th "
              "zh-CN ja zh-TW ko".split())  # fmt: skip
_BEHIND = 0.2
"""Seconds for which an event is late that comes after later ones."""
T = TypeVar("T")
JSON = dict[str, Any]


class Refused(Exception):
    """An answer with Discord's status and error code."""

    def __init__(self, status: int, code: int, text: str) -> None:
        super().__init__(text)
        self.status, self.code, self.text = status, code, text


def invalid(text: str) -> Refused:
    return Refused(400, 50035, f"Invalid Form Body: {text}")


def demand(condition: object, text: str) -> None:
    if not condition:
        raise invalid(text)


@dataclass
class Channel:
    """`kind`: "server", "dm" or "private" (where only a person brought the app). `closed`: refuses the bot.
    `limit`: bytes of a file in an interaction there."""

    id: int
    kind: str
    people: list[int] = field(default_factory=list)
    closed: bool = False
    limit: int = FILE

    def payload(self) -> JSON:
        if self.kind == "server":
            return {"id": str(self.id), "type": 0, "name": "studio", "guild_id": str(GUILD), "position": 0,
                    "permissions": "0", "permission_overwrites": [], "nsfw": False, "parent_id": None}  # fmt: skip
        kind = 1 if self.kind == "dm" else 3
        people = [person(one) for one in self.people]
        return {"id": str(self.id), "type": kind, "recipients": people, "last_message_id": None, "flags": 0,
                "name": None, "icon": None, "owner_id": str(self.people[0])}  # fmt: skip


@dataclass
class Sent:
    """A message of the bot, as it stands now."""

    id: int
    channel: int
    content: str = ""
    components: list[JSON] = field(default_factory=list)
    files: list[JSON] = field(default_factory=list)
    only_for: int | None = None
    loading: bool = False
    mentions: list[int] = field(default_factory=list)
    notified: list[int] = field(default_factory=list)
    nonce: str | None = None
    at: float = 0.0
    said: list[str] = field(default_factory=list)
    """Everything it ever said."""

    @property
    def buttons(self) -> dict[str, str]:
        """Labels and ids."""
        return {button["label"]: button["custom_id"] for row in self.components for button in row["components"]}

    def payload(self) -> JSON:
        flags = (EPHEMERAL if self.only_for else 0) | (LOADING if self.loading else 0)
        return {"id": str(self.id), "type": 0, "channel_id": str(self.channel), "author": person(BOT, bot=True),
                "content": self.content, "timestamp": "2026-01-01T00:00:00+00:00", "edited_timestamp": None,
                "tts": False, "mention_everyone": False, "mentions": [person(one) for one in self.mentions],
                "mention_roles": [], "attachments": [{k: v for k, v in f.items() if k != "data"} for f in self.files],
                "embeds": [], "pinned": False, "components": self.components, "flags": flags,
                "nonce": self.nonce}  # fmt: skip


@dataclass
class Asked:
    """One interaction and what came of it."""

    id: int
    token: str
    kind: int
    user: int
    channel: int
    at: float
    limit: int
    pressed: int | None = None
    answer: int | None = None
    data: JSON = field(default_factory=dict)
    original: int | None = None
    delay: float = 0.0
    expired: bool = False
    """Its token is worth nothing after the first answer."""
    messages: list[int] = field(default_factory=list)


def person(number: int, bot: bool = False) -> JSON:
    return {"id": str(number), "username": f"user{number}", "global_name": f"User {number}", "discriminator": "0",
            "avatar": None, "bot": bot, "public_flags": 0}  # fmt: skip


class DiscordServer:
    """`async with DiscordServer() as server`, then point the library at `server.api` and `server.gateway`."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.commands: dict[str, JSON] = {}
        self.channels: dict[int, Channel] = {}
        self.messages: dict[int, Sent] = {}
        self.asked: dict[int, Asked] = {}
        self.locales: dict[int, str] = {}
        self.requests: list[tuple[str, str, int]] = []
        self.invalid: list[float] = []
        self.identified = self.resumed = 0
        self._session = ""
        self._uploads: dict[int, bytes] = {}
        self._kill = [0, 0, 0]
        self._killed = asyncio.Event()
        self._ahead = 0.0
        self._count = 0
        self._failures: list[tuple[str, int | None, bool]] = []
        self._chance, self._pick = 0.0, random.Random(0)
        self._times: deque[float] = deque()
        self._sockets: dict[web.WebSocketResponse, asyncio.Transport] = {}
        self._events: list[JSON] = []
        self._late: set[asyncio.Task[None]] = set()
        app = web.Application(client_max_size=2 * REQUEST, middlewares=[self._guard])
        self._routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)

    async def __aenter__(self) -> "DiscordServer":
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.host = f"127.0.0.1:{self._runner.addresses[0][1]}"
        self.api, self.gateway = f"http://{self.host}/api/v10", f"ws://{self.host}/gateway/"
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.gather(*self._late)
        await self.hang_up()
        await self._runner.cleanup()

    # What tests turn

    def now(self) -> float:
        """Seconds, by a clock that `turn` puts forward; give it to the bot too."""
        return time.monotonic() + self._ahead

    def turn(self, seconds: float) -> None:
        self._ahead += seconds

    def fail(self, route: str, status: int | None, times: int = 1, after: bool = False) -> None:
        """Answer the next requests whose "METHOD /path" matches with this status, None breaking the line; `after` doing
        what they ask."""
        self._failures += [(route, status, after)] * times

    def kill_at(self, request: int, process: int, handled: bool) -> asyncio.Event:
        """Kill the process at one of its next requests, after doing what that asks or instead; set when it is done."""
        self._kill = [request, process, int(handled)]
        self._killed = asyncio.Event()
        return self._killed

    def storm(self, chance: float, seed: int = 0) -> None:
        """From now on each kind of trouble comes with this chance: 429, 500, broken lines before and after a request
        is done, tokens that are worth nothing after the first answer, events that come twice or after later ones, and
        sockets that are lost behind one."""
        self._chance, self._pick = chance, random.Random(seed)

    async def repeat(self) -> None:
        """Send the last event once more."""
        for socket in list(self._sockets):
            await socket.send_json(self._events[-1])

    def add(self, kind: str, *people: int) -> int:
        """A new channel's id."""
        channel = Channel(self._id(), kind, list(people))
        self.channels[channel.id] = channel
        return channel.id

    async def hang_up(self, code: int = 4000, resumable: bool = True) -> None:
        """Cut the gateway's sockets. A session that is not `resumable` is forgotten, with what comes until the next."""
        self._session = self._session if resumable else ""
        for socket in list(self._sockets):
            await socket.close(code=code)

    def lose_sockets(self) -> None:
        """Cut the gateway's lines without a word."""
        for line in self._sockets.values():
            line.abort()
        self._sockets.clear()

    async def until(self, look: Callable[[], T | None], seconds: float = 20.0) -> T:
        """What `look` finds, as soon as it finds something."""
        end = time.monotonic() + seconds
        while not (found := look()):
            assert time.monotonic() < end, f"waited in vain; {self.faults=}, {self.requests[-12:]=}"
            await asyncio.sleep(0.02)
        return found

    # What people do

    async def slash(self, user: int, channel: int, name: str, **given: Any) -> Asked:
        """Use a slash command as registered; photos are bytes."""
        options, attachments = self._options(name, given)
        return await self._ask(SLASH, user, channel, {"id": "1", "name": name, "type": 1, "options": options,
                               "resolved": {"attachments": attachments}})  # fmt: skip

    async def slash_raw(self, user: int, channel: int) -> Asked:
        """An interaction that no bot need know."""
        return await self._ask(SLASH, user, channel, {"id": "1", "name": "any", "type": 1})

    async def complete(self, user: int, channel: int, name: str, option: str, typed: str) -> list[str]:
        """What is offered while somebody types."""
        known = {one["name"]: one for one in self.commands[name]["options"]}
        assert known[option].get("autocomplete"), f"/{name} {option} offers nothing"
        value = {"name": option, "type": known[option]["type"], "value": typed, "focused": True}
        asked = await self._ask(COMPLETES, user, channel, {"id": "1", "name": name, "type": 1, "options": [value]})
        await self.until(lambda: asked.answer)
        return [choice["value"] for choice in asked.data["choices"]]

    async def press(self, user: int, message: Sent, label: str) -> Asked:
        """Press the button whose label starts so."""
        assert message.only_for in (None, user), "nobody else sees this message"
        action = next(one for text, one in message.buttons.items() if text.startswith(label))
        data = {"component_type": 2, "custom_id": action, "id": 1}
        return await self._ask(PRESSED, user, message.channel, data, pressed=message)

    async def submit(self, form: Asked, photos: Sequence[bytes] = (), **typed: Any) -> Asked:
        """Fill the form in that `form` was answered with, and send it."""
        assert form.answer == 9, "no form was opened"
        parts, resolved = [], {}
        for label in form.data["components"]:
            wanted = label["component"]
            name = wanted["custom_id"]
            filled: JSON = {"type": wanted["type"], "custom_id": name, "id": 1}
            if wanted["type"] == 19:
                assert wanted["min_values"] <= len(photos) <= wanted["max_values"], "the form refuses that many files"
                files = [self._upload(photo) for photo in photos]
                resolved |= {file["id"]: file for file in files}
                filled["values"] = [file["id"] for file in files]
            elif wanted["type"] == 22:
                ticked = [one["value"] for one in wanted["options"]] if typed.get(name) else []
                assert len(ticked) >= wanted["min_values"], "the form wants a tick"
                filled["values"] = ticked
            else:
                filled["value"] = str(typed.get(name, wanted.get("value", "")))
                assert filled["value"] or not wanted["required"], f"the form wants {name}"
            parts.append({"type": 18, "id": 1, "component": filled})
        data = {"custom_id": form.data["custom_id"], "components": parts, "resolved": {"attachments": resolved}}
        return await self._ask(SUBMITTED, form.user, form.channel, data)

    def seen(self, user: int, channel: int) -> list[Sent]:
        """What this person sees there, oldest first."""
        return [one for one in self.messages.values()
                if one.channel == channel and one.only_for in (None, user) and not one.loading]  # fmt: skip

    def find(self, user: int, channel: int, text: str) -> Sent | None:
        """The newest message that says this."""
        return next((one for one in reversed(self.seen(user, channel)) if text in one.content), None)

    async def sees(self, user: int, channel: int, text: str) -> Sent:
        """The newest message that says this, once it is there."""
        return await self.until(lambda: self.find(user, channel, text))

    def dm(self, user: int) -> int:
        """The channel of the person's private chat with the bot."""
        known = (one.id for one in self.channels.values() if one.kind == "dm" and one.people == [user])
        return next(known, None) or self.add("dm", user)

    # Interactions

    async def _ask(self, kind: int, user: int, channel: int, data: JSON, pressed: Sent | None = None) -> Asked:
        where, number = self.channels[channel], self._id()
        asked = Asked(number, f"interaction-{number}", kind, user, channel, self.now(), where.limit,
                      pressed.id if pressed else None)  # fmt: skip
        self.asked[number] = asked
        payload = {"id": str(number), "application_id": str(BOT), "type": kind, "data": data, "token": asked.token,
                   "version": 1, "channel_id": str(channel), "channel": where.payload(), "app_permissions": "0",
                   "locale": self.locales.get(user, "en-US"), "entitlements": [],
                   "attachment_size_limit": asked.limit}  # fmt: skip
        if where.kind == "server":
            member = {"user": person(user), "roles": [], "flags": 0, "permissions": "0", "deaf": False, "mute": False,
                      "joined_at": "2020-01-01T00:00:00+00:00", "nick": None, "avatar": None}  # fmt: skip
            payload |= {"guild_id": str(GUILD), "guild": {"id": str(GUILD), "locale": "en-US", "features": []},
                        "member": member, "context": 0}  # fmt: skip
        else:
            payload |= {"user": person(user), "context": 1 if where.kind == "dm" else 2}
        owner = {"server": {"0": str(GUILD)}, "dm": {"0": "0"}, "private": {"1": str(user)}}[where.kind]
        payload["authorizing_integration_owners"] = owner
        if pressed:
            payload["message"] = pressed.payload()
        await self._dispatch("INTERACTION_CREATE", payload)
        return asked

    def _options(self, name: str, given: Mapping[str, Any]) -> tuple[list[JSON], JSON]:
        """The options as Discord's own client lets people give them."""
        known = {option["name"]: option for option in self.commands[name]["options"]}
        options, attachments = [], {}
        assert all(known[one].get("required") is not True or one in given for one in known), "an option is missing"
        for one, value in given.items():
            option = known[one]
            if isinstance(value, bytes):
                assert option["type"] == 11
                attachment = self._upload(value)
                attachments[attachment["id"]], value = attachment, attachment["id"]
            assert not option.get("choices") or value in [choice["value"] for choice in option["choices"]]
            least, most = option.get("min_value"), option.get("max_value")
            assert (least is None or value >= least) and (most is None or value <= most), "Discord refuses the value"
            options.append({"name": one, "type": option["type"], "value": value})
        return options, attachments

    def _upload(self, data: bytes) -> JSON:
        number = self._id()
        self._uploads[number] = data
        url = f"http://{self.host}/attachments/{number}"
        return {"id": str(number), "filename": "photo.txt", "size": len(data), "url": url, "proxy_url": url}

    async def _callback(self, request: web.Request) -> web.Response:
        asked = self.asked.get(int(request.match_info["id"]))
        if asked is None or asked.token != request.match_info["token"]:
            raise Refused(404, 10062, "Unknown interaction")
        asked.delay = self.now() - asked.at
        if asked.delay > FIRST_ANSWER:
            self.faults.append(f"the first answer came after {asked.delay:.1f} s")
            raise Refused(404, 10062, "Unknown interaction")
        if asked.answer is not None:
            raise Refused(400, 40060, "Interaction has already been acknowledged.")
        payload, _ = await _body(request)
        kind, data = payload["type"], payload.get("data") or {}
        allowed = {SLASH: (4, 5, 9), PRESSED: (4, 5, 6, 7, 9), COMPLETES: (8,), SUBMITTED: (4, 5, 6, 7)}[asked.kind]
        demand(kind in allowed, f"type {kind} does not answer an interaction of type {asked.kind}")
        if kind == 8:
            demand(len(data["choices"]) <= 25, "choices")
            demand(
                all(1 <= len(str(one[key])) <= 100 for one in data["choices"] for key in ("name", "value")), "choice"
            )
        elif kind == 9:
            check_form(data)
        elif kind == 5:
            hidden = asked.user if data.get("flags", 0) & EPHEMERAL else None
            sent = Sent(self._id(), asked.channel, only_for=hidden, loading=True, at=self.now())
            self.messages[sent.id] = sent
            asked.original = sent.id
            asked.messages.append(sent.id)
        elif kind == 6:
            asked.original = asked.pressed
        else:
            raise invalid(f"callback type {kind} is not simulated")
        asked.answer, asked.data, asked.expired = kind, data, asked.expired or self._is_bad_luck()
        return _json({"interaction": {"id": str(asked.id), "type": asked.kind,
                      "response_message_id": asked.original and str(asked.original)}})  # fmt: skip

    def _through(self, request: web.Request) -> Asked:
        token = request.match_info["token"]
        asked = next((one for one in self.asked.values() if one.token == token), None)
        if asked is None or asked.answer is None or asked.expired:
            raise Refused(404, 10015, "Unknown Webhook")
        if self.now() - asked.at > TOKEN_LIFE:
            raise Refused(401, 50027, "Invalid Webhook Token")
        return asked

    async def _followup(self, request: web.Request) -> web.Response:
        asked = self._through(request)
        payload, files = await _body(request)
        check_message(payload, files, asked.limit)
        hidden = asked.user if payload.get("flags", 0) & EPHEMERAL else None
        sent = self.messages.get(asked.original or 0)
        if sent is None or not sent.loading:
            sent = Sent(self._id(), asked.channel, only_for=hidden, at=self.now())
            self.messages[sent.id] = sent
            asked.messages.append(sent.id)
        self._fill(sent, payload, files)
        return _json(sent.payload())

    async def _own(self, request: web.Request) -> web.Response:
        """GET, PATCH and DELETE of an interaction's messages."""
        asked, spot = self._through(request), request.match_info["message"]
        number = asked.original if spot == "@original" else int(spot)
        if number not in self.messages or number not in (*asked.messages, asked.original):
            raise Refused(404, 10008, "Unknown Message")
        sent = self.messages[number]
        if request.method == "DELETE":
            del self.messages[number]
            return web.Response(status=204)
        if request.method == "PATCH":
            payload, files = await _body(request)
            check_message(payload, files, asked.limit, sent)
            self._fill(sent, payload, files)
        return _json(sent.payload())

    # Ordinary messages

    def _open(self, request: web.Request) -> Channel:
        channel = self.channels.get(int(request.match_info["channel"]))
        if channel is None:
            raise Refused(404, 10003, "Unknown Channel")
        if channel.kind == "private":
            raise Refused(403, 50001, "Missing Access")
        if channel.closed:
            raise Refused(403, 50007 if channel.kind == "dm" else 50013, "Missing Permissions")
        return channel

    async def _post(self, request: web.Request) -> web.Response:
        channel = self._open(request)
        payload, files = await _body(request)
        check_message(payload, files, FILE)
        demand(not payload.get("flags", 0) & EPHEMERAL, "only interactions can answer unseen by others")
        nonce = payload.get("nonce")
        for known in self.messages.values():
            same = nonce is not None and payload.get("enforce_nonce") and known.nonce == str(nonce)
            if same and known.channel == channel.id and self.now() - known.at < NONCE_LIFE:
                return _json(known.payload())
        sent = Sent(self._id(), channel.id, nonce=nonce and str(nonce), at=self.now())
        self.messages[sent.id] = sent
        self._fill(sent, payload, files)
        return _json(sent.payload())

    async def _edit(self, request: web.Request) -> web.Response:
        channel = self._open(request)
        sent = self.messages.get(int(request.match_info["message"]))
        if sent is None or sent.channel != channel.id or sent.only_for is not None:
            raise Refused(404, 10008, "Unknown Message")
        payload, files = await _body(request)
        check_message(payload, files, FILE, sent)
        self._fill(sent, payload, files)
        return _json(sent.payload())

    async def _history(self, request: web.Request) -> web.Response:
        channel, after = self._open(request), int(request.query.get("after", 0))
        found = [one for one in self.messages.values() if one.channel == channel.id and one.only_for is None]
        found = [one for one in found if one.id > after][: int(request.query.get("limit", 50))]
        return _json([one.payload() for one in reversed(found)])

    def _fill(self, sent: Sent, payload: JSON, files: Mapping[str, bytes]) -> None:
        sent.loading = False
        if "content" in payload:
            sent.content = payload["content"] or ""
            sent.said.append(sent.content)
        if "components" in payload:
            sent.components = payload["components"]
        if "attachments" in payload:
            kept = {str(one["id"]) for one in payload["attachments"]} - set(files)
            new = [self._upload(data) | {"filename": next(one["filename"] for one in payload["attachments"]
                   if str(one["id"]) == key), "data": data} for key, data in files.items()]  # fmt: skip
            sent.files = [file for file in sent.files if file["id"] in kept] + new
        if "content" not in payload:
            return
        allowed = payload.get("allowed_mentions") or {"parse": ["users", "everyone"]}
        named = [int(one) for one in re.findall(r"<@!?(\d+)>", sent.content)]
        let = [int(one) for one in allowed.get("users", ())]
        sent.mentions = [one for one in named if "users" in allowed["parse"] or one in let]
        if len(sent.said) == 1:
            sent.notified = sent.mentions
        if re.search(r"@(everyone|here)\b", sent.content) and "everyone" in allowed["parse"]:
            self.faults.append("everyone was mentioned")

    # The rest of REST

    def _routes(self, app: web.Application) -> None:
        api, add = "/api/v10", app.router.add_route
        add("GET", f"{api}/users/@me", self._me)
        add("GET", f"{api}/oauth2/applications/@me", self._application)
        add("PUT", f"{api}/applications/{BOT}/commands", self._register)
        add("POST", f"{api}/users/@me/channels", self._open_dm)
        add("POST", f"{api}/interactions/{{id}}/{{token}}/callback", self._callback)
        add("POST", f"{api}/webhooks/{BOT}/{{token}}", self._followup)
        add("*", f"{api}/webhooks/{BOT}/{{token}}/messages/{{message}}", self._own)
        add("GET", f"{api}/channels/{{channel}}/messages", self._history)
        add("POST", f"{api}/channels/{{channel}}/messages", self._post)
        add("PATCH", f"{api}/channels/{{channel}}/messages/{{message}}", self._edit)
        add("GET", "/attachments/{id}", self._attachment)
        add("GET", "/gateway/", self._socket)

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        line = f"{request.method} {request.path.removeprefix('/api/v10')}"
        failure = self._failure(line)
        try:
            if failure:
                status, after = failure
                if after:
                    await handler(request)
                if status is None:
                    assert request.transport
                    request.transport.abort()
                    return web.Response()
                raise Refused(status, 0, "injected")
            free = ("/gateway", "/attachments", "/api/v10/interactions", "/api/v10/webhooks")
            if not request.path.startswith(free) and request.headers.get("Authorization") != f"Bot {TOKEN}":
                raise Refused(401, 0, "401: Unauthorized")
            if self._dies(request):
                if self._kill[2]:
                    await handler(request)
                os.kill(self._kill[1], signal.SIGKILL)
                self._killed.set()
                raise Refused(500, 0, "nobody hears this")
            if self._too_quick(request):
                raise Refused(429, 0, "too quick")
            response = await handler(request)
        except Refused as refused:
            if refused.status in (400, 413) and not failure and refused.code != 40060:
                self.faults.append(f"{line}: {refused.text}")
            body: JSON = {"code": refused.code, "message": refused.text}
            if refused.status == 429:
                body = {"message": "You are being rate limited.", "retry_after": 0.1, "global": False}
            response = _json(body, refused.status)
            if refused.status == 429:
                response.headers["Via"] = "1.1 google"
        except web.HTTPException as error:
            self.faults.append(f"{line}: no such route")
            response = _json({"code": 0, "message": f"{error.status}: {error.reason}"}, error.status)
        self.requests.append((request.method, request.path, response.status))
        if response.status in (401, 403, 429) and (request.path.startswith("/api/") and not failure):
            self.invalid.append(time.monotonic())
            recent = [at for at in self.invalid if at > time.monotonic() - INVALID_SPAN]
            if len(recent) > INVALID:
                self.faults.append(f"more than {INVALID} invalid requests within ten minutes: the bot is banned")
        return response

    def _failure(self, line: str) -> tuple[int | None, bool] | None:
        """How this request goes wrong, if it does: with which status, and whether after doing what it asks."""
        luck = self._pick.random() / self._chance if self._chance and " /gateway" not in line else 9.0
        if luck < 2:
            return 429 if luck < 1 else 500, False
        if luck < 3:
            return None, self._pick.random() < 0.5
        for failure in self._failures:
            if re.search(failure[0], line):
                self._failures.remove(failure)
                return failure[1:]
        return None

    def _too_quick(self, request: web.Request) -> bool:
        """Whether these are more than 50 requests within a second; what answers interactions does not count."""
        if not request.path.startswith("/api/") or "/interactions/" in request.path or "/webhooks/" in request.path:
            return False
        now = time.monotonic()
        while self._times and self._times[0] <= now - 1:
            self._times.popleft()
        if len(self._times) >= RATE:
            return True
        self._times.append(now)
        return False

    def _dies(self, request: web.Request) -> bool:
        if request.path.startswith("/gateway") or self._kill[0] == 0:
            return False
        self._kill[0] -= 1
        return self._kill[0] == 0

    async def _me(self, request: web.Request) -> web.Response:
        return _json(person(BOT, bot=True))

    async def _application(self, request: web.Request) -> web.Response:
        return _json({"id": str(BOT), "name": "Avatar", "description": "", "icon": None, "bot_public": True, "flags": 0,
                      "bot_require_code_grant": False, "owner": person(1), "verify_key": "", "rpc_origins": [],
                      "team": None})  # fmt: skip

    async def _register(self, request: web.Request) -> web.Response:
        commands = await request.json()
        demand(len(commands) <= 100, "commands")
        for command in commands:
            check_command(command)
            command |= {"id": str(self._id()), "application_id": str(BOT), "version": "1"}
            # Given as a number or as text, told as text.
            needed = command.get("default_member_permissions")
            command["default_member_permissions"] = None if needed is None else str(needed)
            command["dm_permission"] = True
        self.commands = {command["name"]: command for command in commands}
        demand(len(self.commands) == len(commands), "two commands of one name")
        return _json(commands)

    async def _open_dm(self, request: web.Request) -> web.Response:
        user = int((await request.json())["recipient_id"])
        return _json(self.channels[self.dm(user)].payload())

    async def _attachment(self, request: web.Request) -> web.Response:
        return web.Response(body=self._uploads[int(request.match_info["id"])])

    def _id(self) -> int:
        self._count += 1
        return (int(time.time() * 1000) - 1420070400000 << 22) + self._count % 4096

    # The gateway

    async def _socket(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 45000}})
        try:
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    await self._heard(socket, json.loads(message.data), request)
        finally:
            self._sockets.pop(socket, None)
        return socket

    async def _heard(self, socket: web.WebSocketResponse, said: JSON, request: web.Request) -> None:
        data, line = said["d"], request.transport
        assert line
        match said["op"]:
            case 1:
                await socket.send_json({"op": 11})
            case 2 if data["token"] != TOKEN:
                await socket.close(code=4004)
            case 2 if data["intents"] & PRIVILEGED:
                self.faults.append("asks for a privileged intent")
                await socket.close(code=4014)
            case 2:
                self.identified += 1
                self._session = f"session-{self.identified}"
                self._events = []
                self._sockets[socket] = line
                await self._dispatch("READY", {
                    "v": 10, "user": person(BOT, bot=True), "guilds": [], "session_id": self._session,
                    "resume_gateway_url": self.gateway, "application": {"id": str(BOT), "flags": 0},
                })  # fmt: skip
            case 6 if data["token"] == TOKEN and data["session_id"] == self._session:
                self.resumed += 1
                missed = data["seq"]
                with suppress(ConnectionError):
                    while missed < len(self._events):  # more may happen meanwhile
                        await socket.send_json(self._events[missed])
                        missed += 1
                    self._sockets[socket] = line
                await self._dispatch("RESUMED", {})
            case 6:
                await socket.send_json({"op": 9, "d": False})
            case 3:
                pass
            case op:
                self.faults.append(f"gateway opcode {op}")

    async def _dispatch(self, name: str, data: JSON) -> None:
        if name == "INTERACTION_CREATE" and self._is_bad_luck():
            self._late.add(task := asyncio.create_task(self._hand_out(name, data, _BEHIND)))
            task.add_done_callback(self._late.discard)
        else:
            await self._hand_out(name, data)

    async def _hand_out(self, name: str, data: JSON, late: float = 0.0) -> None:
        await asyncio.sleep(late)
        event = {"op": 0, "t": name, "s": len(self._events) + 1, "d": data}
        self._events.append(event)
        twice = self._is_bad_luck()
        for socket in list(self._sockets):
            with suppress(ConnectionError):  # its process died just now; whoever comes back is sent the event again
                for _ in range(1 + twice):
                    await socket.send_json(event)
        if name == "INTERACTION_CREATE" and self._is_bad_luck():
            self.lose_sockets()

    def _is_bad_luck(self) -> bool:
        return self._chance > 0 and self._pick.random() < self._chance


# What Discord validates


def check_message(payload: JSON, files: Mapping[str, bytes], limit: int, edited: Sent | None = None) -> None:
    content, rows = payload.get("content") or "", payload.get("components", [])
    demand(len(content) <= 2000, "content is longer than 2000")
    if edited is None:
        demand(content.strip() or files or payload.get("embeds") or rows, "empty message")
    embeds = payload.get("embeds", [])
    demand(len(embeds) <= 10, "embeds")
    demand(sum(len(one.get(part) or "") for one in embeds for part in ("title", "description")) <= 6000, "embeds' text")
    demand(sum(1 + len(row["components"]) for row in rows) <= 40, "components")
    if any(len(data) > limit for data in files.values()) or sum(map(len, files.values())) > REQUEST:
        raise Refused(413, 40005, "Request entity too large")
    named = {str(one["id"]): one for one in payload.get("attachments", [])}
    demand(set(files) <= set(named), "a file without its attachment")
    demand(len(named) <= 10, "attachments")
    demand(all(len(one.get("description") or "") <= 1024 for one in named.values()), "description")
    demand(len(str(payload.get("nonce") or "")) <= 25, "nonce")
    demand(len(rows) <= 5, "rows")
    ids = []
    for row in rows:
        demand(row["type"] == 1 and 1 <= len(row["components"]) <= 5, "row")
        for button in row["components"]:
            demand(button["type"] == 2 and button["style"] in (1, 2, 3, 4), "button")
            demand(1 <= len(button["label"]) <= 80, "label")
            demand(1 <= len(button["custom_id"]) <= 100, "custom_id")
            ids.append(button["custom_id"])
    demand(len(ids) == len(set(ids)), "custom_id twice")


def check_form(data: JSON) -> None:
    demand(1 <= len(data["title"]) <= 45, "title")
    demand(1 <= len(data["custom_id"]) <= 100, "custom_id")
    demand(1 <= len(data["components"]) <= 5, "fields")
    for label in data["components"]:
        demand(label["type"] == 18 and 1 <= len(label["label"]) <= 45, "label")
        demand(len(label.get("description", "")) <= 100, "description")
        wanted = label["component"]
        demand(1 <= len(wanted["custom_id"]) <= 100, "custom_id")
        match wanted["type"]:
            case 4:
                demand(wanted["style"] in (1, 2) and not wanted.get("label"), "text input")
                demand(len(wanted.get("placeholder") or "") <= 100, "placeholder")
                demand(1 <= (wanted.get("max_length") or 4000) <= 4000, "max_length")
                demand(len(wanted.get("value") or "") <= (wanted.get("max_length") or 4000), "value")
            case 19:
                demand(0 <= wanted["min_values"] <= wanted["max_values"] <= 10, "files")
            case 22:
                demand(1 <= len(wanted["options"]) <= 10, "boxes")
                demand(all(1 <= len(one["label"]) <= 100 for one in wanted["options"]), "box")
                demand(0 <= wanted["min_values"] <= wanted["max_values"] <= len(wanted["options"]), "ticks")
            case kind:
                raise invalid(f"component {kind} is not simulated in a form")


def check_command(command: JSON) -> None:
    name = re.compile(r"[-_'a-z0-9]{1,32}")
    demand(name.fullmatch(command["name"]), "name")
    demand(1 <= len(command["description"]) <= 100, "description")
    check_localizations(command)
    options = command.get("options", [])
    demand(len(options) <= 25, "options")
    demand(len({option["name"] for option in options}) == len(options), "two options of one name")
    asked = [option.get("required", False) for option in options]
    demand(asked == sorted(asked, reverse=True), "required options come first")
    length = len(command["name"] + command["description"])
    for option in options:
        demand(name.fullmatch(option["name"]) and 1 <= len(option["description"]) <= 100, f"option {option['name']}")
        check_localizations(option)
        choices = option.get("choices", [])
        demand(len(choices) <= 25 and not (choices and option.get("autocomplete")), "choices")
        demand(all(1 <= len(choice["name"]) <= 100 for choice in choices), "choice")
        for bound in (option.get("min_value"), option.get("max_value")):
            demand(bound is None or (option["type"] in (4, 10) and abs(bound) <= 2**53), "bound")
        length += len(option["name"] + option["description"])
        length += sum(len(choice["name"]) + len(str(choice["value"])) for choice in choices)
    demand(length <= 8000, "length")


def check_localizations(described: JSON) -> None:
    for locale, text in (described.get("description_localizations") or {}).items():
        demand(locale in LOCALES and 1 <= len(text) <= 100, f"description in {locale}")
    for locale, text in (described.get("name_localizations") or {}).items():
        demand(locale in LOCALES and re.fullmatch(r"[-_'\w]{1,32}", text), f"name in {locale}")


async def _body(request: web.Request) -> tuple[JSON, dict[str, bytes]]:
    """A request's JSON, and the files by their number."""
    if request.content_type == "application/json":
        return await request.json(), {}
    files: dict[str, bytes] = {}
    payload: JSON = {}
    async for part in await request.multipart():
        assert isinstance(part, aiohttp.BodyPartReader)
        data = bytes(await part.read())
        if part.name == "payload_json":
            payload = json.loads(data)
        elif match := re.fullmatch(r"files\[(\d+)\]", part.name or ""):
            files[match[1]] = data
        else:
            raise invalid(f"part {part.name}")
    return payload, files


def _json(body: object, status: int = 200) -> web.Response:
    # Exactly this type: the library takes anything else for text.
    return web.Response(body=json.dumps(body).encode(), status=status, headers={"Content-Type": "application/json"})
