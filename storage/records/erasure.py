"""Everything that is about one person: exporting it and erasing it. All on the caller's transaction."""

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from itertools import product
from typing import Any

from sqlalchemy import ColumnElement, Row, and_, func, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage import keys
from storage.jobs import Imagine, State, to_json
from storage.records import tables
from storage.records.accounts import DAY, accounts_of, belongs_to, fingerprint
from storage.records.jobs import jobs_about
from storage.records.quotas import usage
from storage.records.rows import Forgotten, Job, User, job_from_row


async def rows_about(connection: AsyncConnection, user_id: str) -> dict[str, list[dict[str, Any]]]:
    """All rows about this person, by table."""
    avatars, photos, grants = tables.avatars, tables.photos, tables.grants
    jobs, pictures, notes = tables.jobs, tables.pictures, tables.notes
    owned = select(avatars.c.id).where(avatars.c.owner_id == user_id)
    asked = select(jobs.c.id).where(jobs.c.user_id == user_id)
    accounts = await accounts_of(connection, user_id)
    queries = {
        "accounts": select(tables.users).where(belongs_to(user_id)),
        "avatars": select(avatars).where(avatars.c.owner_id == user_id),
        "photos": select(photos).where(photos.c.avatar_id.in_(owned)),
        "consents": select(tables.consents).where(tables.consents.c.user_id == user_id),
        "grants_given": select(grants).where(grants.c.avatar_id.in_(owned)),
        "grants_received": select(grants).where(_granted_to(user_id)),
        "jobs": select(jobs).where(jobs.c.user_id == user_id),
        "pictures": select(pictures).where(pictures.c.job_id.in_(asked)),
        "notes": select(notes).where(notes.c.owner.in_(_note_owners(accounts))),
    }
    found = {name: [dict(row._mapping) for row in await connection.execute(query)] for name, query in queries.items()}
    found["chat_lines"] = [dict(row._mapping) for row in await _own_lines(connection, accounts)]
    return found


def _granted_to(user_id: str) -> ColumnElement[bool]:
    return and_(tables.grants.c.grantee_kind == "user", tables.grants.c.grantee_id == user_id)


def _note_owners(accounts: Iterable[User]) -> list[str]:
    return [f"{account.platform}:{account.platform_id}" for account in accounts]


async def _own_lines(connection: AsyncConnection, accounts: Iterable[User]) -> Sequence[Row[Any]]:
    """What the person wrote on the chat page, oldest first."""
    table = tables.messages
    names = {account.platform_id for account in accounts if account.platform == "chat"}
    if not names:
        return []
    # Not in SQL: SQLite lowers ASCII only.
    rows = (await connection.execute(select(table).where(table.c.author != "").order_by(table.c.id))).all()
    return [row for row in rows if row.author.lower() in names]


async def blob_keys(connection: AsyncConnection, user_id: str) -> list[str]:
    """The blobs of a person: keys, and prefixes that end in a slash."""
    photos, avatars, pictures = tables.photos, tables.avatars, tables.pictures
    # Of their avatars.
    owned = list(await connection.scalars(select(avatars.c.id).where(avatars.c.owner_id == user_id)))
    found = [*await connection.scalars(select(photos.c.key).where(photos.c.avatar_id.in_(owned)))]
    found += [prefix for avatar_id in owned for prefix in (keys.adapters(avatar_id), keys.samples(avatar_id))]
    # Of photos that are in no avatar yet.
    for account in await accounts_of(connection, user_id):
        if re.fullmatch(r"[a-z0-9_-]+", account.platform_id):
            found.append(keys.incoming(account.platform, account.platform_id))
    # Of their jobs, and of other people's that drew their avatars.
    asked = await connection.scalars(select(tables.jobs.c.id).where(tables.jobs.c.user_id == user_id))
    jobs = {*asked, *(job.id for job in await jobs_about(connection, owned))}
    found += [*await connection.scalars(select(pictures.c.key).where(pictures.c.job_id.in_(jobs)))]
    return found + [prefix for job_id in sorted(jobs) for prefix in (keys.pictures(job_id), keys.checkpoints(job_id))]


