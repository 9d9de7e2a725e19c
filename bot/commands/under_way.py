"""Commands for jobs under way: /status and /cancel."""

from datetime import UTC, datetime, timedelta

from bot.commands.desk import Desk, Visit
from bot.messages import Reply
from bot.replies import jobs
from storage.errors import UserError
from storage.records import Job

_CANCELS = "cancels"
"""The space of notes with the job that a /cancel request without a job stopped."""
_REPEATED = timedelta(days=1)
"""How long a platform may repeat a request."""


class UnderWay:
    """Commands about jobs that are not over."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def status(self, visit: Visit) -> Reply:
        """List the person's jobs that are not over."""
        listed = [
            (job, await self._desk.waiting(job), await self._desk.token(job))
            for job in await self._desk.records.jobs.for_user(visit.user.id, active_only=True)
        ]
        return Reply(jobs.status(listed), private=True)

    async def cancel(self, visit: Visit, job: str = "") -> Reply:
        """Stop one of the person's own jobs, the newest if none is named; operators may name anybody's."""
        if job:
            found = await self._desk.job(job)
            if found.user_id != visit.user.id and not visit.operator:
                raise UserError("not_yours")
            if found.over:
                raise UserError("job_over")
        else:
            found = await self._newest(visit)
        stopped = await self._desk.stop(found.id)
        return Reply(jobs.cancelling(stopped, await self._desk.token(stopped)), private=True)

    async def _newest(self, visit: Visit) -> Job:
        """The person's newest job under way: the same one for the same request, however often it is delivered."""
        records, caller = self._desk.records, visit.caller
        key = f"{caller.account} {caller.request}"
        if caller.request and (note := await records.notes.get(_CANCELS, key)):
            return await self._desk.job(note.body["job"])
        active = await records.jobs.for_user(visit.user.id, active_only=True, limit=1)
        if not active:
            raise UserError("no_jobs")
        if caller.request:
            await records.notes.prune(_CANCELS, datetime.now(UTC) - _REPEATED)
            await records.notes.add(_CANCELS, key, {"job": active[0].id}, owner=caller.account)
        return active[0]
