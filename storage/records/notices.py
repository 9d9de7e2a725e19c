"""Notices: an operator's messages to all rooms, until the frontends have posted them."""

import uuid
from collections.abc import Iterable
from datetime import datetime

from sqlalchemy import select

from storage.records import tables
from storage.records.database import Database
from storage.records.rows import Notice


class Notices:
    """Notices that wait to be posted, one for each room."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, text: str, since: datetime, request: str = "") -> int:
        """A notice for every room where somebody asked for something, or chatted, since then; returns how many.

        `request`: the key of the request that the notices come from. The same request makes the same notices, with the
        same ids, so that a frontend that has posted them knows them.
        """
        jobs, messages, notices = tables.jobs, tables.messages, tables.notices
        asked = select(jobs.c.frontend, jobs.c.room).where(jobs.c.created > since).distinct()
        chatted = select(messages.c.room).where(messages.c.created > since).distinct()
        async with self._database.write() as connection:
            rooms = {(row.frontend, row.room) for row in await connection.execute(asked)}
            rooms |= {("chat", room) for room in await connection.scalars(chatted)}
            waiting = set(await connection.scalars(select(notices.c.id)))
            for frontend, room in sorted(rooms):
                values = {**self._database.new_row(), "frontend": frontend, "room": room, "text": text}
                if request:
                    values["id"] = uuid.uuid5(uuid.NAMESPACE_OID, f"{request}|{frontend}|{room}").hex
                if values["id"] not in waiting:
                    await connection.execute(notices.insert().values(values))
        return len(rooms)

    async def pending(self, frontend: str, skip: int = 0, limit: int = 20) -> list[Notice]:
        """The oldest notices that this frontend has not posted: `limit` of them after the first `skip`."""
        table = tables.notices
        query = select(table).where(table.c.frontend == frontend).order_by(table.c.created, table.c.id)
        return [Notice(**row._mapping) for row in await self._database.rows(query.offset(skip).limit(limit))]

    async def delete(self, ids: Iterable[str]) -> None:
        """Drop notices that are posted, or cannot be."""
        async with self._database.write() as connection:
            await connection.execute(tables.notices.delete().where(tables.notices.c.id.in_(list(ids))))
