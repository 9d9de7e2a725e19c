"""Collecting photos in a private chat until a command can run with them.

Telegram sends an album as single messages in any order, without marking the last one, and some people send their photos
one by one. Each photo is copied into a tray: an album has its own tray, and single photos share the chat's loose tray.
Trays are stored in the records, so that they survive a restart. A tray is settled once no photo has arrived for a
moment: the bot then asks for what is missing, or runs the command. No command runs with photos before the person has
agreed, by the button or by --consent in the line.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta

from telegram import Bot, User
from telegram import Message as Got
from telegram.error import BadRequest, NetworkError, TelegramError

from bot import limits
from bot.commands.commands import COMMANDS, Commands
from bot.frontends.files import is_picture
from bot.frontends.locks import Locks
from bot.frontends.telegram.calls import Unreachable
from bot.frontends.telegram.outbox import TelegramOutbox
from bot.frontends.telegram.rooms import NAME, Room
from bot.language import ENGLISH, say, speak, speaking, spoken
from bot.lines import parse
from bot.messages import Caller, Message, Reply, Upload
from bot.replies import refusals
from bot.replies import telegram as wording
from bot.table import OptionKind
from storage import keys
from storage.blobs import Blobs
from storage.errors import UserError
from storage.records import Records

log = logging.getLogger(__name__)

TRAYS = "telegram/trays"
"""`<chat>/<tray>`: the fields of `Tray`."""
PHOTOS = "telegram/photos"
"""`<chat>/<tray>/<mark of the file>`: {"message", "blob"}"""
LOOSE = "loose"
KEPT = timedelta(days=1)
"""How long photos are kept without a command."""
CHAT_MOST = 6 * limits.PHOTOS_MOST
"""Most waiting photos of a chat."""

_TRIES = 3


@dataclass(frozen=True, slots=True)
class Tray:
    """Photos that belong together."""

    user: int
    """The id of the person who sent them."""
    name: str
    """The person's full name."""
    line: str | None = None
    """The command for the photos; None until it is known, "" once the tray is closed."""
    complete: bool = False
    """Whether the person need not press Done."""
    asked: str | None = None
    """The reference of the message that shows the tray and its buttons."""
    started: str | None = None
    """When its command was first run, in ISO format: part of the request, so that a repeated command finds its job."""
    over: str | None = None
    """Why the tray was closed. A closed tray is kept for a while, so that late photos of its album are recognised."""
    seen: tuple[str, ...] = field(default_factory=tuple)
    """The marks of the photos that it had when it was closed."""
    language: str = ENGLISH
    """The person's language."""


@dataclass(frozen=True, slots=True)
class _Photo:
    tray: str
    mark: str
    message: int
    blob: str


@dataclass(frozen=True, slots=True)
class _Picked:
    """The file of a message, which is a picture or may be one."""

    file_id: str
    mark: str
    """Equal for equal files."""
    size: int
    """In bytes, 0 if unknown."""
    typed: bool = True
    """Whether Telegram says that it is a picture. Otherwise its content decides."""


