"""A Bot API server that is as strict as Telegram, for tests and for trying the bot without a token.

It keeps people, chats and messages, hands out updates by polling or webhook, and refuses what Telegram refuses, in
Telegram's words. Whatever it does not know (a method, a parameter) is an entry in `faults`, and a test that leaves one
there has failed. Source of the rules: core.telegram.org/bots/api and the limits page of Telegram.
"""

import asyncio
import itertools
import json
import random
import re
import sys
import time
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, web

from tests.until import until

TOKEN = "12345:simulated"
BOT = {"id": 12345, "is_bot": True, "first_name": "Avatar", "username": "AvatarTestBot"}
_MESSAGE = {"chat_id", "message_thread_id", "reply_parameters", "reply_markup", "disable_notification"}
_EDIT = {"chat_id", "message_id", "reply_markup"}
PARAMETERS: dict[str, set[str]] = {
    "getMe": set(),
    "getUpdates": {"offset", "limit", "timeout", "allowed_updates"},
    "setWebhook": {"url", "secret_token", "allowed_updates"},
    "deleteWebhook": {"drop_pending_updates"},
    "setMyCommands": {"commands", "scope", "language_code"},
    "deleteMyCommands": {"scope", "language_code"},
    "sendMessage": _MESSAGE | {"text", "entities", "link_preview_options"},
    "sendPhoto": _MESSAGE | {"photo", "caption"},
    "sendDocument": _MESSAGE | {"document", "caption"},
    "sendMediaGroup": _MESSAGE - {"reply_markup"} | {"media"},
    "editMessageText": _EDIT | {"text", "entities", "link_preview_options"},
    "editMessageCaption": _EDIT | {"caption"},
    "editMessageMedia": _EDIT | {"media"},
    "editMessageReplyMarkup": _EDIT,
    "deleteMessage": {"chat_id", "message_id"},
    "answerCallbackQuery": {"callback_query_id", "text", "show_alert"},
    "answerInlineQuery": {"inline_query_id", "results", "cache_time", "is_personal"},
    "getFile": {"file_id"},
    "getChatMember": {"chat_id", "user_id"},
    "sendChatAction": {"chat_id", "message_thread_id", "action"},
}
MEGABYTE = 1024 * 1024


class Refused(Exception):
    """The server says no."""

    def __init__(self, status: int, description: str, **parameters: Any) -> None:
        super().__init__(description)
        self.status, self.description, self.parameters = status, description, parameters


class Cut(Exception):
    """The line breaks before the answer is through."""


@dataclass
class Rates:
    """Most messages: in all in a second, in a private chat in 20 s, in a group in a minute."""

    overall: int = 30
    private: int = 25
    group: int = 20


UNLIMITED = Rates(overall=100_000, private=100_000, group=100_000)


@dataclass
class Injection:
    """What happens to the next `times` calls of a method; `after` means that the call has its effect first."""

    method: str
    error: Exception
    times: int = 1
    after: bool = False


@dataclass
class Weather:
    """How often a call goes wrong by chance, for each kind: 429, 500, the line breaks before it or after it."""

    chance: float = 0.0
    pick: random.Random = field(default_factory=lambda: random.Random(0))

    def now(self) -> tuple[Exception | None, bool]:
        """What goes wrong with this call, if anything, and whether it has its effect before."""
        luck = self.pick.random() / self.chance if self.chance else 9.0
        if luck < 1:
            return Refused(429, "Too Many Requests: retry after 1", retry_after=1), False
        if luck < 2:
            return Refused(500, "Internal Server Error"), False
        return (Cut(), self.pick.random() < 0.5) if luck < 3 else (None, False)


