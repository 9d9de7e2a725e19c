"""Commands for a person's own data: /mydata, /privacy, /forget and /link."""

import json
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from bot.commands.desk import Desk, Visit
from bot.messages import Caller, Reply
from bot.replies import account
from storage.errors import UserError
from storage.events import Event

_FIELDS: Mapping[str, Sequence[str]] = {
    "accounts": ("platform", "platform_id", "name", "created", "banned", "quota"),
    "avatars": ("id", "token", "noun", "state", "word", "details", "created", "preferred"),
    "photos": ("avatar_id", "position", "verdict"),
    "consents": ("avatar_id", "version", "created"),
    # Without the grantee: that is about another person.
    "grants_given": ("avatar_id", "grantee_kind", "created", "expires"),
    "grants_received": ("created", "expires"),
    "jobs": ("id", "kind", "frontend", "payload", "state", "created", "started", "finished", "error", "language"),
    "pictures": ("job_id", "position", "seed", "created"),
    "notes": ("space", "body", "created"),
    "chat_lines": ("room", "body", "created"),
}


class Account:
    """Commands about a person's data and accounts."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def mydata(self, visit: Visit) -> Reply:
        """Everything kept about the person: counts, and a file."""
        user = visit.user
        rows = await self._desk.records.users.export(user.id)
        counts = {name: len(found) for name, found in rows.items()}
        accounts = await self._desk.records.users.accounts(user.id)
        return Reply(account.mydata(accounts, counts, _document(rows)), private=True)

    async def privacy(self, _: Caller) -> Reply:
        """What is kept, where and for how long."""
        return Reply(account.privacy(), private=True)

    async def forget(self, visit: Visit) -> Reply:
        """Ask before a person is erased."""
        user = visit.user
        rows = await self._desk.records.users.export(user.id)
        counts = {name: len(found) for name, found in rows.items()}
        platforms = [one.platform for one in await self._desk.records.users.accounts(user.id)]
        return Reply(account.confirm_forget(user.id, counts, platforms), private=True)

    async def forgotten(self, caller: Caller, user_id: str, *, lines: bool) -> Reply:
        """The confirmed erasure. The button carries the person's id, since other people may see and press it."""
        await self._check(caller, user_id)
        records = self._desk.records
        # Blobs first: if this is interrupted, the records still list what is left. And again afterwards, for what an
        # engine wrote in between; once the records are gone it can write nothing more.
        files = await self._wipe(await records.users.blob_keys(user_id))
        gone = await records.users.forget(user_id, lines=lines)
        files += await self._wipe(gone.keys)
        for job in gone.stopped:
            await self._desk.events.publish(Event(job.id, job.attempt, "cancelled"))
        return Reply(account.forgotten(gone.counts, files, uuid4().hex[:12]), private=True, spent=True)

    async def not_forgotten(self, caller: Caller, user_id: str) -> Reply:
        """The Keep button: nothing is erased."""
        await self._check(caller, user_id)
        return Reply(account.not_forgotten(), private=True, spent=True)

    async def _check(self, caller: Caller, user_id: str) -> None:
        # The first press erased the person; a second press must not create them again.
        records = self._desk.records
        known = await records.users.exists(caller.platform, caller.platform_id)
        if (
            not known
            or (await records.users.get_or_create(caller.platform, caller.platform_id, caller.name)).id != user_id
        ):
            raise UserError("not_yours")

    async def _wipe(self, keys: list[str]) -> int:
        return sum([await self._desk.wipe(key) for key in dict.fromkeys(keys)])

    async def link(self, visit: Visit, code: str = "") -> Reply:
        """Create a code, or redeem the code of another platform, which links the two accounts to one person."""
        user = visit.user
        if not code:
            return Reply(account.link_code(await self._desk.records.users.link_code(user.id)), private=True)
        joined = await self._desk.records.users.link(user.id, code)
        here = next((one for one in joined.others if one.platform == visit.caller.platform), None)
        if here is None:
            raise UserError("link_self")
        return Reply(account.linked(joined.user, here, joined.renamed), private=True)


def _document(rows: Mapping[str, list[dict[str, Any]]]) -> str:
    shown = {
        name: [{field: row[field] for field in fields if row.get(field) is not None} for row in rows[name]]
        for name, fields in _FIELDS.items()
    }
    return json.dumps(shown, indent=2, ensure_ascii=False, default=lambda moment: moment.isoformat())
