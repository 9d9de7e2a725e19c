"""Buttons under the bot's messages."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from telegram import CallbackQuery, Update

from bot.commands.commands import Commands
from bot.frontends.telegram.albums import Albums
from bot.frontends.telegram.answering import Answering, answer_query
from bot.frontends.telegram.calls import Unreachable
from bot.frontends.telegram.outbox import TelegramOutbox
from bot.frontends.telegram.reading import Context, Reader
from bot.frontends.telegram.rendering import ALERT_MOST, units
from bot.frontends.telegram.rooms import NAME, Room
from bot.language import say
from bot.messages import Caller, Reply, Shown
from bot.replies import refusals
from bot.replies import telegram as wording
from storage.errors import UserError
from storage.records import Job, Records


@dataclass(frozen=True, slots=True)
class _Press:
    """One press. message_id: the message whose button it is. action: the button's data, as "<verb>:<subject>"."""

    query: CallbackQuery
    update_id: int
    caller: Caller
    room: Room
    message_id: int
    action: str

    @property
    def verb(self) -> str:
        return self.action.partition(":")[0]

    @property
    def subject(self) -> str:
        return self.action.partition(":")[2]


class Buttons:
    """Handles presses of the common buttons and of Telegram's own, whose verbs begin with "t."."""

    def __init__(
        self,
        records: Records,
        commands: Commands,
        albums: Albums,
        outbox: TelegramOutbox,
        answering: Answering,
        reader: Reader,
    ) -> None:
        self._records = records
        self._commands = commands
        self._albums = albums
        self._outbox = outbox
        self._answering = answering
        self._reader = reader
        self._own: Mapping[str, Callable[[_Press], Awaitable[None]]] = {
            "t.done": self._done,
            "t.drop": self._drop,
            "t.agree": self._agree,
            "t.files": self._originals,
            "t.pics": self._pictures,
        }

    async def on_press(self, update: Update, context: Context) -> None:
        """Handle a press of a button of any age."""
        query = update.callback_query
        assert query is not None
        if query.message is None or query.data is None:
            await answer_query(query)
            return
        self._outbox.remember_name(query.from_user)
        room = self._reader.room(query.message)
        caller = self._reader.caller(query.from_user, room, update)
        press = _Press(query, update.update_id, caller, room, query.message.message_id, query.data)
        handle = self._own.get(press.verb, self._unknown if press.verb.startswith("t.") else self._common)
        try:
            await handle(press)
        except Unreachable:
            await answer_query(query)

    async def _common(self, press: _Press) -> None:
        """Handle a press of a button that all platforms have."""
        reply = await self._answering.once(press.update_id, lambda: self._commands.press(press.caller, press.action))
        text = reply.message.text
        plain = not (reply.message.buttons or reply.message.files)
        # In a group, a short private reply is an alert, which nobody else sees.
        as_alert = reply.private and plain and units(text) <= ALERT_MOST and not press.room.private
        await answer_query(press.query, text if as_alert else None, alert=as_alert)
        if reply.replaces:
            await self._outbox.edit(f"{press.room}#{press.message_id}", reply.message)
            return
        if reply.spent:
            await self._outbox.edits.remove_buttons(press.room, press.message_id)
        if not as_alert:
            await self._show(press, reply)

    async def _unknown(self, press: _Press) -> None:
        await answer_query(press.query, refusals.refusal(UserError("unknown_action")).text, alert=True)

    # Albums; the subject is a tray

    async def _done(self, press: _Press) -> None:
        text = await self._albums.done(press.room.chat, press.subject)
        await answer_query(press.query, text, alert=text is not None)

    async def _drop(self, press: _Press) -> None:
        dropped = await self._albums.drop(press.room.chat, press.subject)
        await answer_query(press.query, None if dropped else say(wording.TAKEN))
        await self._outbox.edits.remove_buttons(press.room, press.message_id)
        if dropped:
            await self._outbox.say(press.room, wording.dropped())

    async def _agree(self, press: _Press) -> None:
        reply = await self._albums.agree(press.caller, press.room.chat, press.subject)
        if isinstance(reply, str):
            await answer_query(press.query, reply, alert=True)
            return
        await answer_query(press.query)
        if reply.job_id is not None:
            await self._outbox.edits.remove_buttons(press.room, press.message_id)
        await self._show(press, reply)

    # Pictures; the subject is a job

    async def _originals(self, press: _Press) -> None:
        """[Originals]: send the pictures as files, which Telegram does not compress."""
        if (job := await self._job_of(press)) is not None:
            pictures = [Shown(one.key, "", one.seed) for one in await self._records.jobs.pictures(job.id)]
            await self._outbox.album(
                press.room, pictures, press.message_id, f"update:{press.update_id}", documents=True
            )

    async def _pictures(self, press: _Press) -> None:
        """[Show the pictures]: send them again, since it is unknown whether they arrived."""
        if (job := await self._job_of(press)) is not None:
            pictures = (await self._commands.answer(job)).pictures
            await self._outbox.album(press.room, pictures, press.message_id, f"update:{press.update_id}")

    async def _job_of(self, press: _Press) -> Job | None:
        """The job if it is over and belongs to this room, or to this person in their private chat; otherwise refuse."""
        job = await self._commands.visible_job(press.caller, press.subject)
        if job is not None and job.over and job.frontend == NAME:
            await answer_query(press.query)
            return job
        await answer_query(press.query, refusals.refusal(UserError("not_yours")).text, alert=True)
        return None

    async def _show(self, press: _Press, reply: Reply) -> None:
        await self._answering.show(
            press.caller, press.room, reply, update_id=press.update_id, message_id=press.message_id
        )
