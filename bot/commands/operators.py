"""What operators do: /operator and its duties."""

import re
from datetime import UTC, datetime, timedelta

from bot import limits
from bot.commands.desk import Desk
from bot.messages import Caller, Reply
from bot.replies import operators as words
from storage.errors import UserError
from storage.jobs import State

REACH = timedelta(days=30)
"""A broadcast goes to the rooms where somebody was within this time."""


class Operators:
    """What only those may do whom AVATAR_OPERATORS names."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def operator(self, caller: Caller, duty: str, text: str = "") -> Reply:
        """Do one duty."""
        if not self._desk.is_operator(caller):
            raise UserError("operators_only")
        match duty.lower():
            case "pause":
                await self._desk.records.operators.pause(True)
                message = words.paused(await self._waiting())
            case "resume":
                await self._desk.records.operators.pause(False)
                message = words.resumed(await self._waiting())
            case "queue":
                jobs = [
                    (job, (datetime.now(UTC) - job.created).total_seconds())
                    for job in await self._desk.records.jobs.active()
                ]
                message = words.queue(jobs, await self._desk.records.operators.paused())
            case "stats":
                message = words.stats(await self._desk.records.operators.statistics())
            case "ban":
                return await self._ban(text)
            case "unban":
                platform, platform_id = _account(text)
                await self._desk.records.operators.unban(platform, platform_id)
                message = words.unbanned(f"{platform}:{platform_id}")
            case "quota":
                return await self._quota(text)
            case "broadcast":
                since = datetime.now(UTC) - REACH
                message = words.broadcast(
                    await self._desk.records.notices.create(limits.notice(text), since, caller.request)
                )
            case _:
                raise UserError("unknown_duty")
        return Reply(message, private=True)

    async def _waiting(self) -> int:
        return sum(1 for job in await self._desk.records.jobs.active() if job.state == State.QUEUED)

    async def _ban(self, text: str) -> Reply:
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
        return Reply(words.banned(name, user is not None, stopped), private=True)

    async def _quota(self, text: str) -> Reply:
        records = self._desk.records
        given = text.split()
        if not given:
            return Reply(words.quotas(await records.quotas.default(), None), private=True)
        if len(given) not in (2, 3) or given[0] not in ("trainings", "pictures"):
            raise UserError("quota_shape")
        amount = {given[0]: limits.quota(given[1])}
        if len(given) == 2:
            quota = {**await records.quotas.default(), **amount}
            await records.quotas.update(quota)
            return Reply(words.quotas(quota, None), private=True)
        platform, platform_id = _account(given[2])
        found = await records.users.find(platform, platform_id)
        if len(found) != 1 or found[0].platform_id != platform_id:
            raise UserError("unknown_account", account=f"{platform}:{platform_id}"[:64])
        quota = {**(found[0].quota or {}), **amount}
        await records.quotas.update(quota, found[0].id)
        return Reply(
            words.quotas({**await records.quotas.default(), **quota}, f"{platform}:{platform_id}"), private=True
        )


def _account(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"([a-z]+):(\S{1,255})", text.strip())
    if found is None:
        raise UserError("account_shape")
    return found[1], found[2]