class Albums:
    """The trays of all private chats. Callers must hold the chat's lock in `turns`."""

    def __init__(
        self,
        bot: Bot,
        records: Records,
        blobs: Blobs,
        commands: Commands,
        outbox: TelegramOutbox,
        turns: Locks[int],
        show: Callable[[Caller, Room, Reply], Awaitable[None]],
        quiet: float,
    ) -> None:
        self._bot = bot
        self._records = records
        self._blobs = blobs
        self._commands = commands
        self._outbox = outbox
        self._turns = turns
        self._show_reply = show
        self._quiet = quiet
        self._timers: dict[tuple[int, str], asyncio.TimerHandle] = {}
        self._settling: set[asyncio.Task[None]] = set()
        # The content of each tray's message, so that it is not replaced by an equal one.
        self._shown: dict[tuple[int, str], Message] = {}
        # What was said of each album's files that were not taken.
        self._refused_files: dict[tuple[int, str], list[Message]] = {}

    async def resume(self) -> None:
        """Continue with the trays of an earlier process."""
        for note in await self._records.notes.find(TRAYS):
            chat, _, tray = note.key.partition("/")
            if not note.body["over"]:
                self._settle_later(int(chat), tray)

    async def close(self) -> None:
        """Leave the trays to the next process."""
        for timer in self._timers.values():
            timer.cancel()
        await asyncio.gather(*self._settling, return_exceptions=True)

    # Photos and their command

    async def take(self, message: Got, line: str | None) -> None:
        """Copy one photo into its tray. `line` is the command in its caption."""
        user = message.from_user
        assert user is not None
        chat, tray = message.chat.id, _tray_of(message)
        known = await self._tray_for(chat, tray, user)
        picked = _picked(message)
        if picked is None:
            await self._refuse(message, tray, wording.no_picture())
            # The caption of a film is the album's as well.
            if line and message.media_group_id and known.over is None:
                await self._keep(chat, tray, replace(known, line=line))
                self._settle_later(chat, tray)
            return
        mark = picked.mark
        if known.over == "moved" and (loose := await self._tray(chat, LOOSE)) is not None and not loose.over:
            tray, known = LOOSE, loose
        if known.over is not None:
            if known.over != "dropped" and mark not in known.seen:
                await self._keep(chat, tray, replace(known, seen=(*known.seen, mark)))
                await self._outbox.say(Room(chat), wording.too_late(), reply_to=message.message_id)
            return
        key = f"{chat}/{tray}/{mark}"
        if await self._records.notes.get(PHOTOS, key) is None:
            photos = await self._photos(chat)
            number = sum(photo.tray == tray for photo in photos) + 1
            blob = f"{_blobs_of(chat, tray)}{mark}"
            if len(photos) < CHAT_MOST:
                refused = await self._copy(picked, blob, number)
            else:
                refused = refusals.refusal(
                    UserError("photos_many", fewest=limits.PHOTOS_FEWEST, most=limits.PHOTOS_MOST)
                )
            if refused is not None:
                await self._refuse(message, tray, refused)
            else:
                body = {"message": message.message_id, "blob": blob}
                await self._records.notes.add(PHOTOS, key, body, f"{NAME}:{chat}")
        await self._keep(chat, tray, replace(known, line=line) if line else known)
        self._settle_later(chat, tray)

    async def _refuse(self, message: Got, tray: str, refused: Message) -> None:
        """Say why a file is not taken, but not the same of every file of an album."""
        if tray != LOOSE:
            said = self._refused_files.setdefault((message.chat.id, tray), [])
            if refused in said:
                return
            said.append(refused)
        await self._outbox.say(Room(message.chat.id), refused, reply_to=message.message_id)

    async def _copy(self, picked: _Picked, blob: str, number: int) -> Message | None:
        """Download a file into the blobs; return a refusal if that fails."""
        too_large = refusals.refusal(
            UserError("photo_large", number=number, megabytes=limits.PHOTO_BYTES // 1024 // 1024)
        )
        if picked.size > limits.PHOTO_BYTES:
            return too_large
        for attempt in range(1, _TRIES + 1):
            try:
                file = await self._bot.get_file(picked.file_id)
                data = bytes(await file.download_as_bytearray())
            except BadRequest as error:
                return too_large if "too big" in error.message else wording.not_fetched()
            except NetworkError as error:
                log.warning("a photo was not fetched: %s", type(error).__name__)
                await asyncio.sleep(0.3 * attempt)
            except TelegramError:
                break
            else:
                if not picked.typed and not is_picture(data):
                    return wording.no_picture()
                await self._blobs.put(blob, data)
                return None
        return wording.not_fetched()

    async def order(self, message: Got, line: str) -> None:
        """Handle a command for photos that came without any: find its photos among the trays."""
        user = message.from_user
        assert user is not None
        chat, replied = message.chat.id, message.reply_to_message
        if replied is not None and _picked(replied) is not None and _by_a_person(replied):
            tray = await self._tray_with(chat, replied)
        else:
            filled = {photo.tray for photo in await self._photos(chat)}
            waiting = [
                tray for tray, known in (await self._open(chat)).items() if known.line is None and tray in filled
            ]
            if len(waiting) > 1:
                await self._outbox.say(Room(chat), wording.which(), reply_to=message.message_id)
                return
            tray = waiting[0] if waiting else LOOSE
        known = await self._tray_for(chat, tray, user)
        if known.over is not None:
            await self._outbox.say(Room(chat), wording.too_late(), reply_to=message.message_id)
            return
        photos = await self._photos(chat, tray)
        await self._keep(chat, tray, replace(known, line=line, complete=known.complete or bool(photos)))
        await self.settle(chat, tray)

    async def _tray_with(self, chat: int, replied: Got) -> str:
        for photo in await self._photos(chat):
            if photo.message == replied.message_id:
                return photo.tray
        if await self._tray(chat, _tray_of(replied)) is None or not replied.media_group_id:
            await self.take(replied, None)
        return _tray_of(replied)

    # Buttons

    async def done(self, chat: int, tray: str) -> str | None:
        """[Done]: the tray is complete. Returns an alert if something is still missing."""
        known, count = await self._tray(chat, tray), len(await self._photos(chat, tray))
        if known is None or known.over:
            return say(wording.GONE)
        if count < limits.PHOTOS_FEWEST:
            return wording.needs_more(count)
        await self._keep(chat, tray, replace(known, complete=True))
        if known.line is None:
            return wording.needs_line(count)
        await self.settle(chat, tray)
        return None

    async def drop(self, chat: int, tray: str) -> bool:
        """[Forget them]: erase the photos. False if they were gone."""
        known = await self._tray(chat, tray)
        if known is None or known.over:
            return False
        await self.end(chat, tray, "dropped")
        return True

    async def agree(self, caller: Caller, chat: int, tray: str) -> Reply | str:
        """[They agreed]: run the command with the photos. Returns an alert if they are gone.

        The request is the tray's and not the press's, so that any number of presses makes one job.
        """
        known = await self._tray(chat, tray)
        if known is None or known.line is None:
            return say(wording.GONE)
        if known.over:
            return await self._unanswered(caller, chat, tray, known) or say(wording.TAKEN)
        line = parse(known.line)
        photos = (await self._photos(chat, tray))[: limits.PHOTOS_MOST]
        if known.started is None:
            known = replace(known, started=datetime.now(UTC).isoformat())
            await self._keep(chat, tray, known)
        reply = await self._commands.run(
            replace(caller, request=self._request(chat, tray, known)),
            line.command,
            {**line.values, "consent": True},
            self._uploads([photo.blob for photo in photos]),
        )
        if reply.job_id is not None:
            await self.end(chat, tray, "taken")
        else:
            await self._keep(chat, tray, replace(known, started=None))
        return reply

    async def _unanswered(self, caller: Caller, chat: int, tray: str, known: Tray) -> Reply | None:
        """The reply to a closed tray's command, if an earlier process died before it sent the reply."""
        request = self._request(chat, tray, known)
        job = await self._records.jobs.by_request(caller.platform, caller.platform_id, request)
        if job is None or job.progress_ref is not None:
            return None
        # The request has a job, so `run` answers with that job before it looks at the values, which are erased.
        return await self._commands.run(replace(caller, request=request), "train", {})

    def _request(self, chat: int, tray: str, known: Tray) -> str:
        return f"{NAME}:{self._bot.id}:{chat}/{tray}/{known.started}"

    async def _uploads(self, blobs: list[str]) -> AsyncIterator[Upload]:
        for blob in blobs:
            yield Upload(self._blobs.stream(blob))

    async def end(self, chat: int, tray: str, how: str) -> None:
        """Erase the tray's photos and close it for a day; the loose tray can be filled again."""
        self._stop_timer(chat, tray)
        self._shown.pop((chat, tray), None)
        known, photos = await self._tray(chat, tray), await self._photos(chat, tray)
        if known is not None and not known.over:
            seen = tuple(photo.mark for photo in photos)
            await self._keep(chat, tray, replace(known, name="", line="", over=how, seen=seen))
        for photo in photos:
            await self._records.notes.delete(PHOTOS, f"{chat}/{tray}/{photo.mark}")
        await self._blobs.delete(_blobs_of(chat, tray))

    async def expire(self) -> None:
        """Erase photos that have waited for a day, and say so; delete closed trays."""
        self._refused_files.clear()
        for note in await self._records.notes.find(TRAYS):
            if note.created > datetime.now(UTC) - KEPT:
                continue
            chat, tray = int(note.key.partition("/")[0]), note.key.partition("/")[2]
            async with self._turns[chat]:
                photos = await self._photos(chat, tray)
                await self.end(chat, tray, "expired")
                await self._records.notes.delete(TRAYS, note.key)
                if photos:
                    with suppress(TelegramError, Unreachable), speaking(note.body.get("language")):
                        await self._outbox.say(Room(chat), wording.expired(len(photos)))

    # Settling a tray

    def _settle_later(self, chat: int, tray: str) -> None:
        self._stop_timer(chat, tray)
        loop = asyncio.get_running_loop()
        self._timers[chat, tray] = loop.call_later(self._quiet, self._settle_now, chat, tray)

    def _stop_timer(self, chat: int, tray: str) -> None:
        if timer := self._timers.pop((chat, tray), None):
            timer.cancel()

    def _settle_now(self, chat: int, tray: str) -> None:
        async def settle() -> None:
            async with self._turns[chat]:
                try:
                    await self.settle(chat, tray)
                except Unreachable:
                    pass  # the person has blocked the bot; another photo settles the tray again
                except TelegramError as error:
                    log.warning("an album was not answered yet: %s", type(error).__name__)
                    self._settle_later(chat, tray)

        self._settling.add(task := asyncio.create_task(settle()))
        task.add_done_callback(self._settling.discard)

    async def settle(self, chat: int, tray: str) -> None:
        """Ask for what the tray still needs, or run its command."""
        self._stop_timer(chat, tray)
        known, photos = await self._tray(chat, tray), await self._photos(chat, tray)
        if known is None or known.over:
            return
        # After a restart there is no update to take the language from.
        speak(known.language)
        if known.line and tray != LOOSE and not photos:
            await self._hand_on(chat, tray, known)
            return
        if known.line is None:
            loose = await self._tray(chat, LOOSE)
            if tray != LOOSE and loose is not None and loose.line is not None and not loose.over:
                # The person gave the command first, and sends the photos as an album after it.
                await self._pour(chat, tray, known, photos)
                await self.settle(chat, LOOSE)
            elif photos:
                await self._show(chat, tray, known, wording.waiting(len(photos), tray, tray != LOOSE))
            return
        refused = await self._refused(known, chat)
        if refused is not None:
            known = replace(known, line=None)
            await self._show(chat, tray, known, wording.kept(refused, len(photos)))
        elif len(photos) < limits.PHOTOS_FEWEST or not known.complete:
            await self._show(chat, tray, known, wording.collecting(known.line or "", len(photos), tray))
        elif parse(known.line or "").values.get("consent"):
            caller = _caller(known, chat)
            reply = await self.agree(caller, chat, tray)
            if isinstance(reply, Reply):
                await self._show_reply(caller, Room(chat), reply)
        else:
            await self._show(chat, tray, known, wording.consent(known.line or "", len(photos), tray))

    async def _refused(self, known: Tray, chat: int) -> Message | None:
        """The refusal of the tray's line, or None. The line runs without consent, which must be all that it lacks."""
        try:
            line = parse(known.line or "")
        except UserError as error:
            return refusals.refusal(error)
        values = {name: value for name, value in line.values.items() if name != "consent"}
        reply = await self._commands.run(_caller(known, chat), line.command, values)
        return None if reply.message == refusals.refusal(UserError("consent")) else reply.message

    async def _pour(self, chat: int, tray: str, known: Tray, photos: list[_Photo]) -> None:
        """Move an album's photos into the loose tray and complete it."""
        for photo in photos:
            blob = f"{_blobs_of(chat, LOOSE)}{photo.mark}"
            await self._blobs.put(blob, await self._blobs.get(photo.blob))
            body = {"message": photo.message, "blob": blob}
            await self._records.notes.add(PHOTOS, f"{chat}/{LOOSE}/{photo.mark}", body, f"{NAME}:{chat}")
        await self.end(chat, tray, "moved")
        loose = await self._tray(chat, LOOSE)
        if loose is not None and not loose.over and len(await self._photos(chat, LOOSE)) >= limits.PHOTOS_FEWEST:
            await self._keep(chat, LOOSE, replace(loose, complete=True))

    async def _hand_on(self, chat: int, tray: str, known: Tray) -> None:
        """Let the command of an album without a single picture wait for the photos that come next."""
        loose = await self._tray(chat, LOOSE)
        if loose is None or loose.over:
            await self._records.notes.delete(TRAYS, f"{chat}/{LOOSE}")
            loose = Tray(known.user, known.name, language=known.language)
        await self._keep(chat, LOOSE, replace(loose, line=known.line))
        await self.end(chat, tray, "moved")
        await self.settle(chat, LOOSE)

    async def _show(self, chat: int, tray: str, known: Tray, message: Message) -> None:
        if known.asked is not None and self._shown.get((chat, tray)) == message:
            return
        # A new message instead of an edit, so that it is below the photos.
        asked = await self._outbox.say(Room(chat), message)
        self._shown[chat, tray] = message
        await self._keep(chat, tray, replace(known, asked=asked))
        if known.asked is not None:
            await self._outbox.edits.delete(known.asked)

    # Notes

    async def _tray_for(self, chat: int, tray: str, user: User) -> Tray:
        """The tray for a new photo or command: the album's own, even if closed, or an open loose one."""
        known = await self._tray(chat, tray)
        if known is not None and known.over and tray == LOOSE:
            # Start a new tray, or the new photos would expire with the old ones.
            await self._records.notes.delete(TRAYS, f"{chat}/{tray}")
            known = None
        return known or Tray(user.id, user.full_name, complete=tray != LOOSE, language=spoken())

    async def _tray(self, chat: int, tray: str) -> Tray | None:
        note = await self._records.notes.get(TRAYS, f"{chat}/{tray}")
        return _tray(note.body) if note else None

    async def _open(self, chat: int) -> dict[str, Tray]:
        notes = await self._records.notes.find(TRAYS, f"{chat}/")
        trays = {note.key.partition("/")[2]: _tray(note.body) for note in notes}
        return {tray: known for tray, known in trays.items() if not known.over}

    async def _keep(self, chat: int, tray: str, known: Tray) -> None:
        await self._records.notes.put(TRAYS, f"{chat}/{tray}", asdict(known), f"{NAME}:{chat}")

    async def _photos(self, chat: int, tray: str | None = None) -> list[_Photo]:
        """The photos of a tray, or of all trays, in the order in which they were sent."""
        notes = await self._records.notes.find(PHOTOS, f"{chat}/{tray}/" if tray else f"{chat}/")
        photos = []
        for note in notes:
            _, of_tray, mark = note.key.split("/")
            photos.append(_Photo(of_tray, mark, int(note.body["message"]), str(note.body["blob"])))
        return sorted(photos, key=lambda photo: photo.message)


def takes_photos(line: str) -> bool:
    """Whether a line's command takes photos."""
    command = COMMANDS.get((line.strip().removeprefix("/").split(maxsplit=1) or [""])[0].lower())
    return command is not None and any(option.kind == OptionKind.PHOTOS for option in command.options)


def is_file(message: Got) -> bool:
    """Whether the message has a file, which may be a photo."""
    return bool(
        message.photo
        or message.document
        or message.video
        or message.animation
        or message.sticker
        or message.audio
        or message.voice
        or message.video_note
    )


def _by_a_person(message: Got) -> bool:
    return message.from_user is not None and not message.from_user.is_bot


_UNTYPED = frozenset({"", "application/octet-stream", "binary/octet-stream", "application/unknown"})
"""Types that say nothing of a document. Telegram's clients give them where the sender's system knows no better."""


def _picked(message: Got) -> _Picked | None:
    """The message's picture, or the document that may be one; None if it is something else."""
    if message.photo:
        photo = message.photo[-1]
        return _Picked(photo.file_id, _mark(photo.file_unique_id), photo.file_size or 0)
    document = message.document
    if document is None or message.animation:
        return None
    kind = (document.mime_type or "").strip().lower()
    typed = kind.startswith("image/")
    if not typed and kind not in _UNTYPED:
        return None
    return _Picked(document.file_id, _mark(document.file_unique_id), document.file_size or 0, typed)


def _mark(text: str) -> str:
    # Telegram's ids are case-sensitive; blob keys are lower case.
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def _tray_of(message: Got) -> str:
    return _mark(message.media_group_id)[:12] if message.media_group_id else LOOSE


def _tray(body: dict[str, object]) -> Tray:
    fields = {**body, "seen": tuple(body["seen"])}  # type: ignore[arg-type]
    return Tray(**fields)  # type: ignore[arg-type]


def _blobs_of(chat: int, tray: str) -> str:
    """The key prefix of a tray's photos. A private chat has its person's id, so /forget erases them."""
    return f"{keys.incoming(NAME, str(chat))}{tray}/"


def _caller(known: Tray, chat: int) -> Caller:
    return Caller(NAME, str(known.user), known.name, str(Room(chat)), str(chat), direct=True)
