"""Leases: one process at a time holds a key, until it releases the key or stops renewing it."""

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, select

from storage.records import tables
from storage.records.database import Database

LEASES = "holds"
"""The space of the notes that store leases: {"until"}, in seconds since 1970; the note's owner is the holder."""


class Leases:
    """Leases of one database, shared by its processes. Their clocks must agree within the length of a lease."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def acquire(self, key: str, holder: str, seconds: float) -> bool:
        """Take the lease of a key for this many seconds from now. False while another holder has it."""
        table = tables.notes
        async with self._database.write() as connection:
            query = select(table.c.owner, table.c.body).where(*_lease(key))
            held = (await connection.execute(query)).one_or_none()
            if held and held.owner != holder and held.body["until"] > self._database.now().timestamp():
                return False
            await connection.execute(table.delete().where(*_lease(key)))
            values = {"space": LEASES, "key": key, "owner": holder, "created": self._database.now()}
            await connection.execute(table.insert().values(**values, body=self._until(seconds)))
            return True

    async def renew(self, holder: str, seconds: float) -> None:
        """Extend all leases of this holder to this many seconds from now."""
        table = tables.notes
        async with self._database.write() as connection:
            update = table.update().where(table.c.space == LEASES, table.c.owner == holder)
            await connection.execute(update.values(body=self._until(seconds)))

    async def release(self, key: str, holder: str) -> None:
        """Give up the lease of a key, if this holder has it."""
        table = tables.notes
        async with self._database.write() as connection:
            await connection.execute(table.delete().where(*_lease(key), table.c.owner == holder))

    async def prune(self, before: datetime) -> int:
        """Delete leases that were acquired before this moment; returns how many."""
        table = tables.notes
        async with self._database.write() as connection:
            delete = table.delete().where(table.c.space == LEASES, table.c.created < before)
            return int((await connection.execute(delete)).rowcount)

    def _until(self, seconds: float) -> dict[str, Any]:
        return {"until": self._database.now().timestamp() + seconds}


def _lease(key: str) -> tuple[ColumnElement[bool], ...]:
    return tables.notes.c.space == LEASES, tables.notes.c.key == key