@dataclass
class Server:
    """The state of a small Telegram with one bot in it."""

    token: str = TOKEN
    rates: Rates = field(default_factory=Rates)
    weather: Weather = field(default_factory=Weather)
    faults: list[str] = field(default_factory=list)
    refusals: list[tuple[str, str]] = field(default_factory=list)
    calls: list[tuple[float, str, dict[str, Any]]] = field(default_factory=list)
    injections: list[Injection] = field(default_factory=list)
    chats: dict[int, dict[str, Any]] = field(default_factory=dict)
    people: dict[int, dict[str, Any]] = field(default_factory=dict)
    started: set[int] = field(default_factory=set)
    blocked: set[int] = field(default_factory=set)
    muted: set[int] = field(default_factory=set)
    """Groups where the bot may read but not write."""
    closed: set[tuple[int, int]] = field(default_factory=set)
    """Topics, as chat and topic, that take no messages any more."""
    moved: dict[int, int] = field(default_factory=dict)
    topics: dict[int, set[int]] = field(default_factory=dict)
    messages: dict[tuple[int, int], dict[str, Any]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    commands: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    alerts: list[tuple[str | None, bool]] = field(default_factory=list)
    silences: list[tuple[float, int, float]] = field(default_factory=list)
    """When, in which chat, 0 for all, and for how many seconds the bot was told to be silent."""
    actions: list[tuple[float, int]] = field(default_factory=list)
    """When somebody saw in which chat that the bot is typing."""
    times: dict[tuple[int, int], float] = field(default_factory=dict)
    """When each message of the bot came."""
    told: dict[tuple[int, int], list[str]] = field(default_factory=dict)
    """Everything that a message ever said."""
    inline: list[list[dict[str, Any]]] = field(default_factory=list)
    webhook: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._updates: list[dict[str, Any]] = []
        self.pushed: list[dict[str, Any]] = []
        """Every update that there was, oldest first."""
        self._came: dict[int, float] = {}
        self._news = asyncio.Condition()
        self._polls = 0
        self._kinds: list[str] = []
        self._queries: set[str] = set()
        self._times: dict[int, deque[float]] = {}

    # What people do

    def person(self, name: str, start: bool = True, language: str = "en") -> "Person":
        """Somebody new; `start`: they have opened the bot's private chat. language: what their Telegram is in."""
        number = 1000 + next(self._numbers)
        self.people[number] = {"id": number, "is_bot": False, "first_name": name, "language_code": language}
        self.chats[number] = {"id": number, "type": "private", "first_name": name}
        if start:
            self.started.add(number)
        return Person(self, number)

    def group(self, title: str = "Friends", topics: set[int] | None = None) -> int:
        """A group with the bot in it; its id."""
        number = -1000 - next(self._numbers)
        self.chats[number] = {"id": number, "type": "supergroup" if topics else "group", "title": title}
        self.topics[number] = topics or set()
        return number

    def move(self, chat: int) -> int:
        """The group becomes a supergroup; its new id."""
        self.moved[chat] = new = -1001000000000 - next(self._numbers)
        self.chats[new] = {**self.chats[chat], "id": new, "type": "supergroup"}
        return new

    async def push(self, times: int = 1, **update: Any) -> None:
        """Hand an update out, or the same one several times; not at all if the bot does not get such."""
        if self._is_withheld(update):
            return
        body = {"update_id": next(self._numbers), **update}
        self._came[body["update_id"]] = time.time()
        self.pushed.append(body)
        async with self._news:
            self._updates.extend([body] * times)
            self._news.notify_all()
        if self.webhook.get("url"):
            for _ in range(times):
                await self._call_webhook(body)

    def _is_withheld(self, update: dict[str, Any]) -> bool:
        """Whether the bot asked for other kinds, or it is what people of a group say to each other (privacy mode)."""
        if self._kinds and not update.keys() & set(self._kinds):
            return True
        body = update.get("message") or update.get("edited_message") or {}
        if not body or body["chat"]["id"] > 0 or not body.keys() & {"text", "photo", "document"}:
            return False
        replied = (body.get("reply_to_message") or {}).get("from", {})
        return not (said(body).startswith("/") or replied.get("id") == BOT["id"] or "via_bot" in body)

    async def _call_webhook(self, body: dict[str, Any]) -> None:
        headers = {"X-Telegram-Bot-Api-Secret-Token": self.webhook.get("secret_token", "")}
        async with ClientSession() as session, session.post(self.webhook["url"], json=body, headers=headers) as answer:
            if answer.status != 200:
                self.faults.append(f"the webhook answered {answer.status}")

    def add(self, chat: int, sender: dict[str, Any], **content: Any) -> dict[str, Any]:
        """A new message in a chat."""
        number = next(self._numbers)
        body = {"message_id": number, "date": int(time.time()), "chat": self.chats[chat], "from": sender, **content}
        self.messages[chat, number] = body
        self.told[chat, number] = [said(body)]
        if sender["is_bot"]:
            self.times[chat, number] = time.monotonic()
        return body

    def store(self, data: bytes) -> str:
        """A file on the server; its id, whose part before the dot is the unique one."""
        number = next(self._numbers)
        self.files[f"Uniq{number}.{number}"] = data
        return f"Uniq{number}.{number}"

    # What tests look at

    def of_bot(self, chat: int) -> list[dict[str, Any]]:
        """The bot's messages in a chat that are still there, oldest first."""
        return [body for (where, _), body in self.messages.items() if where == chat and body["from"]["is_bot"]]

    async def until(self, chat: int, text: str, count: int = 1, seconds: float = 90) -> dict[str, Any]:
        """The last message of the bot with this text, once there are `count` of them."""

        def found() -> list[dict[str, Any]]:
            bodies = [body for body in self.of_bot(chat) if text in said(body)]
            return bodies if len(bodies) >= count else []

        return (await until(found, within=seconds))[-1]

    async def documents(self, chat: int, count: int) -> list[dict[str, Any]]:
        """The bot's messages with a file in a chat, once there are `count` of them."""

        def found() -> list[dict[str, Any]]:
            bodies = [body for body in self.of_bot(chat) if "document" in body]
            return bodies if len(bodies) >= count else []

        return await until(found)

    async def alerted(self, text: str) -> None:
        """Return once somebody was told this beside a button."""
        await until(lambda: any(text in (alert or "") for alert, _ in self.alerts))

    @property
    def unfetched(self) -> int:
        """How many updates the polling bot has not confirmed yet."""
        return 0 if self.webhook.get("url") else len(self._updates)

    def inject(self, method: str, error: Exception, times: int = 1, after: bool = False) -> None:
        """Let the next calls of a method fail."""
        self.injections.append(Injection(method, error, times, after))

    # The wire

    def app(self) -> web.Application:
        app = web.Application(client_max_size=60 * MEGABYTE)
        app.router.add_route("*", "/file/bot{token}/{file}", self._file)
        app.router.add_route("*", "/bot{token}/{method}", self._method)
        app.router.add_route("*", "/{rest:.*}", self._unknown)
        return app

    async def _unknown(self, request: web.Request) -> web.Response:
        self.faults.append(f"unknown route {request.method} {request.path.replace(self.token, '<token>')}")
        return _json(404, ok=False, error_code=404, description="Not Found")

    async def _file(self, request: web.Request) -> web.Response:
        name = request.match_info["file"]
        if request.match_info["token"] != self.token or name not in self.files:
            return await self._unknown(request)
        for injection in self._injected("file", after=False):
            return _json(getattr(injection, "status", 500), ok=False, description="injected")
        return web.Response(body=self.files[name])

    async def _method(self, request: web.Request) -> web.StreamResponse:
        method = request.match_info["method"]
        if request.match_info["token"] != self.token:
            return _json(401, ok=False, error_code=401, description="Unauthorized")
        if method not in PARAMETERS:
            return await self._unknown(request)
        try:
            given = await _given(request)
            if unknown := given.keys() - PARAMETERS[method] - {"uploads"}:
                self.faults.append(f"{method} has no parameter {sorted(unknown)}")
            self.calls.append((time.monotonic(), method, given))
            for error in self._injected(method, after=False):
                raise error
            wrong, late = self.weather.now()
            if wrong and not late:
                raise wrong
            result = await getattr(self, f"_{method}")(given)
            if wrong:
                raise wrong
            for error in self._injected(method, after=True):
                raise error
        except Refused as refused:
            self.refusals.append((method, refused.description))
            if silence := refused.parameters.get("retry_after"):
                self.silences.append((time.monotonic(), given.get("chat_id", 0), silence))
            more = {"parameters": refused.parameters} if refused.parameters else {}
            return _json(refused.status, ok=False, error_code=refused.status, description=refused.description, **more)
        except Cut:
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        return _json(200, ok=True, result=result)

    def _injected(self, method: str, after: bool) -> list[Exception]:
        for injection in self.injections:
            if injection.method == method and injection.after == after and injection.times:
                injection.times -= 1
                return [injection.error]
        return []

    # Methods

    async def _getMe(self, given: dict[str, Any]) -> dict[str, Any]:
        return {**BOT, "can_join_groups": True, "can_read_all_group_messages": False, "supports_inline_queries": True}

    async def _getUpdates(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        if self.webhook.get("url"):
            raise Refused(409, "Conflict: can't use getUpdates method while webhook is active")
        self._kinds = given.get("allowed_updates", self._kinds)
        self._polls += 1
        mine = self._polls
        offset = given.get("offset", 0)

        def waiting() -> list[dict[str, Any]]:
            return [update for update in self._updates if update["update_id"] >= offset][:100]

        async with self._news:
            self._news.notify_all()
            # What nobody has fetched within a day is lost.
            kept = [one for one in self._updates if self._came[one["update_id"]] > time.time() - 24 * 3600]
            self._updates = [update for update in kept if update["update_id"] >= offset]
            try:
                async with asyncio.timeout(given.get("timeout", 0)):
                    await self._news.wait_for(lambda: waiting() or self._polls != mine)
            except TimeoutError:
                pass
            if self._polls != mine:
                raise Refused(409, "Conflict: terminated by other getUpdates request")
            return waiting()

    async def _setWebhook(self, given: dict[str, Any]) -> bool:
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,256}", given.get("secret_token", "-")):
            raise Refused(400, "Bad Request: secret token contains unallowed characters")
        self.webhook = given
        self._kinds = given.get("allowed_updates", self._kinds)
        return True

    async def _deleteWebhook(self, given: dict[str, Any]) -> bool:
        self.webhook = {}
        return True

    async def _setMyCommands(self, given: dict[str, Any]) -> bool:
        commands = given["commands"]
        if len(commands) > 100:
            raise Refused(400, "Bad Request: BOT_COMMANDS_TOO_MUCH")
        for command in commands:
            if not re.fullmatch(r"[a-z0-9_]{1,32}", command["command"]):
                raise Refused(400, "Bad Request: BOT_COMMAND_INVALID")
            if not 1 <= len(command["description"]) <= 256:
                raise Refused(400, "Bad Request: BOT_COMMAND_DESCRIPTION_INVALID")
        self.commands[self._scope(given)] = commands
        return True

    async def _deleteMyCommands(self, given: dict[str, Any]) -> bool:
        self.commands.pop(self._scope(given), None)
        return True

    def _scope(self, given: dict[str, Any]) -> str:
        scope = given.get("scope", {"type": "default"})
        if scope["type"] == "chat":
            self._chat({"chat_id": scope["chat_id"]}, 0)
        language = given.get("language_code") or ""
        if language and not re.fullmatch(r"[a-z]{2}", language):
            raise Refused(400, "Bad Request: invalid language code specified")
        return f"{scope['type']} {scope.get('chat_id', '')}".strip() + f" {language}".rstrip()

    def _chat(self, given: dict[str, Any], messages: int) -> int:
        """The chat that may be sent to, after all that can be wrong with it."""
        chat = given["chat_id"]
        if chat in self.moved:
            raise Refused(
                400, "Bad Request: group chat was upgraded to a supergroup chat", migrate_to_chat_id=self.moved[chat]
            )
        if chat not in self.chats:
            raise Refused(400, "Bad Request: chat not found")
        if chat in self.blocked:
            raise Refused(403, "Forbidden: bot was blocked by the user" if chat > 0 else "Forbidden: bot was kicked")
        if chat > 0 and chat not in self.started:
            raise Refused(403, "Forbidden: bot can't initiate conversation with a user")
        thread = given.get("message_thread_id")
        if thread is not None and thread not in self.topics.get(chat, set()):
            raise Refused(400, "Bad Request: message thread not found")
        reply = given.get("reply_parameters")
        if reply and (chat, reply["message_id"]) not in self.messages and not reply.get("allow_sending_without_reply"):
            raise Refused(400, "Bad Request: message to be replied not found")
        if messages and chat in self.muted:
            raise Refused(400, "Bad Request: not enough rights to send text messages to the chat")
        if messages and (chat, thread) in self.closed:
            raise Refused(400, "Bad Request: TOPIC_CLOSED")
        if messages:
            within = (20, self.rates.private) if chat > 0 else (60, self.rates.group)
            for where, seconds, most in ((0, 1, self.rates.overall), (chat, *within)):
                times = self._times.setdefault(where, deque())
                while times and times[0] <= time.monotonic() - seconds:
                    times.popleft()
                if len(times) + messages > most:
                    raise Refused(429, "Too Many Requests: retry after 1", retry_after=1)
            for where in (0, chat):
                self._times[where].extend([time.monotonic()] * messages)
        return int(chat)

    def _sent(self, given: dict[str, Any], chat: int, **content: Any) -> dict[str, Any]:
        _check_buttons(given)
        if (thread := given.get("message_thread_id")) is not None:
            content |= {"message_thread_id": thread, "is_topic_message": True}
        reply = given.get("reply_parameters", {}).get("message_id")
        if (chat, reply) in self.messages:
            content["reply_to_message"] = {**self.messages[chat, reply], "reply_to_message": None}
        if "reply_markup" in given:
            content["reply_markup"] = given["reply_markup"]
        return self.add(chat, BOT, **content)

    async def _sendMessage(self, given: dict[str, Any]) -> dict[str, Any]:
        text, entities = _text(given), _entities(given)
        return self._sent(given, self._chat(given, 1), text=text, entities=entities)

    async def _sendPhoto(self, given: dict[str, Any]) -> dict[str, Any]:
        caption, chat = _caption(given), self._chat(given, 1)
        return self._sent(given, chat, caption=caption, **self._media(given, "photo", given["photo"]))

    async def _sendDocument(self, given: dict[str, Any]) -> dict[str, Any]:
        caption, chat = _caption(given), self._chat(given, 1)
        return self._sent(given, chat, caption=caption, **self._media(given, "document", given["document"]))

    async def _sendMediaGroup(self, given: dict[str, Any]) -> list[dict[str, Any]]:
        media = given["media"]
        if not 2 <= len(media) <= 10:
            raise Refused(400, "Bad Request: MEDIA_GROUP_SIZE_INVALID")
        if len({one["type"] for one in media}) > 1:
            raise Refused(400, "Bad Request: can't mix documents and photos")
        captions = [_caption(one) for one in media]
        chat, group = self._chat(given, len(media)), str(next(self._numbers))
        made = [self._media(given, one["type"], one["media"]) for one in media]
        return [
            self._sent(given, chat, caption=caption, media_group_id=group, **content)
            for caption, content in zip(captions, made, strict=True)
        ]

    def _media(self, given: dict[str, Any], kind: str, media: Any) -> dict[str, Any]:
        data: bytes = media if isinstance(media, bytes) else given["uploads"][media.removeprefix("attach://")]
        if len(data) > (10 if kind == "photo" else 50) * MEGABYTE:
            raise Refused(413, "Request Entity Too Large")
        if not data:
            raise Refused(400, "Bad Request: file must be non-empty")
        if kind == "photo" and not data.startswith((b"\x89PNG", b"\xff\xd8")):
            raise Refused(400, "Bad Request: IMAGE_PROCESS_FAILED")
        return media_of(kind, self.store(data), len(data))

    def _edited(self, given: dict[str, Any], **content: Any) -> dict[str, Any]:
        chat = self._chat(given, 0)
        body = self.messages.get((chat, given["message_id"]))
        if body is None:
            raise Refused(400, "Bad Request: message to edit not found")
        if not body["from"]["is_bot"]:
            raise Refused(400, "Bad Request: message can't be edited")
        _check_buttons(given)
        new = {**body, **content, "reply_markup": given.get("reply_markup")}
        if {**body, "reply_markup": body.get("reply_markup")} == new:
            raise Refused(
                400,
                "Bad Request: message is not modified: specified new message content and reply markup are exactly the "
                "same as a current content and reply markup of the message",
            )
        body.clear()
        body.update({name: value for name, value in new.items() if value is not None})
        self.told[chat, body["message_id"]].append(said(body))
        return body

    async def _editMessageText(self, given: dict[str, Any]) -> dict[str, Any]:
        body = self.messages.get((given["chat_id"], given["message_id"]))
        if body is not None and "text" not in body and body["from"]["is_bot"]:
            raise Refused(400, "Bad Request: there is no text in the message to edit")
        return self._edited(given, text=_text(given), entities=_entities(given))

    async def _editMessageCaption(self, given: dict[str, Any]) -> dict[str, Any]:
        return self._edited(given, caption=_caption(given))

    async def _editMessageMedia(self, given: dict[str, Any]) -> dict[str, Any]:
        media = given["media"]
        caption, content = _caption(media), self._media(given, media["type"], media["media"])
        return self._edited(given, text=None, entities=None, caption=caption, **content)

    async def _editMessageReplyMarkup(self, given: dict[str, Any]) -> dict[str, Any]:
        return self._edited(given)

    async def _sendChatAction(self, given: dict[str, Any]) -> bool:
        if given["action"] != "typing":
            raise Refused(400, "Bad Request: wrong parameter action in request")
        self.actions.append((time.monotonic(), self._chat(given, 0)))
        return True

    async def _deleteMessage(self, given: dict[str, Any]) -> bool:
        where = (given["chat_id"], given["message_id"])
        if where not in self.messages:
            raise Refused(400, "Bad Request: message to delete not found")
        if self.messages[where]["date"] < time.time() - 48 * 3600:
            raise Refused(400, "Bad Request: message can't be deleted for everyone")
        del self.messages[where]
        return True

    async def _answerCallbackQuery(self, given: dict[str, Any]) -> bool:
        if given["callback_query_id"] not in self._queries:
            raise Refused(400, "Bad Request: query is too old and response timeout expired or query ID is invalid")
        if _units(given.get("text", "")) > 200:
            raise Refused(400, "Bad Request: MESSAGE_TOO_LONG")
        self._queries.discard(given["callback_query_id"])
        self.alerts.append((given.get("text"), given.get("show_alert", False)))
        return True

    async def _answerInlineQuery(self, given: dict[str, Any]) -> bool:
        results = given["results"]
        if len(results) > 50:
            raise Refused(400, "Bad Request: RESULTS_TOO_MUCH")
        if len({result["id"] for result in results}) < len(results):
            raise Refused(400, "Bad Request: RESULT_ID_DUPLICATE")
        for result in results:
            if len(result["id"].encode()) > 64 or result["photo_file_id"] not in self.files:
                raise Refused(400, "Bad Request: PHOTO_INVALID")
        self.inline.append(results)
        return True

    async def _getFile(self, given: dict[str, Any]) -> dict[str, Any]:
        name = given["file_id"]
        if name not in self.files:
            raise Refused(400, "Bad Request: wrong file_id or the file is temporarily unavailable")
        if len(self.files[name]) > 20 * MEGABYTE:
            raise Refused(400, "Bad Request: file is too big")
        unique = name.partition(".")[0]
        return {"file_id": name, "file_unique_id": unique, "file_size": len(self.files[name]), "file_path": name}

    async def _getChatMember(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"status": "member", "user": self.people[given["user_id"]]}


@dataclass
class Person:
    """Somebody with a phone."""

    server: Server
    id: int

    @property
    def user(self) -> dict[str, Any]:
        return self.server.people[self.id]

    async def say(self, text: str, chat: int | None = None, times: int = 1, **more: Any) -> dict[str, Any]:
        """Send a line, to the bot if no chat is given."""
        chat = chat or self.id
        if text.startswith("/start"):
            self.server.started.add(self.id)
        body = self.server.add(chat, self.user, text=text, **more)
        await self.server.push(times=times, message=body)
        return body

    def photo(self, data: bytes, kind: str = "photo", **more: Any) -> dict[str, Any]:
        """A photo that is sent, but whose update is not handed out yet."""
        more = {name: value for name, value in more.items() if value is not None}
        return self.server.add(self.id, self.user, **media_of(kind, self.server.store(data), len(data)), **more)

    def album(
        self, photos: list[bytes], caption: str | None = None, kind: str = "photo", at: int = 0
    ) -> list[dict[str, Any]]:
        """An album, whose updates are not handed out yet; the caption is on photo `at`."""
        group = str(next(self.server._numbers))
        return [
            self.photo(data, kind, media_group_id=group, caption=caption if number == at else None)
            for number, data in enumerate(photos)
        ]

    async def hand_out(self, messages: list[dict[str, Any]], times: int = 1) -> None:
        """Let the bot have these messages."""
        for body in messages:
            await self.server.push(times=times, message=body)

    async def send(self, photos: list[bytes], caption: str | None = None, kind: str = "photo") -> list[dict[str, Any]]:
        """An album, at once."""
        album = self.album(photos, caption, kind)
        await self.hand_out(album)
        return album

    async def press(self, message: dict[str, Any], label: str, times: int = 1) -> None:
        """Press the button whose label starts like this."""
        rows = message.get("reply_markup", {}).get("inline_keyboard", [])
        data = next(one["callback_data"] for row in rows for one in row if one["text"].startswith(label))
        query = str(next(self.server._numbers))
        self.server._queries.add(query)
        press = {"id": query, "from": self.user, "message": message, "chat_instance": "1", "data": data}
        await self.server.push(times=times, callback_query=press)

    async def ask(self, words: str) -> None:
        """Type the bot's name and words into any chat."""
        assert _units(words) <= 256, "Telegram lets nobody type more"
        query = {"id": str(next(self.server._numbers)), "from": self.user, "query": words, "offset": ""}
        await self.server.push(inline_query=query)

    async def membership(self, status: str, chat: int | None = None) -> None:
        """Block the bot, or throw it out of a group (kicked), or let it in again (member)."""
        chat = chat or self.id
        (self.server.blocked.add if status == "kicked" else self.server.blocked.discard)(chat)

        def member(now: str) -> dict[str, Any]:
            return {"status": now, "user": BOT, **({"until_date": 0} if now == "kicked" else {})}

        changed = {"chat": self.server.chats[chat], "from": self.user, "date": int(time.time())}
        was = "member" if status == "kicked" else "kicked"
        await self.server.push(
            my_chat_member={**changed, "old_chat_member": member(was), "new_chat_member": member(status)}
        )


def media_of(kind: str, name: str, size: int) -> dict[str, Any]:
    """The part of a message that holds a file: "photo", "document" (a PNG), a document's type, or "" for none."""
    file = {"file_id": name, "file_unique_id": name.partition(".")[0], "file_size": size}
    if kind == "photo":
        return {"photo": [{**file, "file_id": f"{name}", "width": 128, "height": 128}]}
    return {"document": {**file, **({"mime_type": "image/png" if kind == "document" else kind} if kind else {})}}


def said(body: dict[str, Any]) -> str:
    """The words of a message."""
    return str(body.get("text") or body.get("caption") or "")


def labels(body: dict[str, Any]) -> list[str]:
    """The labels of a message's buttons."""
    return [one["text"] for row in body.get("reply_markup", {}).get("inline_keyboard", []) for one in row]


def _text(given: dict[str, Any]) -> str:
    text = str(given["text"]).strip()
    if not text:
        raise Refused(400, "Bad Request: message text is empty")
    if _units(text) > 4096:
        raise Refused(400, "Bad Request: message is too long")
    return text


def _entities(given: dict[str, Any]) -> list[dict[str, Any]]:
    for entity in given.get("entities", ()):
        if entity["offset"] + entity["length"] > _units(str(given["text"])):
            raise Refused(400, "Bad Request: ENTITY_BOUNDS_INVALID")
    return list(given.get("entities", ()))


def _caption(given: dict[str, Any]) -> str:
    caption = str(given.get("caption", ""))
    if _units(caption) > 1024:
        raise Refused(400, "Bad Request: message caption is too long")
    return caption


def _check_buttons(given: dict[str, Any]) -> None:
    rows = given.get("reply_markup", {}).get("inline_keyboard", [])
    for button in (button for row in rows for button in row):
        if not button["text"]:
            raise Refused(400, "Bad Request: can't parse inline keyboard button: text must be non-empty")
        if "url" not in button and not 1 <= len(button["callback_data"].encode()) <= 64:
            raise Refused(400, "Bad Request: BUTTON_DATA_INVALID")


def _units(text: str) -> int:
    return len(text.encode("utf-16-le")) // 2


async def _given(request: web.Request) -> dict[str, Any]:
    """The parameters, whichever way they came; `uploads` holds the files that others refer to."""
    given: dict[str, Any] = {}
    uploads: dict[str, bytes] = {}
    for name, value in (await request.post()).items():
        if isinstance(value, web.FileField):
            uploads[name] = given[name] = value.file.read()
        elif isinstance(value, str):
            try:
                given[name] = json.loads(value)
            except ValueError:
                given[name] = value
            if name in ("text", "caption", "file_id", "callback_query_id", "inline_query_id", "secret_token"):
                given[name] = value
    given = {name: value for name, value in given.items() if name not in uploads or name in ("photo", "document")}
    return {**given, "uploads": uploads} if uploads else given


def _json(status: int, **body: Any) -> web.Response:
    return web.json_response(body, status=status)


@asynccontextmanager
async def served(server: Server, port: int = 0) -> AsyncIterator[str]:
    """The server on a port of this machine; its address."""
    runner = web.AppRunner(server.app(), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


# On its own: a person at the keyboard talks to a bot that runs elsewhere

_USAGE = "Type a line, `album FILE... [/train mia7 woman]`, or `press LABEL`; Ctrl-D ends."


async def _talk(server: Server, ben: Person) -> None:
    """Hand over what is typed, and print what the bot shows."""
    shown: dict[int, str] = {}

    async def show() -> None:
        while True:
            for body in server.of_bot(ben.id):
                files = [kind for kind in ("photo", "document") if kind in body]
                buttons = " ".join(f"[{label}]" for label in labels(body))
                text = " ".join(part for part in (*files, said(body), buttons) if part)
                if shown.get(body["message_id"]) != text:
                    print(f"{'~' if body['message_id'] in shown else '<'} {text}", flush=True)
                    shown[body["message_id"]] = text
            await asyncio.sleep(0.2)

    showing = asyncio.create_task(show())
    while line := await asyncio.to_thread(sys.stdin.readline):
        words = line.split()
        try:
            if words[:1] == ["album"]:
                names, slash, caption = line.removeprefix("album").partition(" /")
                data = [await asyncio.to_thread(Path(name).read_bytes) for name in names.split()]
                await ben.send(data, f"/{caption.strip()}" if slash else None)
            elif words[:1] == ["press"]:
                label = line.removeprefix("press").strip()
                pressed = [body for body in server.of_bot(ben.id) if any(one.startswith(label) for one in labels(body))]
                await ben.press(pressed[-1], label)
            elif words:
                await ben.say(line.strip())
        except (OSError, IndexError) as error:
            print(f"? {error}. {_USAGE}")
    showing.cancel()
    for fault in server.faults:
        print(f"! {fault}")


async def main(port: int) -> None:
    """Serve until the keyboard is closed."""
    server = Server()
    async with served(server, port) as address:
        print(f"A Telegram at {address}. Start the bot against it:")
        print(f"  AVATAR_TELEGRAM_API_URL={address} AVATAR_TELEGRAM_TOKEN={TOKEN} python -m bot telegram")
        print(_USAGE, flush=True)
        await _talk(server, server.person("Ben"))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 8081))
