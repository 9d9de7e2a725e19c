"""Quotas: how many trainings and pictures a person has a day, and how many they used."""

from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import and_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from storage.jobs import Imagine, JobKind, State
from storage.records import tables
from storage.records.accounts import DAY, accounts_of, fingerprint
from storage.records.database import Database
from storage.records.rows import job_from_row
from storage.records.server import get_value, put_value


class Quotas:
    """Trainings and pictures a day: {"trainings": int | None, "pictures": int | None}; None is no limit."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def default(self) -> dict[str, int | None]:
        """The quotas of everybody who has none of their own; a missing one is no limit."""
        async with self._database.read() as connection:
            return dict(await get_value(connection, "quota") or {})

    async def update(self, quota: Mapping[str, int | None], user_id: str | None = None) -> None:
        """Replace everybody's quotas, or those of one person."""
        table = tables.users
        async with self._database.write() as connection:
            if user_id is None:
                await put_value(connection, "quota", dict(quota))
            else:
                own = table.update().where(table.c.id == user_id)
                await connection.execute(own.values(quota=dict(quota) or None))

    async def used(self, user_id: str) -> dict[str, list[tuple[datetime, int]]]:
        """The trainings and pictures of the last 24 hours: when each stops counting, and how many, soonest first."""
        async with self._database.write() as connection:
            return await usage(connection, user_id, self._database.now())


async def usage(connection: AsyncConnection, user_id: str, now: datetime) -> dict[str, list[tuple[datetime, int]]]:
    """The trainings and pictures of the last 24 hours: when each stops counting, and how many, soonest first.

    Failed jobs do not count, nor do jobs that were cancelled before an engine took them.
    """
    table, marks = tables.jobs, tables.forgotten
    used: dict[str, list[tuple[datetime, int]]] = {"trainings": [], "pictures": []}
    # Of the jobs that are recorded.
    recent = and_(table.c.user_id == user_id, table.c.created > now - DAY)
    kinds = table.c.kind.in_((JobKind.TRAIN, JobKind.IMAGINE))
    for row in await connection.execute(select(table).where(recent, kinds).order_by(table.c.created)):
        job = job_from_row(row)
        if job.state == State.FAILED or (job.state == State.CANCELLED and not job.attempt):
            continue
        if isinstance(job.payload, Imagine):
            used["pictures"].append((job.created + DAY, job.payload.count))
        else:
            used["trainings"].append((job.created + DAY, 1))
    # Of jobs that were erased with a person. Accounts that were erased together hold the same sum.
    accounts = await accounts_of(connection, user_id)
    prints = [await fingerprint(connection, account.platform, account.platform_id) for account in accounts]
    before = (marks.c.fingerprint.in_(prints), marks.c.until > now)
    rows = (await connection.execute(select(marks.c.until, marks.c.spent).where(*before))).all()
    for what, uses in used.items():
        if rows:
            until, amount = max((row.until, int(row.spent.get(what, 0))) for row in rows)
            uses += [(until, amount)] if amount else []
        uses.sort()
    return used
