"""Inline mode: `@bot mia7` in any chat offers pictures that the person had drawn."""

from contextlib import suppress

from telegram import InlineQueryResultCachedPhoto, Update
from telegram.error import TelegramError

from bot.frontends.ledger import Ledger
from bot.frontends.telegram.reading import Context
from bot.frontends.telegram.rooms import NAME
from storage.jobs import Imagine
from storage.records import Records

RESULTS_MOST = 50
"""Most results of one query."""
_JOBS_MOST = 100
"""How many drawings one query searches, newest first."""


class Inline:
    """Answers inline queries."""

    def __init__(self, records: Records, ledger: Ledger) -> None:
        self._records = records
        self._ledger = ledger

    async def on_query(self, update: Update, context: Context) -> None:
        """Offer pictures of avatars that the person may use anywhere. A query restricts them to those it names."""
        query = update.inline_query
        assert query is not None
        user = await self._records.users.get_or_create(NAME, str(query.from_user.id), query.from_user.full_name)
        usable = {avatar.id: avatar.token for avatar in await self._records.avatars.usable_by(user.id, "")}
        words = query.query.lower().split()
        found: list[InlineQueryResultCachedPhoto] = []
        for job, _ in await self._records.jobs.drawings(user.id, limit=_JOBS_MOST):
            if len(found) >= RESULTS_MOST:
                break
            assert isinstance(job.payload, Imagine)
            drawn = set(job.payload.avatar_ids)
            named = not words or any(usable[one].startswith(word) for one in drawn & usable.keys() for word in words)
            if job.frontend == NAME and drawn and drawn <= usable.keys() and named:
                found += await self._sent_pictures(job.room, job.id)
        with suppress(TelegramError):
            await query.answer(found[:RESULTS_MOST], cache_time=5, is_personal=True)

    async def _sent_pictures(self, room: str, job_id: str) -> list[InlineQueryResultCachedPhoto]:
        """A job's pictures, by the file ids that Telegram gave them when the answer was sent."""
        entry = await self._ledger.find(f"{room}|{job_id}")
        files = entry.body.get("files", ()) if entry else ()
        return [InlineQueryResultCachedPhoto(f"{job_id}-{position}", file) for position, file in enumerate(files)]
