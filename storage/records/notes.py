"""Notes: small values that a frontend stores, by space and key."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import select

from storage.records import tables
from storage.records.database import Database
from storage.records.rows import Note


class Notes:
    """Small JSON values by space and key. A note with an owner is erased when that person is forgotten."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, space: str, key: str, body: Mapping[str, Any], owner: str | None = None) -> bool:
        """Add a note unless the space has this key already; returns whether it was new.

        `owner`: the account that the note is about, as platform:id.
        """
        return bool(await self._add(space, {key: (body, owner)}))

    async def add_many(self, space: str, notes: Mapping[str, tuple[Mapping[str, Any], str | None]]) -> set[str]:
        """Add many notes at once, each a body and an owner by its key; returns the keys that were new."""
        return await self._add(space, notes)

    async def _add(self, space: str, notes: Mapping[str, tuple[Mapping[str, Any], str | None]]) -> set[str]:
        table = tables.notes
        async with self._database.write() as connection:
            known = select(table.c.key).where(table.c.space == space, table.c.key.in_(notes.keys()))
            new = notes.keys() - set(await connection.scalars(known))
            rows = [self._row(space, key, body, owner) for key, (body, owner) in notes.items() if key in new]
            if rows:
                await connection.execute(table.insert(), rows)
            return set(new)

    async def put(self, space: str, key: str, body: Mapping[str, Any], owner: str | None = None) -> None:
        """Add a note, or replace the body and the owner of the one that is there."""
        table = tables.notes
        async with self._database.write() as connection:
            update = table.update().where(table.c.space == space, table.c.key == key)
            if not (await connection.execute(update.values(body=dict(body), owner=owner))).rowcount:
                await connection.execute(table.insert().values(self._row(space, key, body, owner)))

    def _row(self, space: str, key: str, body: Mapping[str, Any], owner: str | None) -> dict[str, Any]:
        return {"space": space, "key": key, "body": dict(body), "owner": owner, "created": self._database.now()}

    async def get(self, space: str, key: str) -> Note | None:
        """The note, or None."""
        table = tables.notes
        row = await self._database.first(select(table).where(table.c.space == space, table.c.key == key))
        return Note(**row._mapping) if row else None

    async def find(self, space: str, prefix: str = "") -> list[Note]:
        """The notes of a space whose keys start with `prefix`, oldest first."""
        table = tables.notes
        query = select(table).where(table.c.space == space, table.c.key.startswith(prefix, autoescape=True))
        return [Note(**row._mapping) for row in await self._database.rows(query.order_by(table.c.created, table.c.key))]

    async def delete(self, space: str, key: str) -> bool:
        """Delete a note; returns whether there was one."""
        table = tables.notes
        async with self._database.write() as connection:
            delete = table.delete().where(table.c.space == space, table.c.key == key)
            return bool((await connection.execute(delete)).rowcount)

    async def prune(self, space: str, before: datetime) -> int:
        """Delete the notes of a space that were added before this moment; returns how many."""
        table = tables.notes
        async with self._database.write() as connection:
            delete = table.delete().where(table.c.space == space, table.c.created < before)
            return int((await connection.execute(delete)).rowcount)
