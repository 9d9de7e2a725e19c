"""The command for operators: /operator and its duties."""

import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta

from bot import limits
from bot.commands.desk import Desk, Visit
from bot.messages import Message, Reply
from bot.replies import operators as replies
from storage.errors import UserError
from storage.jobs import State

REACH = timedelta(days=30)
"""A broadcast goes to the rooms that were used within this time."""


class Operators:
    """The duties, which only the accounts in AVATAR_OPERATORS may use."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._duties: Mapping[str, Callable[[Visit, str], Awaitable[Message]]] = {
            "pause": self._pause,
            "resume": self._resume,
            "queue": self._queue,
            "stats": self._stats,
            "ban": self._ban,
            "unban": self._unban,
            "quota": self._quota,
            "broadcast": self._broadcast,
        }

    async def operator(self, visit: Visit, duty: str, text: str = "") -> Reply:
        """Do one duty."""
        if not visit.operator:
            raise UserError("operators_only")
        if duty.lower() not in self._duties:
            raise UserError("unknown_duty")
        return Reply(await self._duties[duty.lower()](visit, text), private=True)

    async def _pause(self, visit: Visit, text: str) -> Message:
        await self._desk.records.operators.pause(True)
        return replies.paused(await self._waiting())

    async def _resume(self, visit: Visit, text: str) -> Message:
        await self._desk.records.operators.pause(False)
        return replies.resumed(await self._waiting())

    async def _queue(self, visit: Visit, text: str) -> Message:
        now = datetime.now(UTC)
        jobs = [(job, (now - job.created).total_seconds()) for job in await self._desk.records.jobs.active()]
        return replies.queue(jobs, await self._desk.records.operators.paused())

    async def _stats(self, visit: Visit, text: str) -> Message:
        operators = self._desk.records.operators
        return replies.stats(await operators.statistics(), await operators.base_model())

    async def _unban(self, visit: Visit, text: str) -> Message:
        platform, platform_id = _account(text)
        await self._desk.records.operators.unban(platform, platform_id)
        return replies.unbanned(f"{platform}:{platform_id}")

    async def _broadcast(self, visit: Visit, text: str) -> Message:
        since = datetime.now(UTC) - REACH
        return replies.broadcast(
            await self._desk.records.notices.create(limits.notice(text), since, visit.caller.request)
        )

    async def _waiting(self) -> int:
        return sum(1 for job in await self._desk.records.jobs.active() if job.state == State.QUEUED)

    async def _ban(self, visit: Visit, text: str) -> Message:
        platform, platform_id = _account(text)
        name = f"{platform}:{platform_id}"
        if name in self._desk.operators:
            raise UserError("ban_operator")
        user = await self._desk.records.operators.ban(platform, platform_id)
        stopped = 0
        if user is not None:
            for job in await self._desk.records.jobs.for_user(user.id, active_only=True):
                await self._desk.stop(job.id)
                stopped += 1
            for avatar in await self._desk.records.avatars.owned_by(user.id):
                stopped += await self._desk.stop_without_right(avatar.id)
        return replies.banned(name, user is not None, stopped)

    async def _quota(self, visit: Visit, text: str) -> Message:
        records = self._desk.records
        given = text.split()
        if not given:
            return replies.quotas(await records.quotas.default(), None)
        if len(given) not in (2, 3) or given[0] not in ("trainings", "pictures"):
            raise UserError("quota_shape")
        amount = {given[0]: limits.quota(given[1])}
        if len(given) == 2:
            quota = {**await records.quotas.default(), **amount}
            await records.quotas.update(quota)
            return replies.quotas(quota, None)
        platform, platform_id = _account(given[2])
        found = await records.users.find(platform, platform_id)
        if len(found) != 1 or found[0].platform_id != platform_id:
            raise UserError("unknown_account", account=f"{platform}:{platform_id}"[:64])
        quota = {**(found[0].quota or {}), **amount}
        await records.quotas.update(quota, found[0].id)
        return replies.quotas({**await records.quotas.default(), **quota}, f"{platform}:{platform_id}")


def _account(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"([a-z]+):(\S{1,255})", text.strip())
    if found is None:
        raise UserError("account_shape")
    return found[1], found[2]