async def forget(connection: AsyncConnection, user_id: str, lines: bool, now: datetime) -> Forgotten:
    """Erase a person: accounts, avatars, photos, jobs, pictures, grants, notes, and with `lines` their chat.

    Other people's jobs that drew one of the person's avatars are emptied, and stopped if they are under way. What
    stays is a fingerprint of each account, for a day or for as long as a ban lasts, and one of each request of the
    last day, so that a platform that delivers it again brings nothing back.
    """
    users, avatars, jobs, pictures, grants = tables.users, tables.avatars, tables.jobs, tables.pictures, tables.grants
    # Find what is theirs.
    accounts = await accounts_of(connection, user_id)
    blobs = await blob_keys(connection, user_id)
    owned = list(await connection.scalars(select(avatars.c.id).where(avatars.c.owner_id == user_id)))
    own = [job_from_row(row) for row in await connection.execute(select(jobs).where(jobs.c.user_id == user_id))]
    about = await jobs_about(connection, owned)
    of_others = [job for job in about if job.user_id != user_id and isinstance(job.payload, Imagine)]
    drawn = pictures.c.job_id.in_([job.id for job in (*own, *of_others)])
    granted = _granted_to(user_id)
    # Count it.
    counts = {
        "avatars": len(owned),
        "photos": await _count(connection, tables.photos, tables.photos.c.avatar_id.in_(owned)),
        "pictures": await _count(connection, pictures, drawn),
        "jobs": len(own),
        "grants": await _count(connection, grants, or_(granted, grants.c.avatar_id.in_(owned))),
    }
    if lines:
        job_ids = {job.id for job in (*own, *of_others)}
        counts["lines"] = await _forget_lines(connection, accounts, job_ids, owned)
    # Leave fingerprints.
    await _mark_accounts(connection, user_id, accounts, now)
    await _mark_requests(connection, accounts, own, now)
    # Erase.
    await connection.execute(tables.notes.delete().where(tables.notes.c.owner.in_(_note_owners(accounts))))
    await connection.execute(pictures.delete().where(drawn))
    for job in of_others:
        await connection.execute(jobs.update().where(jobs.c.id == job.id).values(_emptied(job, now)))
    await connection.execute(grants.delete().where(granted))
    await connection.execute(jobs.delete().where(jobs.c.user_id == user_id))
    await connection.execute(avatars.delete().where(avatars.c.owner_id == user_id))
    await connection.execute(users.delete().where(users.c.person_id == user_id))
    await connection.execute(users.delete().where(users.c.id == user_id))
    return Forgotten(blobs, counts, [job for job in (*own, *of_others) if not job.over])


async def _count(connection: AsyncConnection, table: Any, where: ColumnElement[bool]) -> int:
    return int(await connection.scalar(select(func.count()).select_from(table).where(where)) or 0)


def _emptied(job: Job, now: datetime) -> dict[str, Any]:
    """The values of somebody's job without the avatar it drew.

    A running job gets another attempt number, so that its engine can write nothing any more.
    """
    count = job.payload.count if isinstance(job.payload, Imagine) else 1
    values: dict[str, Any] = {"payload": to_json(Imagine("", (), count)), "result": None, "error": None}
    if not job.over:
        attempt = job.attempt + 1 if job.state == State.RUNNING else job.attempt
        values |= {"state": State.CANCELLED.value, "finished": now, "attempt": attempt}
    return values


async def _forget_lines(
    connection: AsyncConnection, accounts: Iterable[User], job_ids: Collection[str], avatar_ids: Collection[str]
) -> int:
    """Erase the person's own lines in the chat, and the bot's about their jobs and avatars; returns how many."""
    table = tables.messages
    own = [row.id for row in await _own_lines(connection, accounts)]
    by_bot = (await connection.execute(select(table.c.id, table.c.body).where(table.c.author == ""))).all()
    about = [row.id for row in by_bot if row.body.get("job") in job_ids or (row.body.get("avatar") or "") in avatar_ids]
    await connection.execute(table.delete().where(table.c.id.in_([*own, *about])))
    return len(own) + len(about)


async def _mark_accounts(connection: AsyncConnection, user_id: str, accounts: Sequence[User], now: datetime) -> None:
    """Keep a ban, and what was used up of today's quota: an erasure is no way around either."""
    table = tables.forgotten
    used = await usage(connection, user_id, now)
    values = {
        "banned": accounts[0].banned,
        "spent": {what: sum(amount for _, amount in uses) for what, uses in used.items()},
        "until": now + DAY,
    }
    if not values["banned"] and not any(used.values()):
        return
    for account in accounts:
        mark = await fingerprint(connection, account.platform, account.platform_id)
        await connection.execute(table.delete().where(table.c.fingerprint == mark))
        await connection.execute(table.insert().values(fingerprint=mark, **values))


async def _mark_requests(
    connection: AsyncConnection, accounts: Iterable[User], jobs: Iterable[Job], now: datetime
) -> None:
    """Keep a fingerprint of the requests of the last day, which is as long as platforms deliver one again."""
    table = tables.forgotten
    requests = {job.request for job in jobs if job.request is not None and job.created > now - DAY}
    for account, request in product(accounts, requests):
        mark = await fingerprint(connection, account.platform, account.platform_id, request)
        await connection.execute(table.delete().where(table.c.fingerprint == mark))
        await connection.execute(table.insert().values(fingerprint=mark, spent={}, until=now + DAY))
