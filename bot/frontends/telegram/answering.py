"""Replies to commands: a command runs once for each update, and its reply goes to the right chat."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

from telegram import CallbackQuery
from telegram.error import TelegramError

from bot.delivery import Delivery
from bot.frontends.telegram.calls import Unreachable
from bot.frontends.telegram.outbox import TelegramOutbox
from bot.frontends.telegram.reading import Reader
from bot.frontends.telegram.rooms import NAME, Room
from bot.language import say
from bot.messages import Caller, Reply
from bot.replies import telegram as wording
from storage.records import Records

_REPLIES_MOST = 1000


class Answering:
    """Runs commands and shows their replies."""

    def __init__(self, records: Records, outbox: TelegramOutbox, delivery: Delivery, reader: Reader) -> None:
        self._records = records
        self._outbox = outbox
        self._delivery = delivery
        self._reader = reader
        self._replies: dict[int, Reply] = {}

    async def once(self, update_id: int, run: Callable[[], Awaitable[Reply]]) -> Reply:
        """The reply to an update's command. If only the sending of the reply failed, the command is not run again."""
        if update_id not in self._replies:
            self._replies[update_id] = await run()
            # Drop the oldest: replies to dropped updates are never sent.
            while len(self._replies) > _REPLIES_MOST:
                del self._replies[next(iter(self._replies))]
        return self._replies[update_id]

    def handled(self, update_id: int) -> None:
        """The update's reply was sent."""
        self._replies.pop(update_id, None)

    async def show(
        self,
        caller: Caller,
        room: Room,
        reply: Reply,
        *,
        update_id: int | None = None,
        message_id: int | None = None,
    ) -> None:
        """Show a reply in its room or, if it is private, in the caller's private chat.

        update_id: the update that asked, whose reply is sent once. message_id: the message that asked.
        """
        reply_to = None if room.private else message_id
        if reply.job_id is not None:
            await self._follow(caller, room, reply, reply.job_id, reply_to, message_id)
            return
        # No note may be written for a person who has just been erased.
        known = update_id is not None and await self._records.users.exists(NAME, caller.platform_id)
        dedupe = f"update:{update_id}" if known else None
        if reply.private and not room.private:
            await self._show_privately(caller, room, reply, dedupe, message_id)
            return
        try:
            await self._outbox.say(
                room,
                reply.message,
                reply_to=reply_to,
                dedupe=dedupe,
                owner=_account(caller),
                if_unsure=wording.unsure(),
            )
        except Unreachable:
            if room.private:
                raise
            await self._outbox.say(_private_room(caller), reply.message, dedupe=dedupe, if_unsure=wording.unsure())

    async def _follow(
        self, caller: Caller, room: Room, reply: Reply, job_id: str, reply_to: int | None, message_id: int | None
    ) -> None:
        await self._outbox.remember_asker(job_id, int(caller.platform_id), message_id)
        ref = await self._outbox.say(
            room, reply.message, reply_to=reply_to, dedupe=f"first:{job_id}", owner=_account(caller)
        )
        await self._delivery.follow(job_id, ref, reply.message)

    async def _show_privately(
        self, caller: Caller, room: Room, reply: Reply, dedupe: str | None, message_id: int | None
    ) -> None:
        try:
            await self._outbox.say(_private_room(caller), reply.message, dedupe=dedupe, if_unsure=wording.unsure())
        except Unreachable:
            link = (say(wording.OPEN), self._reader.deep_link("start"))
            await self._outbox.say(room, wording.start_first(), reply_to=message_id, link=link)


async def answer_query(query: CallbackQuery, text: str | None = None, alert: bool = False) -> None:
    """Stop the pressed button's spinner, with an optional text as a notification or an alert."""
    # Telegram refuses a late answer, which does no harm.
    with suppress(TelegramError):
        await query.answer(text, show_alert=alert)


def _account(caller: Caller) -> str:
    return f"{caller.platform}:{caller.platform_id}"


def _private_room(caller: Caller) -> Room:
    return Room(int(caller.platform_id))
